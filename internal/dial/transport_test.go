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
		if asked := one.asked.Load(); asked < 8 {
			t.Errorf("endpoint %d was asked %d times, want about 30", i, asked)
		}
	}
}

// Nothing of such a call was sent, so even a write may go elsewhere; no budget
// is needed for that.
func TestARefusedDialGoesToAnotherCopy(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, deadURL(t)+","+service.url+","+deadURL(t))
	for i := range 30 {
		if err := update(t.Context(), client); fault.Reason(err) != fault.ReasonInvalid { // an answer
			t.Fatalf("call %d: got %v, want the validator's refusal", i, err)
		}
	}
	if asked := service.asked.Load(); asked != 30 {
		t.Errorf("the copy that listens was asked %d times, want 30", asked)
	}
}

// restartable is a service that can be stopped and started on one address.
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

// While copies are restarted one after another, no call is lost: neither a read
// nor a write.
func TestARollingRestartLosesNoCall(t *testing.T) {
	t.Parallel()
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	copies := []*restartable{newRestartable(t, mux), newRestartable(t, mux)}
	client := rpctest.Dial(t, rpctest.BFFToUsers, "http://"+copies[0].address+",http://"+copies[1].address)

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
					t.Errorf("a write: got %v, want the validator's refusal", err)
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
		for _, one := range copies {
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

// A host that can't be found says so; one that can is none the worse for it.
func TestAnUnknownHostDoesNotAffectOtherHosts(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, "http://users.invalid:1,"+service.url)
	for range 3 {
		if _, err := rpctest.Get(t.Context(), client); err != nil {
			t.Errorf("got %v, want an answer", err)
		}
	}
}

// An answer's headers take no more memory than they may.
func TestAnAnswersHeadersAreBounded(t *testing.T) {
	t.Parallel()
	service := newFlaky(t)
	client := rpctest.Dial(t, rpctest.BFFToUsers, service.url)
	service.from(func(int) http.HandlerFunc {
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
