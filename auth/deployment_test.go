package auth_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"gatehouse/auth"
)

// logged is what a service has logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestCopiesWithDifferentIssuersWarn(t *testing.T) {
	t.Parallel()
	var first, second, third logged
	h := newHarness(t, func(c *auth.Config) { c.Logger = slog.New(slog.NewTextHandler(&first, nil)) })
	h.run(t)
	config := h.config
	config.Issuer, config.Logger = "https://other.example", slog.New(slog.NewTextHandler(&second, nil))
	if _, err := auth.New(t.Context(), config); err != nil {
		t.Fatalf("a change of the issuer on purpose: %v", err)
	}
	both := func(said string) bool {
		return strings.Contains(said, "http://localhost:8001") && strings.Contains(said, "https://other.example") && strings.Contains(said, "GATEHOUSE_PUBLIC_URL")
	}
	if said := second.String(); !both(said) {
		t.Errorf("the second copy logs %q, want a warning that names both issuers", said)
	}
	eventually(t, "the first copy warns too", func() error {
		if said := first.String(); !both(said) {
			return &notYet{said}
		}
		return nil
	})
	config.Logger = slog.New(slog.NewTextHandler(&third, nil))
	if _, err := auth.New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if said := third.String(); strings.Contains(said, "issuer") {
		t.Errorf("a copy with the issuer of the last logs %q", said)
	}
	if n := strings.Count(first.String(), "another replica of auth"); n != 1 {
		t.Errorf("the first copy warns %d times, want once", n)
	}
}

type notYet struct{ said string }

func (n *notYet) Error() string { return "it logs " + n.said }
