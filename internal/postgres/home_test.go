package postgres

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// systemHome removes what the test's Postgres puts outside the data folder.
func systemHome(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if away, err := os.Readlink(filepath.Join(dir, "postgres")); err == nil && filepath.Dir(away) == systemDir {
			os.RemoveAll(away)
		}
		os.Remove(systemDir) // if it is empty
	})
}

func ownerName(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := owner(info)
	return userName(uid)
}

func TestRootRunsPostgresAsAnotherUser(t *testing.T) {
	needRoot(t)
	t.Parallel()
	s := start(t, newDir(t))
	for name, want := range map[string]string{"data": "postgres", "run": "postgres", "password": "root", "lock": "root", ".": "root"} {
		if got := ownerName(t, filepath.Join(s.Dir(), name)); got != want {
			t.Errorf("%s belongs to %s, want %s", name, got, want)
		}
	}
	if got := ownerName(t, "/proc/"+strconv.Itoa(s.process.cmd.Process.Pid)); got != "postgres" {
		t.Errorf("Postgres runs as %s, want postgres", got)
	}
}

func TestOwnerOfAFolderKeepsIt(t *testing.T) {
	needRoot(t)
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	dir := newDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "postgres"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "postgres"), uid, gid); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := start(t, dir)
		if got := ownerName(t, "/proc/"+strconv.Itoa(s.process.cmd.Process.Pid)); got != "nobody" {
			t.Errorf("Postgres runs as %s in nobody's folder", got)
		}
		stop(t, s)
	}
}

func TestClusterThatRootBroughtBackIsAdopted(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := madeDir(t)
	s := start(t, dir)
	execute(t, s, `CREATE TABLE kept AS SELECT 'a word' AS word`)
	stop(t, s)
	data := filepath.Join(s.Dir(), "data")
	err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 0, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("the row holds %q", got)
	}
}

func TestFolderClosedToPostgresSendsItsFilesElsewhere(t *testing.T) { // alone, for the folder in /var/lib
	needRoot(t)
	closed := filepath.Dir(newDir(t))
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "gatehouse")
	systemHome(t, dir)

	s := start(t, dir)
	if filepath.Dir(s.Dir()) != systemDir {
		t.Errorf("Postgres' files are in %s, want a folder in %s", s.Dir(), systemDir)
	}
	execute(t, s, `CREATE TABLE kept AS SELECT 'a word' AS word`)
	if _, err := Start(t.Context(), Config{Dir: dir, NoSync: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("second Start = %v, want ErrInUse", err)
	}
	stop(t, s)

	// Where the data is, it stays, though the data folder is open now.
	if err := os.Chmod(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir)
	if again.Dir() != s.Dir() {
		t.Errorf("the files moved from %s to %s", s.Dir(), again.Dir())
	}
	if got := ask(t, again, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("after a restart the row holds %q", got)
	}
	stop(t, again)
}

func TestDeletedDataFolderStartsEmpty(t *testing.T) { // alone, for the folder in /var/lib
	needRoot(t)
	closed := filepath.Dir(newDir(t))
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "gatehouse")
	systemHome(t, dir)
	old := start(t, dir)
	t.Cleanup(func() { os.RemoveAll(old.Dir()) })
	execute(t, old, `CREATE TABLE old ()`)
	stop(t, old)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}

	s := start(t, dir)
	if got := ask(t, s, `SELECT count(*)::text FROM pg_tables WHERE tablename = 'old'`); got != "0" {
		t.Error("the data of the removed folder came back")
	}
	if _, err := os.Stat(filepath.Join(old.Dir(), "data", "PG_VERSION")); err != nil {
		t.Errorf("the old data is gone: %v", err)
	}
	stop(t, s)
}

func TestFolderClosedLaterIsExplained(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := madeDir(t)
	stop(t, start(t, dir))
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir, NoSync: true})
	if err == nil || !strings.Contains(err.Error(), "the user postgres, who runs postgres, cannot reach "+dir) {
		t.Errorf("Start in a folder closed later = %v, want it explained", err)
	}
}

func TestAwkwardPathsAreNoObstacle(t *testing.T) {
	t.Parallel()
	for name, below := range map[string]string{
		"too long for a socket": strings.Repeat("long/", 30),
		"comma and quote":       `one, "two"`,
		"odd but short":         "My it's 100% データ?",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(newDir(t), below)
			var short string
			for range 2 {
				s := start(t, dir)
				ask(t, s, `SELECT 'reached'`)
				info, err := os.Stat(s.sockets)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode().Perm() != 0o700 {
					t.Errorf("%s has mode %v", s.sockets, info.Mode())
				}
				short = s.sockets
				stop(t, s)
			}
			if _, err := os.Stat(short); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is there after Stop: %v", short, err)
			}
		})
	}
}

func TestUnfinishedClustersAreRemoved(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	half := filepath.Join(dir, "postgres", unfinished+"123", "data")
	if err := os.MkdirAll(half, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half-made cluster is still there: %v", err)
	}
}

func TestFilesThatAreNoClusterAreLeftAlone(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"notes.txt": "is not a complete database cluster", "PG_VERSION": "the cluster's version"} {
		dir := newDir(t)
		file := filepath.Join(dir, "postgres", "data", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Start(t.Context(), Config{Dir: dir, NoSync: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start with an existing %s = %v, want %q", name, err, want)
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
}

func TestRelativeDataFolder(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	s := start(t, ".gatehouse")
	if want := filepath.Join(dir, ".gatehouse", "postgres"); s.Dir() != want {
		t.Errorf("Dir() = %s, want %s", s.Dir(), want)
	}
	t.Chdir("/")
	ask(t, s, `SELECT 'reached'`)
	stop(t, s)

	if _, err := Start(context.Background(), Config{}); err == nil {
		t.Error("Start without a data folder succeeded")
	}
}
