package feed

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// Watchers wait briefly for the position, and a message without one is sent.
func TestALatePositionDelaysTheMessageBriefly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			takes, wait time.Duration
			want        string
		}{
			{10 * time.Millisecond, 10 * time.Millisecond, "0/1"},
			{200 * time.Millisecond, 50 * time.Millisecond, ""},
			{time.Hour, 50 * time.Millisecond, ""},
			{20 * time.Millisecond, 20 * time.Millisecond, "0/1"},
		} {
			f := New(Config[string]{Name: "rows", Logger: slog.New(slog.DiscardHandler), Position: func(ctx context.Context) (string, error) {
				select {
				case <-time.After(test.takes):
					return "0/1", nil
				case <-ctx.Done():
					return "", ctx.Err()
				}
			}})
			begun := time.Now()
			if got := f.position(t.Context()); got != test.want || time.Since(begun) != test.wait {
				t.Errorf("a position that takes %s: %q after %s, want %q after %s", test.takes, got, time.Since(begun), test.want, test.wait)
			}
			time.Sleep(time.Second) // until the late one is given up
		}
	})
}
