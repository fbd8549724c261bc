package password

import (
	"context"
	"gatehouse/internal/fault"
	"runtime"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// Guarantee 4: a caller that waits for longer than the queue allows receives the time
// after which to retry, and the number of passwords hashed at the same time is bounded.
func TestAFullQueueOfPasswordChecksSaysWhenToRetry(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	slots := int64(max(1, runtime.GOMAXPROCS(0)-1))
	if refusal, err := h.queue.enter(t.Context(), Caller{}, slots); refusal != "" || err != nil {
		t.Fatal(refusal, err)
	}
	_, _, err := h.Check(t.Context(), Caller{}, "password", "")
	if connect.CodeOf(err) != connect.CodeResourceExhausted || fault.Reason(err) != "TOO_MANY_PASSWORD_CHECKS" {
		t.Errorf("got %v, want resource_exhausted TOO_MANY_PASSWORD_CHECKS", err)
	}
	if after, ok := fault.RetryDelay(err); !ok || after != time.Second {
		t.Errorf("RetryInfo says %v, %v; want one second", after, ok)
	}
	// Every slot was counted: one more would not have fitted.
	if h.queue.free != 0 {
		t.Errorf("more than %d passwords could be hashed at once", slots)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := h.Check(ctx, Caller{}, "password", ""); err != context.Canceled {
		t.Errorf("for a caller who left: %v, want context.Canceled", err)
	}
}

func TestNoPasswordIsRightForNoAccount(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	for _, password := range []string{"", "password", "\x00"} {
		if right, _, err := h.Check(t.Context(), Caller{}, password, ""); right || err != nil {
			t.Errorf("%q: right %v, error %v", password, right, err)
		}
	}
}

func BenchmarkHashPassword(b *testing.B) {
	h := NewHasher()
	for b.Loop() {
		if _, err := h.Hash(b.Context(), Caller{}, "correct horse battery"); err != nil {
			b.Fatal(err)
		}
	}
}
