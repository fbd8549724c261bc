package compose

import (
	"bytes"
	"context"
	"runtime"
	"testing"
)

// goroutine returns the first line of the stack of the current goroutine, which contains its
// ID.
func goroutine() string {
	stack := make([]byte, 64)
	stack = stack[:runtime.Stack(stack, false)]
	return string(stack[:bytes.IndexByte(stack, '[')])
}

// Each additional concurrent part starts one goroutine.
func TestTheLastPartRunsOnItsCallersGoroutine(t *testing.T) {
	t.Parallel()
	where := func(context.Context) (string, error) { return goroutine(), nil }
	after := func(context.Context, string) (string, error) { return goroutine(), nil }
	here := goroutine()

	c := New(t.Context(), mapError)
	only := Required(c, "only", testLimit, where)
	next := RequiredFrom(c, "next", testLimit, only, after)
	wantNoError(t, "wait", c.Wait())
	if only.Value() != here || next.Value() != here {
		t.Errorf("a part and the one that needs it ran on %sand %s, want both on %s", only.Value(), next.Value(), here)
	}

	c = New(t.Context(), mapError)
	first := Required(c, "first", testLimit, where)
	last := Required(c, "last", testLimit, where)
	one := OptionalFrom(c, "one", testLimit, first, after)
	wantNoError(t, "wait", c.Wait())
	if first.Value() == here || last.Value() != here || one.Value() != first.Value() {
		t.Errorf("two parts ran on %sand %s, and the one that needs the first on %s; want the last on %s, and the first and what needs it on another",
			first.Value(), last.Value(), one.Value(), here)
	}
}
