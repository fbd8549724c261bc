package dial_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpctest"
)

// write makes write calls, which are not retried, and returns the last error.
func write(t testing.TB, client *connect.Client, times int) (err error) {
	for range times {
		err = update(t.Context(), client)
	}
	return err
}

func TestABreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		result := connectionReset()
		service := &scripted{respond: func(context.Context, int) error { return result }}
		client := service.client()
		wantRequests := func(what string, want int64) {
			t.Helper()
			if got := service.requests.Swap(0); got != want {
				t.Errorf("%s: the service received %d requests, want %d", what, got, want)
			}
		}
		_ = write(t, client, 19)
		wantRequests("19 failures", 19)
		_ = write(t, client, 1)
		wantRequests("the 20th", 1)
		began := time.Now()
		err := write(t, client, 100)
		rpctest.WantError(t, "open", err, connect.CodeUnavailable, fault.ReasonUnavailable)
		wantRequests("open", 0)
		if took := time.Since(began); took != 0 {
			t.Errorf("100 calls while open took %s", took)
		}
		time.Sleep(500*time.Millisecond - time.Nanosecond)
		_ = write(t, client, 10)
		wantRequests("after a little less than 500ms", 0)
		time.Sleep(time.Nanosecond)
		_ = write(t, client, 10)
		wantRequests("after 500ms", 1)
		time.Sleep(500 * time.Millisecond)
		result = nil
		if err := write(t, client, 10); err != nil {
			t.Errorf("after a successful probe: got %v", err)
		}
		wantRequests("closed again", 10)
	})
}

// A failed probe logs nothing and counts no opening.
func TestABreakerIsLoggedAndMeasured(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		result := connectionReset()
		service := &scripted{respond: func(context.Context, int) error { return result }}
		client := connect.NewClient(service, dial.BalanceOne("observed", slog.New(slog.NewTextHandler(&log, nil))))
		want := func(what string, openings, open int64, lines ...string) {
			t.Helper()
			got := map[string]int64{}
			var all metricdata.ResourceMetrics
			if err := reader.Collect(t.Context(), &all); err != nil {
				t.Fatal(err)
			}
			for _, scope := range all.ScopeMetrics {
				for _, one := range scope.Metrics {
					if !strings.HasPrefix(one.Name, "gatehouse.rpc.breaker.") {
						continue
					}
					var points []metricdata.DataPoint[int64]
					switch data := one.Data.(type) {
					case metricdata.Sum[int64]:
						points = data.DataPoints
					case metricdata.Gauge[int64]:
						points = data.DataPoints
					}
					for _, point := range points {
						if service, _ := point.Attributes.Value("service"); service.AsString() == "observed" {
							got[one.Name] = point.Value
						}
					}
				}
			}
			if wanted := map[string]int64{"gatehouse.rpc.breaker.openings": openings, "gatehouse.rpc.breaker.open": open}; !maps.Equal(got, wanted) {
				t.Errorf("%s: got the metrics %v, want %v", what, got, wanted)
			}
			logged := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			if log.Len() == 0 {
				logged = nil
			}
			if !slices.EqualFunc(logged, lines, strings.Contains) {
				t.Errorf("%s: the log has\n%s\nwant %q", what, log.String(), lines)
			}
			log.Reset()
		}
		_ = write(t, client, 19)
		want("19 failures", 0, 0)
		_ = write(t, client, 2)
		want("20 failures", 1, 1, "level=WARN msg=\"circuit breaker opened\" service=observed endpoint=0 pause=500ms")
		for range 3 {
			time.Sleep(500 * time.Millisecond)
			_ = write(t, client, 2)
		}
		want("three probes that failed", 1, 1)
		time.Sleep(500 * time.Millisecond)
		result = nil
		_ = write(t, client, 1)
		want("a successful probe", 1, 0, "level=INFO msg=\"circuit breaker closed\" service=observed endpoint=0")
	})
}

