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

// systemDir is the parent of Postgres' folder if the user that runs Postgres cannot reach
// root's data folder.
const systemDir = "/var/lib/gatehouse"

// unfinished is the prefix of the names of incomplete files and folders, which are renamed
// once they are complete. A later start deletes any that a killed Gatehouse left.
const unfinished = "unfinished-"

// home is the folder with all files of one Postgres.
type home struct {
	dir     string // absolute, symbolic links resolved
	account account
}

func (h *home) data() string         { return filepath.Join(h.dir, "data") }
func (h *home) passwordFile() string { return filepath.Join(h.dir, "password") }

// findHome chooses the folder of Postgres and the user that runs it, and creates the
// folder. It keeps an existing folder, even if its permissions have changed.
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
		return nil, fmt.Errorf("the user %s, who runs postgres, cannot reach %s: let others traverse each parent folder (chmod o+x)", h.account.name, h.dir)
	}
	return h, nil
}

// folderMode is the mode of folders that Postgres must traverse to reach its own.
func folderMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// makeFolder is os.Mkdir regardless of the umask.
func makeFolder(path string) error {
	if err := os.Mkdir(path, folderMode()); err != nil {
		return err
	}
	return os.Chmod(path, folderMode())
}

// makeHome creates the folder entry, or a symbolic link of that name to a folder that the
// account can reach. If two processes do so at the same time, both succeed; the lock then
// admits one.
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
	away, err := createSystemFolder(dir)
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

// createSystemFolder creates a folder named after dir. If the name exists, it belongs to a data
// folder that was deleted together with the keys of its data: createSystemFolder does not touch it,
// and appends a number to the new name.
func createSystemFolder(dir string) (string, error) {
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

// ErrInUse is the error if another running Gatehouse uses the data folder.
var ErrInUse = errors.New("data folder in use")

// lock locks the home until unlock, or until this process ends for any reason.
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
		return nil, fmt.Errorf("%w: the gatehouse with process ID %s is running and holds %s; stop it, or choose another data folder", ErrInUse, bytes.TrimSpace(holder), path)
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

// unlock releases the lock explicitly. Close would not: a child process that another
// goroutine has just forked holds a copy of the descriptor until it executes its program.
func unlock(lock *os.File) error {
	return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
}

// sweep deletes unfinished files and folders. It only logs a failure: the children of a
// killed initdb may still be writing for a moment, and the next start sweeps again.
func (h *home) sweep(log *slog.Logger) {
	entries, err := os.ReadDir(h.dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.dir, entry.Name())))
		}
	}
	if err != nil {
		log.Warn("postgres: deleting unfinished files failed", "err", err)
	}
}

// newLog creates a log file and keeps the previous one, which may have the reason of a
// crash. It deletes older ones to limit disk usage.
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

// lastLines returns the end of a log, for an error message.
func lastLines(log *os.File) string {
	const lines, width = 10, 200
	info, err := log.Stat()
	if err != nil {
		return ""
	}
	end := make([]byte, min(info.Size(), lines*width))
	n, _ := log.ReadAt(end, info.Size()-int64(len(end))) // use the bytes before an error
	text := strings.Split(strings.TrimSpace(string(end[:n])), "\n")
	return strings.Join(text[max(0, len(text)-lines):], "\n")
}
