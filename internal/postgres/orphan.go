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

// report is what a postmaster tells of itself in postmaster.pid.
type report struct {
	pid   int
	ready bool // accepts connections
}

// readReport returns a zero report where there is no file. Postgres writes the file
// line by line: what is missing stays zero.
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

// stopOrphan ends a Postgres that outlived its Gatehouse. We hold the lock, so no
// living Gatehouse wants it.
func stopOrphan(ctx context.Context, log *slog.Logger, data string) error {
	r, err := readReport(data)
	if err != nil {
		return fmt.Errorf("look for a running postgres: %w", err)
	}
	// The process is taken hold of first and recognised then, so that a signal can't
	// reach another that got its number in between.
	process, err := os.FindProcess(r.pid)
	if err != nil {
		return removeStale(pidFile(data))
	}
	defer process.Release()
	if !runsOn(r.pid, data) {
		return removeStale(pidFile(data))
	}
	log.Warn("stopping a Postgres that outlived its Gatehouse", "pid", r.pid)

	for _, step := range stopSteps {
		if err := process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop the postgres with process id %d: %w", r.pid, err)
		}
		gone, err := awaitEnd(ctx, step.patience, r.pid, data)
		if err != nil || gone {
			return err
		}
	}
	return fmt.Errorf("the postgres with process id %d on %s can't be stopped", r.pid, data)
}

// awaitEnd looks again and again: the end of a process that isn't our child isn't
// told to us.
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

// removeStale removes a pid file whose process is gone. Postgres would do so itself,
// but not where the number now belongs to another process of the same user.
func removeStale(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale %w", err)
	}
	return nil
}
