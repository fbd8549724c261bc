package watch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/continuation"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
)

// transport is a transport of a stream that continues.
type transport struct {
	sent int
	ends []error
}

func (t *transport) Send(proto.Message) error { t.sent++; return nil }
func (t *transport) Interrupt()               {}
func (t *transport) End(err error)            { t.ends = append(t.ends, err) }

func TestAPanicEndsAContinuedStreamOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		offer := &continuation.Offer{Accepted: func() {}}
		s := &stream{who: principal("ada"), message: func(Event) proto.Message { panic("s3cret") }}
		if err := b.watch(continuation.With(t.Context(), offer), s, "", func(Event) error { return nil }); err != nil || offer.Stream() == nil {
			t.Fatalf("the stream ended with %v instead of continuing", err)
		}
		out := new(transport)
		offer.Stream().Start(out)
		b.update("users", false, "profile/ada")
		synctest.Wait()
		b.update("users", false, "profile/ada")
		offer.Stream().Stop()
		offer.Stream().Lost()
		synctest.Wait()
		if len(out.ends) != 1 || rpc.CodeOf(t.Context(), out.ends[0]) != connect.CodeInternal || out.sent != 0 {
			t.Errorf("the stream sent %d messages and ended with %v, want one internal error", out.sent, out.ends)
		}
		if b.Open() != 0 || len(b.own) != 0 || len(b.counts) != 0 {
			t.Errorf("%d streams are still held", b.Open())
		}
	})
}

func TestAStreamWithADeadlineStaysInItsMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		offer := &continuation.Offer{Accepted: func() { t.Error("the stream accepts to continue") }}
		s := &stream{who: principal("ada"), message: func(Event) proto.Message { return &bffv1.WatchMeResponse{} }}
		err := b.watch(continuation.With(ctx, offer), s, "", func(Event) error { return nil })
		if err != context.DeadlineExceeded { //nolint:errorlint // the bare one
			t.Errorf("the stream ended with %v, want that its time is over", err)
		}
	})
}

func TestAStreamThatSendsWhenItsServerStopsIsInterruptedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		s := &stream{who: principal("ada")}
		interrupted, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- b.watch(ctx, s, "", func(Event) error { <-interrupted; return context.Canceled })
		}()
		synctest.Wait()
		b.mu.Lock()
		s.interrupt = func() { close(interrupted) }
		b.mu.Unlock()
		b.run(time.Second)
		cancel(serve.ErrStopping)
		begun := time.Now()
		go b.run(writeTimeout)
		if err := <-ended; fault.Reason(err) != "SERVER_STOPPING" {
			t.Errorf("the stream ended with %v, want SERVER_STOPPING", err)
		}
		if took := time.Since(begun); took > endTimeout+2*sweepInterval {
			t.Errorf("the write was interrupted after %v, want %v", took, endTimeout)
		}
		synctest.Wait()
		time.Sleep(writeTimeout)
	})
}
