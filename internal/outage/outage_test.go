package outage_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"gatehouse/internal/outage"
)

func TestAnOutageIsLoggedWhenItBeginsAndWhenItEnds(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	plain := slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	log := outage.Log{Logger: slog.New(plain), Failed: "relay: delivery failed, retrying", Recovered: "relay: recovered", Attrs: []slog.Attr{slog.Int("shard", 1)}}
	refused, reset := errors.New("refused"), errors.New("reset")
	for _, err := range []error{nil, nil, refused, reset, nil, nil, reset} {
		log.Note(t.Context(), err)
		if log.Failing() != (err != nil) {
			t.Errorf("after %v: failing is %v", err, log.Failing())
		}
	}
	want := []string{
		`level=WARN msg="relay: delivery failed, retrying" shard=1 cause=refused`,
		`level=INFO msg="relay: recovered" shard=1`,
		`level=WARN msg="relay: delivery failed, retrying" shard=1 cause=reset`,
	}
	if got := strings.Split(strings.TrimSpace(text.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
