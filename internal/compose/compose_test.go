package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// held is a part that blocks until it is released.
type held struct {
	begun chan struct{}
	let   chan error
	ended chan error // the error of its context at its release
}

func hold() held {
	return held{begun: make(chan struct{}), let: make(chan error), ended: make(chan error, 1)}
}

func (h held) fetch(ctx context.Context) (string, error) {
	close(h.begun)
	err := <-h.let
	h.ended <- ctx.Err()
	return "value", err
}

var errNotFound = fault.New(connect.CodeNotFound, "NONE", "There is none.")

// remote returns an error like one from a service.
func remote(err *connect.Error) error { return err.WithRemote() }

// waiting runs Wait on another goroutine.
func waiting(c *Composition) <-chan error {
	over := make(chan error, 1)
	go func() { over <- c.Wait() }()
	return over
}

func TestPartsRunAtTheSameTime(t *testing.T) {
	t.Parallel()
	a, b, c := hold(), hold(), hold()
	composed := New(t.Context(), mapError)
	needed, more, wanted := Required(composed, "a", testLimit, a.fetch), Required(composed, "b", testLimit, b.fetch), Optional(composed, "c", testLimit, c.fetch)
	over := waiting(composed)
	for _, part := range []held{a, b, c} {
		<-part.begun // all parts, before the first is released
	}
	for _, part := range []held{c, a, b} {
		part.let <- nil
	}
	wantNoError(t, "wait", <-over)
	for _, got := range []*Part[string]{needed, more, wanted} {
		if got.value != "value" {
			t.Errorf("got %q, want the part's value", got.value)
		}
	}
	if missing := composed.Missing(); missing != nil {
		t.Errorf("got errors %v, want none", missing)
	}
}

func TestTheFailureOfARequiredPartCancelsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failing, slow, other := hold(), hold(), hold()
		composed := New(t.Context(), mapError)
		Required(composed, "part", testLimit, slow.fetch)
		Required(composed, "part", testLimit, failing.fetch)
		Optional(composed, "other", testLimit, other.fetch)
		over := waiting(composed)

		synctest.Wait() // all parts that start have started
		failing.let <- remote(errNotFound)
		synctest.Wait()
		if composed.ctx.Err() == nil {
			t.Error("the others' context has not ended")
		}
		select {
		case err := <-over:
			t.Fatalf("Wait returned (%v) while parts were running", err)
		default:
		}
		slow.let <- context.Canceled
		other.let <- nil
		if err := <-over; fault.Reason(err) != "NONE" || connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("got %v, want the first failure", err)
		}
		for _, part := range []held{slow, other} {
			if err := <-part.ended; !errors.Is(err, context.Canceled) {
				t.Errorf("another part's context: got %v, want canceled", err)
			}
		}
	})
}

func TestTheFailureOfAnOptionalPartCancelsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failing, needed, other := hold(), hold(), hold()
		composed := New(t.Context(), mapError)
		lost := Optional(composed, "lost", testLimit, failing.fetch)
		value := Required(composed, "part", testLimit, needed.fetch)
		more := Optional(composed, "other", testLimit, other.fetch)
		over := waiting(composed)

		failing.let <- remote(errNotFound)
		synctest.Wait()
		needed.let <- nil
		other.let <- nil
		wantNoError(t, "wait", <-over)
		for _, part := range []held{needed, other} {
			if err := <-part.ended; err != nil {
				t.Errorf("another part's context: got %v, want it not ended", err)
			}
		}
		if value.value != "value" || more.value != "value" {
			t.Errorf("the other parts are %q and %q, want their values", value.value, more.value)
		}
		if lost.value != "" {
			t.Errorf("the failed part is %q, want the zero value", lost.value)
		}
		wantMissing(t, composed, "lost NONE")
	})
}

