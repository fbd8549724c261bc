package rpc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errParentEnded = errors.New("the parent ended")

// A limited context behaves like one of package context, whatever is asked of it first.
func TestALimitedContextEndsAsAnyOtherDoes(t *testing.T) {
	t.Parallel()
	type parentKey struct{}
	first := map[string]func(context.Context){
		"nothing":       func(context.Context) {},
		"its error":     func(ctx context.Context) { _ = ctx.Err() },
		"its end":       func(ctx context.Context) { _ = ctx.Done() },
		"a derived one": func(ctx context.Context) { _, cancel := context.WithCancel(ctx); cancel() },
	}
	for name, end := range map[string]func(cancelParent context.CancelCauseFunc, end func()){
		"its deadline": func(context.CancelCauseFunc, func()) { time.Sleep(time.Second) },
		"its parent":   func(cancel context.CancelCauseFunc, _ func()) { cancel(errParentEnded) },
		"itself":       func(_ context.CancelCauseFunc, end func()) { end() },
	} {
		for before, ask := range first {
			synctest.Test(t, func(t *testing.T) {
				run := func(limit func(context.Context, time.Time) (context.Context, func())) (error, error, error, bool) { //nolint:revive // three errors are compared
					parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), parentKey{}, true))
					defer cancel(nil)
					ctx, finish := limit(parent, time.Now().Add(time.Second))
					defer finish()
					ask(ctx)
					if ctx.Err() != nil {
						t.Errorf("%s, after %s: it ended before", name, before)
					}
					derived, stop := context.WithCancel(ctx)
					defer stop()
					end(cancel, finish)
					synctest.Wait()
					select {
					case <-ctx.Done():
					default:
						t.Errorf("%s, after %s: it does not end", name, before)
					}
					return ctx.Err(), context.Cause(ctx), context.Cause(derived), ctx.Value(parentKey{}) == true
				}
				err, cause, derived, value := run(func(ctx context.Context, deadline time.Time) (context.Context, func()) {
					c := &limitedContext{Context: ctx, deadline: deadline}
					return c, c.end
				})
				wantErr, wantCause, wantDerived, wantValue := run(func(ctx context.Context, deadline time.Time) (context.Context, func()) {
					ctx, cancel := context.WithDeadline(ctx, deadline)
					return ctx, cancel
				})
				if err != wantErr || cause != wantCause || derived != wantDerived || value != wantValue {
					t.Errorf("%s, after %s: got %v, %v, %v, %v, want %v, %v, %v, %v", name, before, err, cause, derived, value, wantErr, wantCause, wantDerived, wantValue)
				}
			})
		}
	}
}

// An end that nobody waits for is known all the same.
func TestALimitedContextThatNobodyWatchesKnowsItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := &limitedContext{Context: t.Context(), deadline: time.Now().Add(time.Second)}
		ended := &limitedContext{Context: t.Context(), deadline: time.Now().Add(time.Hour)}
		time.Sleep(time.Second)
		ended.end()
		if err := late.Err(); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(context.Cause(late), context.DeadlineExceeded) {
			t.Errorf("after its deadline: got %v with the cause %v, want both to be deadline exceeded", err, context.Cause(late))
		}
		if err := ended.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("after its end: got %v, want canceled", err)
		}
		late.end()
	})
}

// A call that is answered at once starts no timer.
func TestALimitedContextStartsATimerOnlyWhenItIsNeeded(t *testing.T) {
	parent := t.Context()
	deadline := time.Now().Add(time.Hour)
	if got := testing.AllocsPerRun(100, func() {
		c := &limitedContext{Context: parent, deadline: deadline}
		if c.Err() != nil || c.Value(callKey{}) != nil {
			t.Error("a new context has an end or a value")
		}
		c.end()
	}); got > 1 {
		t.Errorf("got %.0f allocations, want that of the context alone", got)
	}
}
