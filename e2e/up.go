package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// house with an embedded Postgres, in a folder that Postgres' user can reach.
type upHouse struct {
	*system
	dir string
	env []string
}

func newUpHouse(t *testing.T) *upHouse {
	t.Helper()
	dir, err := os.MkdirTemp("", "gatehouse-up-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	listen := freeAddress(t)
	return &upHouse{
		system: &system{url: strings.Replace("http://"+listen, "127.0.0.1", "localhost", 1)}, dir: filepath.Join(dir, "data"),
		env: []string{"GATEHOUSE_DATA_DIR=" + filepath.Join(dir, "data"), "GATEHOUSE_LISTEN=" + listen},
	}
}

// up starts it and waits for the banner.
func (h *upHouse) up(t *testing.T) (*process, string) {
	t.Helper()
	p := startProcess(t, h.env)
	h.awaitBanner(t, p)
	return p, p.stdout.String()
}

// awaitBanner waits until it says that it is ready.
func (h *upHouse) awaitBanner(t *testing.T, p *process) {
	t.Helper()
	eventually(t, 60*time.Second, "print the banner", func() error {
		if p.hasEnded() {
			t.Fatalf("gatehouse ended: %s%s", p.stdout.String(), p.stderr.String())
		}
		if !strings.Contains(p.stdout.String(), "Ctrl-C stops it.") {
			return fmt.Errorf("it printed %q", p.stdout.String())
		}
		return nil
	})
}

// postgresOf returns the process ids of what runs on the house's data.
func (h *upHouse) postgresOf(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil && runtime.GOOS == "linux" {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink("/proc/" + entry.Name() + "/cwd"); err == nil && strings.HasPrefix(cwd, filepath.Dir(h.dir)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
