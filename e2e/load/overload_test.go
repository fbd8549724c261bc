package load

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/serve"
)

// closedLoop has so many connections call one after the other, each again at once,
// and returns how many calls were answered and how many were not, by reason.
func closedLoop(t testing.TB, s *harness.System, connections, calls int, tokens []string, procedure string) (answered int, refused map[string]int) {
	t.Helper()
	var group sync.WaitGroup
	var mu sync.Mutex
	refused = map[string]int{}
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	over := &http.Client{Transport: transport, Timeout: time.Minute}
	var left atomic.Int64
	left.Store(int64(calls))
	for i := range connections {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+procedure, strings.NewReader("{}"))
				if err != nil {
					t.Error(err)
					return
				}
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("Authorization", "Bearer "+tokens[i%len(tokens)])
				outcome := ""
				response, err := over.Do(request)
				if err != nil {
					outcome = err.Error()
				} else {
					_ = response.Body.Close()
					if response.StatusCode != http.StatusOK {
						outcome = response.Status
					}
				}
				mu.Lock()
				if outcome == "" {
					answered++
				} else {
					refused[outcome]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return answered, refused
}

// The target is longer than here by default, for here many tests share two cores.
const busyMachine = "GATEHOUSE_QUEUE_TARGET=2s"

func TestAClosedLoopIsQueuedAndNotRefused(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, shape, harness.WithOps(), harness.WithSettings(busyMachine, "GATEHOUSE_CACHE_BYTES=0"))
			var tokens []string
			for i := range 40 { // so that nobody goes beyond a method's rate
				tokens = append(tokens, s.SignUp(t, fmt.Sprintf("loop%d@example.com", i)).Access)
			}
			// 64 connections find a slot each; of twice as many as there are slots, some wait in
			// the queue.
			for _, connections := range []int{64, 2 * max(64, 32*runtime.NumCPU())} {
				const calls = 1500
				if answered, refused := closedLoop(t, s, connections, calls, tokens, bffv1.AccountServiceGetMeProcedure); answered != calls {
					t.Errorf("of %d calls over %d connections %d were answered; the others: %v", calls, connections, answered, refused)
				}
			}
			if waited := queueDelays(t, s); waited == 0 {
				t.Error("no call waited in the queue")
			}
		})
	}
}

// queueDelays returns how long calls waited in the gateway's queue, in seconds.
func queueDelays(t *testing.T, s *harness.System) (sum float64) {
	t.Helper()
	for _, url := range s.Ops() {
		_, text := harness.Get(t, url+"/metrics")
		for _, sample := range regexp.MustCompile(`(?m)^gatehouse_bff_queue_delay_seconds_sum\{[^}]*\} (\S+)$`).FindAllStringSubmatch(text, -1) {
			one, err := strconv.ParseFloat(sample[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += one
		}
	}
	return sum
}

func TestAHundredRefreshesOfOneTokenAreAllServed(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings(busyMachine))
	hundred := s.SignUp(t, "hundred@example.com")
	var group sync.WaitGroup
	var served atomic.Int64
	for range 100 {
		group.Go(func() {
			_, err := hundred.Anonymous().Refresh(t.Context(), hundred.Refresh, "")
			if err != nil {
				t.Errorf("Refresh: %v", err)
				return
			}
			served.Add(1)
		})
	}
	group.Wait()
	if served.Load() != 100 {
		t.Errorf("%d of 100 parallel refreshes were served", served.Load())
	}
}

func TestWithUsersFrozenRefreshGoesOn(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	var everybody []*harness.Person
	for i := range 30 {
		everybody = append(everybody, s.SignUp(t, fmt.Sprintf("frozen%d@example.com", i)))
	}
	// What a method needs is seen when it is called.
	rename := &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Grace"}}
	if _, err := everybody[0].Client().Account.UpdateMe(t.Context(), rename); err != nil {
		t.Fatalf("UpdateMe: %v", err)
	}
	users := s.Processes[harness.RoleUsers].Cmd.Process
	if err := users.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = users.Signal(syscall.SIGCONT) }()
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	for i := range 300 { // more than a class has slots; both change something
		flood.Go(func() {
			account := everybody[i%len(everybody)].Client().Account
			for ctx.Err() == nil {
				_, _ = account.UpdateMe(ctx, rename)
			}
		})
	}
	time.Sleep(time.Second) // the slots of the methods that need users are taken
	for _, one := range everybody {
		if err := one.Renew(t.Context(), ""); err != nil {
			t.Errorf("Refresh while users is frozen: %v (%s)", err, fault.Reason(err))
		}
	}
}

func TestIdleConnectionsOfOneAddressKeepNobodyOut(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	limited := serve.LimitConns(listener, serve.ConnLimits{Total: 40, PerAddress: 30})
	go func() {
		served <- serve.Run(ctx, limited, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	call := func(from string) error {
		transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
		response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://" + listener.Addr().String())
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
	for _, stranger := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		for range 60 {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(stranger)}}).Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		for range 5 {
			if err := call("127.0.0.1"); err != nil {
				t.Errorf("beside idle connections from %s: %v", stranger, err)
			}
		}
	}
}
