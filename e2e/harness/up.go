package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/testneed"
)

// Embedded is gatehouse up with its embedded Postgres, in a folder that the user of
// Postgres can read. Dir is its data folder, Env its settings.
type Embedded struct {
	*System
	Dir string
	Env []string
}

// NewEmbedded prepares one; Up starts it.
func NewEmbedded(t *testing.T) *Embedded {
	t.Helper()
	dir, err := os.MkdirTemp(testneed.MemoryDir(), "gatehouse-up-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	listen := FreeAddress(t)
	return &Embedded{
		System: &System{URL: strings.Replace("http://"+listen, "127.0.0.1", "localhost", 1)}, Dir: filepath.Join(dir, "data"),
		Env: []string{"GATEHOUSE_DATA_DIR=" + filepath.Join(dir, "data"), "GATEHOUSE_LISTEN=" + listen},
	}
}

// Up starts it, waits for the banner, and returns that.
func (h *Embedded) Up(t *testing.T) (*Process, string) {
	t.Helper()
	p := StartProcess(t, h.Env)
	h.AwaitBanner(t, p)
	return p, p.Stdout.String()
}

// AwaitBanner waits until the process has printed its banner.
func (h *Embedded) AwaitBanner(t *testing.T, p *Process) {
	t.Helper()
	Eventually(t, 60*time.Second, "print the banner", func() error {
		if p.HasEnded() {
			t.Fatalf("gatehouse ended: %s%s", p.Stdout.String(), p.Stderr.String())
		}
		if !strings.Contains(p.Stdout.String(), "Ctrl-C stops it.") {
			return fmt.Errorf("it printed %q", p.Stdout.String())
		}
		return nil
	})
}

// PostgresOf returns the ids of the processes that run in its data folder.
func (h *Embedded) PostgresOf(t *testing.T) []int {
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
		if cwd, err := os.Readlink("/proc/" + entry.Name() + "/cwd"); err == nil && strings.HasPrefix(cwd, filepath.Dir(h.Dir)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// BannerField returns the value of a field of the banner, or empty.
func BannerField(banner, name string) string {
	found := regexp.MustCompile(`(?m)^  ` + name + ` +(.+)$`).FindStringSubmatch(banner)
	if found == nil {
		return ""
	}
	return found[1]
}
