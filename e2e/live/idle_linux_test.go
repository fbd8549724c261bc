package live

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// idle is an open stream of server-sent events, and how many events it had.
type idle struct {
	events atomic.Int64
	ended  atomic.Bool
}

// idleStreams opens streams of as many people as that takes, each over a connection of its
// own, and reads them until ctx ends.
func idleStreams(ctx context.Context, t *testing.T, s *harness.System, name string, n int) []*idle {
	t.Helper()
	const perCaller = 5
	all := make([]*idle, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				first := int(next.Add(perCaller)) - perCaller
				if first >= n {
					return
				}
				person := s.SignUp(t, fmt.Sprintf("%s%d@example.com", name, first))
				for i := first; i < min(first+perCaller, n); i++ {
					all[i] = openIdle(ctx, t, s, person.Access)
				}
			}
		})
	}
	group.Wait()
	return all
}

func openIdle(ctx context.Context, t *testing.T, s *harness.System, token string) *idle {
	t.Helper()
	stream := &idle{}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/v1/me:watch", http.NoBody)
	if err != nil {
		t.Error(err)
		return stream
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := (&http.Client{Transport: &http.Transport{ReadBufferSize: 512, WriteBufferSize: 512}}).Do(request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("open a stream: %v, %v", response, err)
		return stream
	}
	go func() {
		defer response.Body.Close()
		lines := bufio.NewReaderSize(response.Body, 512)
		for {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				stream.ended.Store(true)
				return
			}
			if len(line) == 1 {
				stream.events.Add(1)
			}
		}
	}()
	return stream
}

// TestIdleStreamsCostLittle measures what idle streams cost the gateway: 10,000 of them with
// GATEHOUSE_TEST_STREAMS=10000 and GATEHOUSE_TEST_SECONDS=60. The memory is what the Go
// runtime uses after a collection, and, in the log, what is resident.
func TestIdleStreamsCostLittle(t *testing.T) {
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"), harness.WithOps())
	pid, period := s.Processes[harness.RoleBff].Cmd.Process.Pid, quiet(17)
	warmed := idleStreams(t.Context(), t, s, "first", 5) // what the first streams load
	used, resident := usedBy(t, s), memoryOf(t, pid)
	start := processorOf(t, pid)
	time.Sleep(min(period, 20*time.Second))
	base := float64(processorOf(t, pid)-start) / float64(min(period, 20*time.Second))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun := time.Now()
	all := idleStreams(ctx, t, s, "person", streams(200))
	opened := time.Since(begun)
	time.Sleep(5 * time.Second)
	for _, stream := range all {
		stream.events.Store(0)
	}
	start = processorOf(t, pid)
	time.Sleep(period)
	busy := float64(processorOf(t, pid)-start) / float64(period)
	resident = (memoryOf(t, pid) - resident) / int64(len(all))
	used = (usedBy(t, s) - used) / int64(len(all))
	var events int64
	for i, stream := range slices.Concat(all, warmed) {
		if stream.ended.Load() {
			t.Errorf("stream %d has ended", i)
		}
		if i < len(all) {
			events += stream.events.Load()
		}
	}
	if events < int64(len(all)) {
		t.Errorf("%d streams had %d events in %v, want each to be alive", len(all), events, period)
	}
	t.Logf("%d idle streams, opened in %v: %.1f %% of a core over %v with %d events (%.1f %% without streams), %.1f KiB used each, %.1f KiB resident",
		len(all), opened.Round(time.Second), 100*busy, period, events, 100*base, float64(used)/1024, float64(resident)/1024)
	if most := int64(20 << 10); used > most {
		t.Errorf("an idle stream uses %d bytes, want at most %d", used, most)
	}
}

var inUse = regexp.MustCompile(`(?m)^# (?:HeapInuse|Stack) = (\d+)`)

// usedBy returns the bytes that the gateway's heap and stacks use after a collection. It
// takes several to shrink the stacks, each by half.
func usedBy(t *testing.T, s *harness.System) (used int64) {
	t.Helper()
	for range 5 {
		status, profile := harness.Get(t, s.Ops()[harness.RoleBff]+"/debug/pprof/heap?gc=1&debug=1")
		found := inUse.FindAllStringSubmatch(profile, -1)
		if status != http.StatusOK || len(found) != 2 {
			t.Fatalf("%d %v, want the heap and the stacks in use", status, found)
		}
		used = 0
		for _, one := range found {
			bytes, err := strconv.ParseInt(one[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			used += bytes
		}
	}
	return used
}

// processorOf returns the CPU time of a process.
func processorOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memoryOf returns the resident memory of a process in bytes.
func memoryOf(t *testing.T, pid int) int64 {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
