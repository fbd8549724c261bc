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

// write calls once: a write isn't made again.
func write(t testing.TB, client *connect.Client, times int) (err error) {
	for range times {
		err = update(t.Context(), client)
	}
	return err
}

func TestABreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answer := silent()
		service := &scripted{ends: func(context.Context, int) error { return answer }}
		client := service.client()
		asked := func(what string, want int64) {
			t.Helper()
			if got := service.asked.Swap(0); got != want {
				t.Errorf("%s: the service was asked %d times, want %d", what, got, want)
			}
		}
		_ = write(t, client, 19)
		asked("19 failures", 19)
		_ = write(t, client, 1)
		asked("the 20th", 1)
		began := time.Now()
		err := write(t, client, 100)
		rpctest.WantError(t, "open", err, connect.CodeUnavailable, fault.ReasonUnavailable)
		asked("open", 0)
		if took := time.Since(began); took != 0 {
			t.Errorf("100 calls while open took %s", took)
		}
		time.Sleep(500*time.Millisecond - time.Nanosecond)
		_ = write(t, client, 10)
		asked("after a little less than 500ms", 0)
		time.Sleep(time.Nanosecond)
		_ = write(t, client, 10)
		asked("after 500ms", 1)
		time.Sleep(500 * time.Millisecond)
		answer = nil
		if err := write(t, client, 10); err != nil {
			t.Errorf("after a probe that was answered: got %v", err)
		}
		asked("closed again", 10)
	})
}

// Operators learn of it once, however many probes fail meanwhile.
func TestABreakerIsLoggedAndMeasured(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		answer := silent()
		service := &scripted{ends: func(context.Context, int) error { return answer }}
		client := connect.NewClient(service, dial.BalanceOne("told", slog.New(slog.NewTextHandler(&log, nil))))
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
						if service, _ := point.Attributes.Value("service"); service.AsString() == "told" {
							got[one.Name] = point.Value
						}
					}
				}
			}
			if wanted := map[string]int64{"gatehouse.rpc.breaker.openings": openings, "gatehouse.rpc.breaker.open": open}; !maps.Equal(got, wanted) {
				t.Errorf("%s: got the metrics %v, want %v", what, got, wanted)
			}
			said := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			if log.Len() == 0 {
				said = nil
			}
			if !slices.EqualFunc(said, lines, strings.Contains) {
				t.Errorf("%s: the log has\n%s\nwant %q", what, log.String(), lines)
			}
			log.Reset()
		}
		_ = write(t, client, 19)
		want("19 failures", 0, 0)
		_ = write(t, client, 2)
		want("20 failures", 1, 1, "level=WARN msg=\"circuit breaker opened\" service=told endpoint=0 pause=500ms")
		for range 3 {
			time.Sleep(500 * time.Millisecond)
			_ = write(t, client, 2)
		}
		want("three probes that failed", 1, 1)
		time.Sleep(500 * time.Millisecond)
		answer = nil
		_ = write(t, client, 1)
		want("a probe that was answered", 1, 0, "level=INFO msg=\"circuit breaker closed\" service=told endpoint=0")
	})
}

func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		let := make(chan error)
		hanging := false
		service := &scripted{ends: func(ctx context.Context, _ int) error {
			if !hanging {
				return silent()
			}
			select {
			case err := <-let:
				return err
			case <-ctx.Done():
				return connect.NewError(connect.CodeCanceled, "").WithCause(ctx.Err())
			}
		}}
		client := service.client()
		_ = write(t, client, 20)
		time.Sleep(500 * time.Millisecond)
		service.asked.Store(0)
		hanging = true
		ctx, leave := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		calls.Go(func() { _ = update(ctx, client) })
		synctest.Wait()
		_ = write(t, client, 10)
		if asked := service.asked.Load(); asked != 1 {
			t.Fatalf("while a probe is under way the service was asked %d times, want once", asked)
		}
		// Its caller leaves: that tells nothing, and the next one probes.
		leave()
		calls.Wait()
		calls.Go(func() {
			if err := update(t.Context(), client); err != nil {
				t.Errorf("the second probe: got %v", err)
			}
		})
		synctest.Wait()
		_ = write(t, client, 10)
		if asked := service.asked.Load(); asked != 2 {
			t.Fatalf("after a probe whose caller left the service was asked %d times, want twice", asked)
		}
		let <- nil
		calls.Wait()
		hanging = false
		_ = write(t, client, 1)
		if asked := service.asked.Load(); asked != 3 {
			t.Errorf("closed: the service was asked %d times, want 3", asked)
		}
	})
}

