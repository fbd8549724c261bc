package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// port is only part of the socket's name.
const port = 5432

// maxSocketPath is the maximum length of a socket's path on the strictest system.
const maxSocketPath = 103

func socketIn(dir string) string {
	return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
}

// makeSocketFolder creates a folder for the socket that only the account can enter: "run"
// in the home, or a folder elsewhere to which "run" is a symbolic link if the home's path
// is not suitable.
func (h *home) makeSocketFolder() (string, error) {
	if err := h.removeSocketFolder(); err != nil {
		return "", err
	}
	run := filepath.Join(h.dir, "run")
	if suitsSocket(run) {
		if err := os.Mkdir(run, 0o700); err != nil {
			return "", fmt.Errorf("make socket folder: %w", err)
		}
		return run, h.account.give(run)
	}

	short, err := h.makeShortFolder()
	if err != nil {
		return "", fmt.Errorf("make socket folder: %w", err)
	}
	if err := os.Symlink(short, run); err != nil {
		return "", errors.Join(err, os.Remove(short))
	}
	return short, h.account.give(short)
}

// suitsSocket reports whether a path is short enough for a socket address, and contains
// neither a comma, which separates hosts in connection URLs, nor a quote, which would have
// to be escaped in Postgres' settings.
func suitsSocket(dir string) bool {
	return len(socketIn(dir)) <= maxSocketPath && !strings.ContainsAny(dir, `,"`)
}

func (h *home) makeShortFolder() (string, error) {
	base := os.TempDir()
	if resolved, err := filepath.EvalSymlinks(base); err == nil {
		base = resolved
	}
	if !suitsSocket(filepath.Join(base, "gatehouse-0123456789")) || !h.account.mayEnter(base) {
		base = "/tmp"
	}
	return os.MkdirTemp(base, "gatehouse-")
}

// removeSocketFolder deletes the folder and the files that Postgres creates in it, and no
// other file, because "run" may be a link to an unexpected folder.
func (h *home) removeSocketFolder() error {
	run := filepath.Join(h.dir, "run")
	paths := []string{run}
	if short, err := os.Readlink(run); err == nil {
		paths = []string{short, run}
	}
	socket := socketIn(paths[0])
	for _, path := range append([]string{socket, socket + ".lock"}, paths...) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove socket folder: %w", err)
		}
	}
	return nil
}
