package calltrace

import (
	"context"
	"errors"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

func TestStepsNameWhatTheyAreWithin(t *testing.T) {
	t.Parallel()
	trace := New("/bff.v1.AccountService/GetMe")
	ctx := With(t.Context(), trace)
	At(ctx).SetCache("miss")
	within, part := At(ctx).Begin(ctx, Part, "account")
	deeper, call := At(within).Begin(within, Call, "auth.v1.AccountService/GetAccount")
	_, attempt := At(deeper).Begin(deeper, Attempt, "auth")
	attempt.End(fault.Unavailable())
	call.End(nil)
	part.End(nil)
	_, cached := At(ctx).Begin(ctx, Part, "profile")
	cached.SetCache("hit")
	cached.End(nil)
	_, open := At(ctx).Begin(ctx, Part, "sessions")
	trace.Finish("request-1", nil)
	open.End(errors.New("too late"))

	want := []Step{
		{Kind: Part, Name: "account", Parent: -1},
		{Kind: Call, Name: "auth.v1.AccountService/GetAccount", Parent: 0},
		{Kind: Attempt, Name: "auth", Parent: 1, Failed: true, Code: connect.CodeUnavailable, Reason: fault.Reason(fault.Unavailable())},
		{Kind: Part, Name: "profile", Parent: -1, Cache: "hit"},
		{Kind: Part, Name: "sessions", Parent: -1, Open: true},
	}
	if len(trace.Steps) != len(want) {
		t.Fatalf("got %d steps, want %d: %+v", len(trace.Steps), len(want), trace.Steps)
	}
	for i, step := range trace.Steps {
		if step.Took < 0 || step.Start < 0 || step.Start+step.Took > trace.Call.Took {
			t.Errorf("step %d is at %s for %s, and the call took %s", i, step.Start, step.Took, trace.Call.Took)
		}
		step.Start, step.Took = 0, 0
		if step != want[i] {
			t.Errorf("step %d: got %+v, want %+v", i, step, want[i])
		}
	}
	if trace.Call.Cache != "miss" || trace.RequestID != "request-1" || trace.Call.Failed {
		t.Errorf("got %+v of the request %q, want a miss of request-1 without a failure", trace.Call, trace.RequestID)
	}
}

func TestATraceIsBounded(t *testing.T) {
	t.Parallel()
	trace := New("/x/Y")
	ctx := With(t.Context(), trace)
	var group sync.WaitGroup
	for range 4 * maxSteps {
		group.Go(func() {
			_, step := At(ctx).Begin(ctx, Call, "x")
			step.SetCache("hit")
			step.End(nil)
		})
	}
	group.Wait()
	trace.Finish("", nil)
	if len(trace.Steps) != maxSteps {
		t.Errorf("got %d steps, want %d", len(trace.Steps), maxSteps)
	}
}

func TestNothingIsAllocatedWithoutATrace(t *testing.T) {
	type other struct{}
	ctx := context.WithValue(t.Context(), other{}, 1)
	failure := errors.New("failed")
	got := testing.AllocsPerRun(1000, func() {
		within, step := At(ctx).Begin(ctx, Part, "account")
		At(within).SetCache("hit")
		step.End(failure)
	})
	if got != 0 {
		t.Errorf("got %.0f allocations, want none", got)
	}
}

// BenchmarkBegin is a step of a call that is not recorded, and of one that is.
func BenchmarkBegin(b *testing.B) {
	for _, c := range []struct {
		name string
		ctx  func() context.Context
	}{
		{"off", func() context.Context { return context.Background() }},
		{"on", func() context.Context { return With(context.Background(), New("/x/Y")) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx := c.ctx()
				within, step := At(ctx).Begin(ctx, Part, "account")
				_ = At(within)
				step.End(nil)
			}
		})
	}
}