func TestErrorsAreInTheOrderOfDeclaration(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 3, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				names := []string{"a", "b", "c", "d"}
				composed := New(t.Context(), mapError)
				var parts []held
				for _, name := range names {
					parts = append(parts, hold())
					Optional(composed, name, testLimit, parts[len(parts)-1].fetch)
				}
				over := waiting(composed)
				for _, i := range order {
					var err error
					if names[i] != "b" { // which succeeds
						err = remote(errNotFound)
					}
					parts[i].let <- err
					synctest.Wait()
				}
				wantNoError(t, "wait", <-over)
				var got []string
				for _, missing := range composed.Missing() {
					got = append(got, missing.Part)
				}
				if strings.Join(got, " ") != "a c d" {
					t.Errorf("parts failed in the order %v: got errors of %v, want of a c d", order, got)
				}
			})
		})
	}
}

func TestEachPartHasItsOwnTimeLimit(t *testing.T) {
	t.Parallel()
	wait := func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		composed := New(t.Context(), mapError)
		Optional(composed, "short", time.Second, wait)
		Optional(composed, "long", 3*time.Second, wait)
		long := Required(composed, "part", 3*time.Second, func(context.Context) (string, error) {
			time.Sleep(2 * time.Second)
			return "value", nil
		})
		wantNoError(t, "wait", composed.Wait())
		if took := time.Since(began); took != 3*time.Second || long.value != "value" {
			t.Errorf("got %q after %s, want the value after 3s", long.value, took)
		}
		wantMissing(t, composed, "short "+fault.ReasonUnavailable, "long "+fault.ReasonUnavailable)

		began = time.Now()
		composed = New(t.Context(), mapError)
		Required(composed, "part", time.Second, wait)
		Required(composed, "part", time.Hour, wait)
		if err := composed.Wait(); fault.Reason(err) != fault.ReasonUnavailable {
			t.Errorf("a required part beyond its limit: got %v, want unavailable", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("a required part beyond its limit cancelled the others after %s, want 1s", took)
		}
	})
}

// A panic on a part's goroutine would end the process.
func TestAPanicInAPartIsAnInternalError(t *testing.T) {
	t.Parallel()
	boom := func(context.Context) (string, error) { panic("boom") }
	composed := New(t.Context(), mapError)
	Optional(composed, "part", testLimit, boom)
	wantNoError(t, "wait", composed.Wait())
	wantMissing(t, composed, "part "+fault.ReasonInternal)
	if cause := fmt.Sprint(errors.Unwrap(composed.Missing()[0].Err)); !strings.Contains(cause, "boom") || !strings.Contains(cause, "compose_test.go") {
		t.Errorf("got cause %s, want the panic and its stack", cause)
	}

	composed = New(t.Context(), mapError)
	slow := hold()
	Required(composed, "part", testLimit, slow.fetch)
	Required(composed, "part", testLimit, func(ctx context.Context) (string, error) {
		<-slow.begun
		return boom(ctx)
	})
	over := waiting(composed)
	<-composed.ctx.Done()
	slow.let <- nil
	if err := <-over; fault.Reason(err) != fault.ReasonInternal || strings.Contains(err.Error(), "boom") {
		t.Errorf("required: got %v, want internal without the text of the panic", err)
	}
}

func TestAtMostSixteenFetchesRunAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		start := time.Now()
		c := New(t.Context(), mapError)
		for range 160 {
			Required(c, "part", testLimit, func(context.Context) (int, error) {
				now := running.Add(1)
				defer running.Add(-1)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				time.Sleep(10 * time.Millisecond) // of synctest
				return 0, nil
			})
		}
		wantNoError(t, "wait", c.Wait())
		if most.Load() != 16 {
			t.Errorf("got %d concurrent fetches, want 16", most.Load())
		}
		// 160 fetches of 10 ms, 16 at a time.
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("took %s, want 100ms with all slots in use", took)
		}
	})
}

const testLimit = 2 * time.Second

// mapError is a simple version of the gateway's.
func mapError(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Unavailable().WithCause(err)
	}
	return err
}

func wantNoError(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// wantMissing checks the optional parts that failed, each as its name and reason.
func wantMissing(t testing.TB, c *Composition, want ...string) {
	t.Helper()
	var got []string
	for _, missing := range c.Missing() {
		got = append(got, missing.Part+" "+fault.Reason(missing.Err))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got missing parts %q, want %q", got, want)
	}
}
