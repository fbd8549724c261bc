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

// port only names the socket.
const port = 5432

// maxSocketPath is what fits into a socket address on the strictest system.
const maxSocketPath = 103

func socketIn(dir string) string {
	return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
}

// makeSocketFolder makes a folder for the socket that only the account can enter.
// It is the home's "run", or where that doesn't suit, "run" is a link to it.
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

// suitsSocket reports whether a path is short enough for a socket address, and free
// of the comma, which separates hosts in connection URLs, and of the quote, which
// Postgres' settings would need escaped.
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

// removeSocketFolder removes the folder and what Postgres puts there, and nothing
// else: where a link leads is not to be trusted with more.
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
