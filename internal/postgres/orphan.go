package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// report is the content of postmaster.pid.
type report struct {
	pid   int
	ready bool // accepts connections
}

// readReport reads postmaster.pid, or returns a zero report if it does not exist. Postgres
// writes the file line by line, so fields may be missing; they are zero.
func readReport(data string) (report, error) {
	text, err := os.ReadFile(pidFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return report{}, nil
	}
	if err != nil {
		return report{}, err
	}
	lines := strings.Split(string(text), "\n")
	var r report
	r.pid, _ = strconv.Atoi(strings.TrimPrefix(lines[0], "-")) // a minus marks single-user mode
	r.ready = len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
	return r, nil
}

func pidFile(data string) string { return filepath.Join(data, "postmaster.pid") }

// stopOrphan stops a Postgres that outlived its Gatehouse. The caller holds the lock, so no
// running Gatehouse uses it.
func stopOrphan(ctx context.Context, log *slog.Logger, data string) error {
	r, err := readReport(data)
	if err != nil {
		return fmt.Errorf("look for a running postgres: %w", err)
	}
	// Open the process before identifying it, so that the signal cannot reach another
	// process that reuses the ID.
	process, err := os.FindProcess(r.pid)
	if err != nil {
		return removeStale(pidFile(data))
	}
	defer process.Release()
	if !runsOn(r.pid, data) {
		return removeStale(pidFile(data))
	}
	log.Warn("postgres: stopping an orphan that outlived its Gatehouse", "pid", r.pid)

	for _, step := range stopSteps {
		if err := process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop the postgres with process ID %d: %w", r.pid, err)
		}
		gone, err := awaitEnd(ctx, step.patience, r.pid, data)
		if err != nil || gone {
			return err
		}
	}
	return fmt.Errorf("the postgres with process ID %d on %s cannot be stopped", r.pid, data)
}

// awaitEnd polls until a process has ended. The kernel does not notify us, because it is
// not a child process.
func awaitEnd(ctx context.Context, patience time.Duration, pid int, data string) (gone bool, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for runsOn(pid, data) {
		select {
		case <-tick.C:
		case <-end:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	return true, nil
}

// removeStale deletes a PID file whose process has ended. Postgres does so itself, except
// if another process of the same user has reused the ID.
func removeStale(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale %w", err)
	}
	return nil
}