// What was begun before a breaker opened says nothing of the time after, even if
// it ends while a probe is under way.
func TestACallFromBeforeTheOpeningIsNotAProbe(t *testing.T) {
	t.Parallel()
	for _, late := range []error{nil, silent()} {
		synctest.Test(t, func(t *testing.T) {
			let, probed := make(chan error), make(chan error)
			service := &scripted{ends: func(_ context.Context, n int) error {
				switch {
				case n <= 30:
					return <-let
				case n == 51:
					return <-probed
				case n <= 50:
					return silent()
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
				let <- late
			}
			old.Wait()
			if err := write(t, client, 10); err == nil || service.asked.Load() != 51 {
				t.Errorf("late ends (%v): the service was asked %d times, want 51: the probe is the last", late, service.asked.Load())
			}
			probed <- nil
			probe.Wait()
			if err := write(t, client, 1); err != nil {
				t.Errorf("late ends (%v): after the probe was answered: got %v", late, err)
			}
		})
	}
}

func TestWhatABreakerCounts(t *testing.T) {
	t.Parallel()
	refusal := fault.New(connect.CodeNotFound, "NONE", "There is none.").WithRemote()
	late := connect.NewError(connect.CodeDeadlineExceeded, "late")
	for name, test := range map[string]struct {
		ends  func(n int) error
		every time.Duration
		opens bool
	}{
		"no answer":                    {ends: func(int) error { return silent() }, opens: true},
		"a limit of ours passed":       {ends: func(int) error { return late }, opens: true},
		"an immediate unavailable":     {ends: func(int) error { return fault.Unavailable().WithRemote() }},
		"a host that is deaf":          {ends: func(int) error { return dial.NewDialError(true) }, opens: true},
		"refused connections":          {ends: func(int) error { return dial.NewDialError(false) }},
		"something that can't be read": {ends: func(int) error { return connect.NewError(connect.CodeUnknown, "not proto") }, opens: true},
		"half": {ends: func(n int) error {
			if n%2 == 0 {
				return silent()
			}
			return nil
		}, opens: true},
		"a third": {ends: func(n int) error {
			if n%3 == 0 {
				return silent()
			}
			return nil
		}},
		"refusals":               {ends: func(int) error { return refusal }},
		"faults of its own":      {ends: func(int) error { return connect.NewError(connect.CodeInternal, "").WithRemote() }},
		"too many for it":        {ends: func(int) error { return fault.New(connect.CodeResourceExhausted, "MANY", "Too many.").WithRemote() }},
		"answers too large":      {ends: func(int) error { return connect.NewError(connect.CodeResourceExhausted, "message size") }},
		"a failure now and then": {ends: func(int) error { return silent() }, every: 600 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			service := &scripted{ends: func(_ context.Context, n int) error { return test.ends(n) }}
			client := service.client()
			for range 60 {
				_ = write(t, client, 1)
				time.Sleep(test.every)
			}
			if opened := service.asked.Load() < 60; opened != test.opens {
				t.Errorf("%s: the breaker opened: %v, want %v", name, opened, test.opens)
			}
		})
	}
}

// Callers who leave, or give no time, must not take a service from the others.
func TestCallersMistakesDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	hanging := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(hanging) }) }
	t.Cleanup(free)
	service := newFlaky(t)
	front := throughAServer(t, rpctest.Dial(t, rpctest.BFFToUsers, service.url))
	service.from(func(int) http.HandlerFunc {
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
	service.from(func(int) http.HandlerFunc { return nil })
	if _, err := rpctest.Get(t.Context(), front); err != nil {
		t.Errorf("after 60 calls whose callers had no time: got %v, want an answer", err)
	}
}

// throughAServer puts a server in between that passes its calls on, so that they
// have a caller's deadline.
func throughAServer(t testing.TB, behind *connect.Client) *connect.Client {
	route := rpctest.BFFToUsers
	route.Persistent = true // the breaker that matters is the one behind
	return rpctest.OverHTTP(t, route, rpctest.NewProfiles(t, func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return rpctest.Get(ctx, behind)
	}))
}

func TestAnOpenBreakerAnswersAtOnceAndNotForLong(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
	service.from(func(int) http.HandlerFunc { return abort })
	for range 40 {
		_ = update(t.Context(), client)
	}
	if asked := service.asked.Load(); asked != 20 {
		t.Errorf("40 calls: the service was asked %d times, want 20", asked)
	}
	times := make([]time.Duration, 0, 200)
	for range cap(times) {
		began := time.Now()
		err := update(t.Context(), client)
		times = append(times, time.Since(began))
		rpctest.WantError(t, "open", err, connect.CodeUnavailable, fault.ReasonUnavailable)
		if after, ok := fault.RetryDelay(err); !ok || after <= 0 {
			t.Errorf("open: got %v, want it to say when to come again", err)
		}
	}
	slices.Sort(times)
	if median := times[len(times)/2]; median > time.Millisecond {
		t.Errorf("open: half of the calls took over %s, want under 1ms", median)
	}
	service.from(func(int) http.HandlerFunc { return nil })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := rpctest.Get(t.Context(), client); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the service answers again, and the breaker is open after 30s")
		}
	}
}

// A refused connection costs nothing, so a service that was restarted is asked
// as soon as it listens.
func TestAServiceThatListensAgainIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	service := newRestartable(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	client := rpctest.Dial(t, rpctest.BFFToUsers, "http://"+service.address)
	service.stop()
	if err := rpctest.Within(t, 10*time.Second, "Serve", service.stopped); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		_, err := rpctest.Get(t.Context(), client)
		rpctest.WantError(t, "while nobody listens", err, connect.CodeUnavailable, "")
	}
	service.start()
	if _, err := rpctest.Get(t.Context(), client); err != nil {
		t.Errorf("after the restart: got %v, want an answer", err)
	}
}
