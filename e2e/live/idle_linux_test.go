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

// idleStreams opens streams of as many people as that takes, over the connections that
// over gives, and reads them until ctx ends.
func idleStreams(ctx context.Context, t *testing.T, s *harness.System, name string, n int, over func(i int) *http.Client) []*idle {
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
					all[i] = openIdle(ctx, t, s, person.Access, over(i))
				}
			}
		})
	}
	group.Wait()
	return all
}

// oneEach returns clients with a connection each.
func oneEach(protocol func(*http.Protocols, bool)) func(int) *http.Client {
	return func(int) *http.Client {
		transport := &http.Transport{ReadBufferSize: 512, WriteBufferSize: 512, Protocols: new(http.Protocols)}
		protocol(transport.Protocols, true)
		return &http.Client{Transport: transport}
	}
}

// shared returns clients that share connections, each for n streams.
func shared(n int) func(int) *http.Client {
	var mu sync.Mutex
	clients := map[int]*http.Client{}
	return func(i int) *http.Client {
		mu.Lock()
		defer mu.Unlock()
		if clients[i/n] == nil {
			clients[i/n] = oneEach((*http.Protocols).SetUnencryptedHTTP2)(i)
		}
		return clients[i/n]
	}
}

func openIdle(ctx context.Context, t *testing.T, s *harness.System, token string, over *http.Client) *idle {
	t.Helper()
	stream := &idle{}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/v1/me:watch", http.NoBody)
	if err != nil {
		t.Error(err)
		return stream
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := over.Do(request)
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
// runtime uses after a collection, and, in the log, what is resident. That of a few streams
// has fixed costs in it, and the objects between which opening them left room.
func TestIdleStreamsCostLittle(t *testing.T) {
	type kind struct {
		name      string
		over      func(int) *http.Client
		few, many int64 // KiB for each stream at most, and for each of 4,000
	}
	kinds := []kind{
		{"HTTP/1.1", oneEach((*http.Protocols).SetHTTP1), 20, 20},
		{"HTTP/2, 250 on a connection", shared(250), 28, 20}, // as many as net/http allows
	}
	if streams(0) > 0 {
		kinds = append(kinds, kind{"HTTP/2, 100 on a connection", shared(100), 28, 20},
			kind{"HTTP/2, one on a connection", oneEach((*http.Protocols).SetUnencryptedHTTP2), 56, 52})
	}
	for _, test := range kinds {
		t.Run(test.name, func(t *testing.T) {
			most := test.few
			if streams(200) >= 4000 {
				most = test.many
			}
			costLittle(t, test.over, most<<10)
		})
	}
}

func costLittle(t *testing.T, over func(int) *http.Client, most int64) {
	t.Helper()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"), harness.WithOps())
	pid, period := s.Processes[harness.RoleBff].Cmd.Process.Pid, quiet(17)
	warmed := idleStreams(t.Context(), t, s, "first", 5, over) // what the first streams load
	used, resident := usedBy(t, s), memoryOf(t, pid)
	start := processorOf(t, pid)
	time.Sleep(min(period, 20*time.Second))
	base := float64(processorOf(t, pid)-start) / float64(min(period, 20*time.Second))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun := time.Now()
	all := idleStreams(ctx, t, s, "person", streams(200), over)
	opened := time.Since(begun)
	time.Sleep(5 * time.Second)
	for _, stream := range all {
		stream.events.Store(0)
	}
	start = processorOf(t, pid)
	time.Sleep(period)
	busy := float64(processorOf(t, pid)-start) / float64(period)
	resident = (memoryOf(t, pid) - resident) / int64(len(all))
	now := usedBy(t, s)
	each := (now.heap + now.stacks - used.heap - used.stacks) / int64(len(all))
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
	t.Logf("%d idle streams, opened in %v: %.1f %% of a core over %v with %d events (%.1f %% without streams), %.1f KiB used each, of which %.1f KiB stack, %.1f KiB resident",
		len(all), opened.Round(time.Second), 100*busy, period, events, 100*base, float64(each)/1024, float64((now.stacks-used.stacks)/int64(len(all)))/1024, float64(resident)/1024)
	if each > most {
		t.Errorf("an idle stream uses %d bytes, want at most %d", each, most)
	}
}

// memory is what the Go runtime of a process uses, in bytes.
type memory struct{ heap, stacks int64 }

var inUse = regexp.MustCompile(`(?m)^# (HeapInuse|Stack) = (\d+)`)

// usedBy returns what the gateway's heap and stacks use after a collection. It takes several
// to shrink the stacks, each by half.
func usedBy(t *testing.T, s *harness.System) (used memory) {
	t.Helper()
	for range 5 {
		status, profile := harness.Get(t, s.Ops()[harness.RoleBff]+"/debug/pprof/heap?gc=1&debug=1")
		found := inUse.FindAllStringSubmatch(profile, -1)
		if status != http.StatusOK || len(found) != 2 {
			t.Fatalf("%d %v, want the heap and the stacks in use", status, found)
		}
		for _, one := range found {
			bytes, err := strconv.ParseInt(one[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if one[1] == "Stack" {
				used.stacks = bytes
			} else {
				used.heap = bytes
			}
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
