package identity_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse.example/client/identity"
)

// All calls that come before the keys do wait for one fetch.
func TestTheFirstCallsShareOneFetch(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.hold = make(chan struct{})
	v := g.verifier(t)
	token := g.sign(t, adaAt(time.Now()), "k1", nil)
	var wg sync.WaitGroup
	results := make(chan error, 20)
	for range cap(results) {
		wg.Go(func() {
			_, err := v.Verify(t.Context(), token)
			results <- err
		})
	}
	// A caller that leaves does not stop the fetch for the others.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(ctx, token); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: got %v, want context.Canceled", err)
	}
	close(g.hold)
	wg.Wait()
	close(results)
	for err := range results {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
	}
	if got := g.count(); got != 1 {
		t.Errorf("got %d fetches, want 1", got)
	}
}

// clock is moved by tests; a verifier takes it through [identity.SetClock].
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

func clocked(t *testing.T, g *gateway) (*identity.Verifier, *clock) {
	v, c := g.verifier(t), &clock{now: time.Now()}
	identity.SetClock(v, c.time)
	return v, c
}

// A gateway that starts signing with a new key is followed at once, and a stranger's key
// ids cause a bounded number of fetches.
func TestANewKeyIsFetchedAndUnknownIDsAreBounded(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	v, clock := clocked(t, g)
	verify := func(kid string) error {
		_, err := v.Verify(t.Context(), g.sign(t, adaAt(clock.time()), kid, nil))
		return err
	}
	if err := verify("k1"); err != nil {
		t.Fatal(err)
	}
	clock.move(identity.MinInterval)
	g.addKey(t, "k2")
	if err := verify("k2"); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if got := g.count(); got != 2 {
		t.Errorf("got %d fetches for two keys, want 2", got)
	}
	for i := range 50 {
		token := g.sign(t, adaAt(clock.time()), "k1", map[string]any{"kid": fmt.Sprint("stranger-", i)})
		if _, err := v.Verify(t.Context(), token); err == nil {
			t.Error("an unknown key: got no error")
		}
	}
	if got := g.count(); got != 2 {
		t.Errorf("got %d fetches after 50 unknown ids within %s, want 2", got, identity.MinInterval)
	}
	for _, kid := range []string{"k1", "k2"} { // both, during a change of keys
		if err := verify(kid); err != nil {
			t.Errorf("%s: %v", kid, err)
		}
	}
}

// Without the gateway a service starts, says that it cannot judge tokens, and recovers.
func TestKeysThatAreDownAtTheStart(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.setDown(true)
	v, clock := clocked(t, g)
	token := g.sign(t, adaAt(clock.time()), "k1", nil)
	for range 30 {
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, identity.ErrKeysUnavailable) {
			t.Fatalf("while down: got %v, want ErrKeysUnavailable", err)
		}
	}
	if got := g.count(); got != 1 {
		t.Errorf("got %d fetches for 30 calls within a second, want 1", got)
	}
	g.setDown(false)
	clock.move(identity.RetryInterval)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("once up: %v", err)
	}
}

// Keys that were fetched once stay in use while the gateway is down; an unknown key is
// refused, and does not count as an outage.
func TestKeysThatAreDownLater(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	v, clock := clocked(t, g)
	verify := func(kid string) error {
		_, err := v.Verify(t.Context(), g.sign(t, adaAt(clock.time()), "k1", map[string]any{"kid": kid}))
		return err
	}
	if err := verify("k1"); err != nil {
		t.Fatal(err)
	}
	g.setDown(true)
	clock.move(24 * time.Hour)
	for range 3 {
		if err := verify("k1"); err != nil {
			t.Errorf("an earlier key: %v", err)
		}
		if err := verify("k2"); err == nil || errors.Is(err, identity.ErrKeysUnavailable) {
			t.Errorf("an unknown key: got %v, want a refusal", err)
		}
		clock.move(identity.RetryInterval)
	}
}

// A key that the gateway has withdrawn is refused once the keys have been refreshed,
// which the first call after that time starts.
func TestAWithdrawnKeyIsRefused(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.addKey(t, "k2")
	v, clock := clocked(t, g)
	sign := func() string { return g.sign(t, adaAt(clock.time()), "k2", nil) }
	if _, err := v.Verify(t.Context(), sign()); err != nil {
		t.Fatal(err)
	}
	clock.move(identity.RefreshAfter)
	withdrawn := sign()
	g.removeKey("k2")
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := v.Verify(t.Context(), withdrawn)
		if err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the withdrawn key is still accepted after %d fetches", g.count())
		}
		time.Sleep(time.Millisecond) // the refresh runs concurrently with the calls
	}
}

// No goroutine stays behind: the bubble would not end.
func TestAFetchEndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, err := identity.New(identity.Config{Issuer: issuer, Audience: "shop", HTTPClient: neverAnswers()})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = v.Verify(t.Context(), wellFormed)
		if !errors.Is(err, identity.ErrKeysUnavailable) {
			t.Errorf("got %v, want ErrKeysUnavailable", err)
		}
		if took := time.Since(start); took != identity.FetchTimeout {
			t.Errorf("a silent gateway held the call for %s, want %s", took, identity.FetchTimeout)
		}
	})
}