func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		results := make(chan error)
		hanging := false
		service := &scripted{respond: func(ctx context.Context, _ int) error {
			if !hanging {
				return connectionReset()
			}
			select {
			case err := <-results:
				return err
			case <-ctx.Done():
				return connect.NewError(connect.CodeCanceled, "").WithCause(ctx.Err())
			}
		}}
		client := service.client()
		_ = write(t, client, 20)
		time.Sleep(500 * time.Millisecond)
		service.requests.Store(0)
		hanging = true
		ctx, leave := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		calls.Go(func() { _ = update(ctx, client) })
		synctest.Wait()
		_ = write(t, client, 10)
		if n := service.requests.Load(); n != 1 {
			t.Fatalf("during a probe the service received %d requests, want 1", n)
		}
		// The probe is cancelled, which is inconclusive, so the next call is the probe.
		leave()
		calls.Wait()
		calls.Go(func() {
			if err := update(t.Context(), client); err != nil {
				t.Errorf("the second probe: got %v", err)
			}
		})
		synctest.Wait()
		_ = write(t, client, 10)
		if n := service.requests.Load(); n != 2 {
			t.Fatalf("after a cancelled probe the service received %d requests, want 2", n)
		}
		results <- nil
		calls.Wait()
		hanging = false
		_ = write(t, client, 1)
		if n := service.requests.Load(); n != 3 {
			t.Errorf("closed: the service received %d requests, want 3", n)
		}
	})
}

// A call that started before the breaker opened does not affect it, even if it ends during a
// probe.
func TestACallFromBeforeTheOpeningIsNotAProbe(t *testing.T) {
	t.Parallel()
	for _, late := range []error{nil, connectionReset()} {
		synctest.Test(t, func(t *testing.T) {
			oldResults, probeResult := make(chan error), make(chan error)
			service := &scripted{respond: func(_ context.Context, n int) error {
				switch {
				case n <= 30:
					return <-oldResults
				case n == 51:
					return <-probeResult
				case n <= 50:
					return connectionReset()
				}
				return nil
			}}
			client := service.client()
			var old, probe sync.WaitGroup
			for range 30 {
				old.Go(func() { _ = update(t.Context(), client) })
			}
			synctest.Wait()
			_ = write(t, client, 20)
			time.Sleep(500 * time.Millisecond)
			probe.Go(func() { _ = update(t.Context(), client) })
			synctest.Wait()
			for range 30 {
				oldResults <- late
			}
			old.Wait()
			if err := write(t, client, 10); err == nil || service.requests.Load() != 51 {
				t.Errorf("late ends (%v): the service received %d requests, want 51, the probe being the last", late, service.requests.Load())
			}
			probeResult <- nil
			probe.Wait()
			if err := write(t, client, 1); err != nil {
				t.Errorf("late ends (%v): after the probe succeeded: got %v", late, err)
			}
		})
	}
}

func TestTheOutcomesThatABreakerCounts(t *testing.T) {
	t.Parallel()
	refusal := fault.New(connect.CodeNotFound, "NONE", "There is none.").WithRemote()
	late := connect.NewError(connect.CodeDeadlineExceeded, "late")
	for name, test := range map[string]struct {
		ends  func(n int) error
		every time.Duration
		opens bool
	}{
		"no response":               {ends: func(int) error { return connectionReset() }, opens: true},
		"a timeout of this process": {ends: func(int) error { return late }, opens: true},
		"an immediate unavailable":  {ends: func(int) error { return fault.Unavailable().WithRemote() }},
		"a dial that times out":     {ends: func(int) error { return dial.NewDialError(true) }, opens: true},
		"refused connections":       {ends: func(int) error { return dial.NewDialError(false) }},
		"an invalid response":       {ends: func(int) error { return connect.NewError(connect.CodeUnknown, "not proto") }, opens: true},
		"half": {ends: func(n int) error {
			if n%2 == 0 {
				return connectionReset()
			}
			return nil
		}, opens: true},
		"a third": {ends: func(n int) error {
			if n%3 == 0 {
				return connectionReset()
			}
			return nil
		}},
		"errors of the service":        {ends: func(int) error { return refusal }},
		"internal errors":              {ends: func(int) error { return connect.NewError(connect.CodeInternal, "").WithRemote() }},
		"resource_exhausted":           {ends: func(int) error { return fault.New(connect.CodeResourceExhausted, "MANY", "Too many.").WithRemote() }},
		"responses that are too large": {ends: func(int) error { return connect.NewError(connect.CodeResourceExhausted, "message size") }},
		"rare failures":                {ends: func(int) error { return connectionReset() }, every: 600 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			service := &scripted{respond: func(_ context.Context, n int) error { return test.ends(n) }}
			client := service.client()
			for range 60 {
				_ = write(t, client, 1)
				time.Sleep(test.every)
			}
			if opened := service.requests.Load() < 60; opened != test.opens {
				t.Errorf("%s: the breaker opened: %v, want %v", name, opened, test.opens)
			}
		})
	}
}

