package postgres

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// systemDir is where Postgres' folder is made when root's data folder is closed to
// the user that runs Postgres.
const systemDir = "/var/lib/gatehouse"

// unfinished begins the names of things that get their own name once they are
// whole. What a killed Gatehouse left under such a name is worthless.
const unfinished = "unfinished-"

// home is the folder that holds everything of one Postgres.
type home struct {
	dir     string // absolute, symbolic links resolved
	account account
}

func (h *home) data() string         { return filepath.Join(h.dir, "data") }
func (h *home) passwordFile() string { return filepath.Join(h.dir, "password") }

// findHome decides where Postgres lives and who runs it, and makes the folder. One
// that exists is kept, whatever became of the permissions since.
func findHome(dir string) (*home, error) {
	if dir == "" {
		return nil, errors.New("no data folder given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(dir, folderMode()); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}

	entry := filepath.Join(dir, "postgres")
	if _, err := os.Lstat(entry); errors.Is(err, fs.ErrNotExist) {
		if err := makeHome(entry); err != nil {
			return nil, fmt.Errorf("make folder for postgres: %w", err)
		}
	}
	h := new(home)
	if h.dir, err = filepath.EvalSymlinks(entry); err != nil {
		return nil, fmt.Errorf("folder of postgres: %w", err)
	}
	if h.account, err = chooseAccount(h.dir, h.data()); err != nil {
		return nil, err
	}
	if !h.account.mayEnter(h.dir) {
		return nil, fmt.Errorf("the user %s, who runs postgres, can't reach %s: let others pass through each folder on the way (chmod o+x)", h.account.name, h.dir)
	}
	return h, nil
}

// folderMode is for folders through which Postgres must reach its own.
func folderMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// makeFolder is os.Mkdir whatever the umask.
func makeFolder(path string) error {
	if err := os.Mkdir(path, folderMode()); err != nil {
		return err
	}
	return os.Chmod(path, folderMode())
}

// makeHome makes the folder that entry names, or a link of that name to a folder
// which the account can reach. Of two that do so at once both succeed; the lock
// will part them.
func makeHome(entry string) error {
	dir := filepath.Dir(entry)
	account, err := chooseAccount()
	if err != nil {
		return err
	}
	if account.mayEnter(dir) {
		if err := makeFolder(entry); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}

	if err := makeFolder(systemDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	away, err := makeAway(dir)
	if err != nil {
		return err
	}
	if err := os.Symlink(away, entry); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		return errors.Join(err, os.Remove(away))
	}
	return nil
}

// makeAway makes a folder named after dir. One that is there already belonged to a
// data folder that was removed, together with the keys that fit its data: it is
// left alone, and the newcomer gets a number.
func makeAway(dir string) (string, error) {
	sum := sha256.Sum256([]byte(dir))
	name := filepath.Join(systemDir, fmt.Sprintf("%s-%x", filepath.Base(filepath.Dir(dir)), sum[:4]))
	path := name
	for n := 2; ; n++ {
		if err := makeFolder(path); !errors.Is(err, fs.ErrExist) {
			return path, err
		}
		path = name + "-" + strconv.Itoa(n)
	}
}

// ErrInUse is returned when a living Gatehouse uses the data folder.
var ErrInUse = errors.New("data folder in use")

// lock claims the home until unlock, or until this process ends, however it ends.
func (h *home) lock() (*os.File, error) {
	path := filepath.Join(h.dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("lock data folder, which belongs to another user: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder, err := io.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return nil, fmt.Errorf("%w: the gatehouse with process id %s runs there and holds %s; stop it, or choose another data folder", ErrInUse, bytes.TrimSpace(holder), path)
	}
	if err := errors.Join(f.Truncate(0), writePid(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

func writePid(f *os.File) error {
	_, err := fmt.Fprintln(f, os.Getpid())
	return err
}

// unlock doesn't leave the unlocking to Close: a child that another goroutine forked
// just now holds a copy of the descriptor until it runs its program.
func unlock(lock *os.File) error {
	return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
}

// sweep removes what was never finished. A failure is only reported: programs that
// a killed initdb left behind may still be writing there for a moment, and the next
// start sweeps again.
func (h *home) sweep(log *slog.Logger) {
	entries, err := os.ReadDir(h.dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.dir, entry.Name())))
		}
	}
	if err != nil {
		log.Warn("could not remove what an interrupted start left", "err", err)
	}
}

// newLog begins a log and keeps the one before it, where the reason of a crash may
// stand. Gone are older ones, so that they don't grow for ever.
func (h *home) newLog() (*os.File, error) {
	path := filepath.Join(h.dir, "postgres.log")
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("rotate log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// lastLines quotes the end of a log for an error to show.
func lastLines(log *os.File) string {
	const lines, width = 10, 200
	info, err := log.Stat()
	if err != nil {
		return ""
	}
	end := make([]byte, min(info.Size(), lines*width))
	n, _ := log.ReadAt(end, info.Size()-int64(len(end))) // whatever can be read
	text := strings.Split(strings.TrimSpace(string(end[:n])), "\n")
	return strings.Join(text[max(0, len(text)-lines):], "\n")
}
