package dial_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpctest"
	"gatehouse/internal/serve"
)

func TestCallsAreSpreadOverAllEndpoints(t *testing.T) {
	t.Parallel()
	a, b, c := newFlaky(t), newFlaky(t), newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, a.url+", "+b.url+","+c.url)
	for range 90 {
		if _, err := rpctest.Get(t.Context(), client); err != nil {
			t.Fatal(err)
		}
	}
	for i, one := range []*flaky{a, b, c} {
		if n := one.requests.Load(); n < 8 {
			t.Errorf("endpoint %d received %d requests, want about 30", i, n)
		}
	}
}

// Nothing was sent, so even a write is sent to another endpoint, without using the budget.
func TestARefusedDialGoesToAnotherEndpoint(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, deadURL(t)+","+service.url+","+deadURL(t))
	for i := range 30 {
		if err := update(t.Context(), client); fault.Reason(err) != fault.ReasonInvalid { // a response of the service
			t.Fatalf("call %d: got %v, want a validation error", i, err)
		}
	}
	if n := service.requests.Load(); n != 30 {
		t.Errorf("the endpoint that listens received %d requests, want 30", n)
	}
}

// restartable is a service that can be stopped and started again on the same address.
type restartable struct {
	t       testing.TB
	address string
	handler http.Handler
	stop    context.CancelFunc
	stopped chan error
}

func newRestartable(t testing.TB, handler http.Handler) *restartable {
	r := &restartable{t: t, address: "127.0.0.1:0", handler: handler}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *restartable) start() {
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.address = listener.Addr().String()
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	r.stopped = stopped
	rpctest.Servers.Go(func() error {
		err := serve.Run(ctx, listener, r.handler, slog.New(slog.DiscardHandler))
		stopped <- err
		return err
	})
}

// While endpoints restart one after another, no call fails.
func TestARollingRestartLosesNoCall(t *testing.T) {
	t.Parallel()
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	endpoints := []*restartable{newRestartable(t, mux), newRestartable(t, mux)}
	client := rpctest.Dial(t, rpctest.BFFToUsers, "http://"+endpoints[0].address+",http://"+endpoints[1].address)

	var over atomic.Bool
	var calls atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for !over.Load() {
				if _, err := rpctest.Get(t.Context(), client); err != nil {
					t.Errorf("a read: %v", err)
				}
				if err := update(t.Context(), client); fault.Reason(err) != fault.ReasonInvalid {
					t.Errorf("a write: got %v, want a validation error", err)
				}
				calls.Add(2)
			}
		})
	}
	until := func(more int64) {
		for want := calls.Load() + more; calls.Load() < want && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	for range 2 {
		for _, one := range endpoints {
			until(200)
			one.stop()
			until(200) // while it stops
			if err := rpctest.Within(t, 10*time.Second, "Serve", one.stopped); err != nil {
				t.Errorf("stop: %v", err)
			}
			until(200) // while it is unreachable
			one.start()
		}
	}
	over.Store(true)
	callers.Wait()
	t.Logf("%d calls", calls.Load())
}

func TestAnUnknownHostDoesNotAffectOtherHosts(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, "http://users.invalid:1,"+service.url)
	for range 3 {
		if _, err := rpctest.Get(t.Context(), client); err != nil {
			t.Errorf("got %v, want a response", err)
		}
	}
}

func TestTheSizeOfResponseHeadersIsBounded(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
	service.respondWith(func(int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1024 {
				w.Header().Set(fmt.Sprint("X-Filler-", i), strings.Repeat("x", 1024))
			}
			w.Header().Set("Content-Type", "application/proto")
		}
	})
	if res, err := rpctest.Get(t.Context(), client); err == nil {
		t.Errorf("1 MiB of headers: got %v, want an error", res)
	}
}