// Callers that cancel or have short deadlines must not make a service unavailable to others.
func TestCallersCancellationsDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	hanging := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(hanging) }) }
	t.Cleanup(free)
	service := newFlaky(t)
	front := throughAServer(t, rpctest.Dial(t, rpctest.BFFToUsers, service.url))
	service.respondWith(func(int) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-hanging:
			}
		}
	})
	for range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, _ = rpctest.Get(ctx, front)
		cancel()
	}
	for range 30 {
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, leave)
		_, _ = rpctest.Get(ctx, front)
		leave()
	}
	service.respondWith(func(int) http.HandlerFunc { return nil })
	if _, err := rpctest.Get(t.Context(), front); err != nil {
		t.Errorf("after 60 cancelled or short calls: got %v, want a response", err)
	}
}

// throughAServer returns a client of a server that forwards its calls, so that they have a
// caller's deadline.
func throughAServer(t testing.TB, behind *connect.Client) *connect.Client {
	route := rpctest.BFFToUsers
	route.Persistent = true // only the breaker behind the server is tested
	return rpctest.OverHTTP(t, route, rpctest.NewProfiles(t, func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return rpctest.Get(ctx, behind)
	}))
}

func TestAnOpenBreakerFailsCallsAtOnceUntilAProbeSucceeds(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
	service.respondWith(func(int) http.HandlerFunc { return abort })
	for range 40 {
		_ = update(t.Context(), client)
	}
	if n := service.requests.Load(); n != 20 {
		t.Errorf("40 calls: the service received %d requests, want 20", n)
	}
	times := make([]time.Duration, 0, 200)
	for range cap(times) {
		began := time.Now()
		err := update(t.Context(), client)
		times = append(times, time.Since(began))
		rpctest.WantError(t, "open", err, connect.CodeUnavailable, fault.ReasonUnavailable)
		if after, ok := fault.RetryDelay(err); !ok || after <= 0 {
			t.Errorf("open: got %v, want a retry delay", err)
		}
	}
	slices.Sort(times)
	if median := times[len(times)/2]; median > time.Millisecond {
		t.Errorf("open: half of the calls took over %s, want under 1ms", median)
	}
	service.respondWith(func(int) http.HandlerFunc { return nil })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := rpctest.Get(t.Context(), client); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the breaker is still open 30s after the service recovered")
		}
	}
}

// Refused connections do not open the breaker, so a restarted service receives calls as soon
// as it listens.
func TestARestartedServiceReceivesCallsAtOnce(t *testing.T) {
	t.Parallel()
	service := newRestartable(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	client := rpctest.Dial(t, rpctest.BFFToUsers, "http://"+service.address)
	service.stop()
	if err := rpctest.Within(t, 10*time.Second, "Serve", service.stopped); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		_, err := rpctest.Get(t.Context(), client)
		rpctest.WantError(t, "without a listener", err, connect.CodeUnavailable, "")
	}
	service.start()
	if _, err := rpctest.Get(t.Context(), client); err != nil {
		t.Errorf("after the restart: got %v, want a response", err)
	}
}
