package dial

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
)

// watchers opens streams of a feed as separate callers, each with the addresses in an order
// of its own, and returns the address that each chose.
type watchers struct {
	balancers []*loadBalancer
	endpoints [][]*endpoint
}

func newWatchers(callers, addresses int) *watchers {
	w := &watchers{}
	for range callers {
		var own []*endpoint
		for _, i := range rand.Perm(addresses) {
			own = append(own, newEndpoint("users", "10.0.0."+strconv.Itoa(i)+":8003", slog.New(slog.DiscardHandler)))
		}
		w.endpoints = append(w.endpoints, own)
		w.balancers = append(w.balancers, newLoadBalancer("users", slog.New(slog.DiscardHandler), func(context.Context) ([]*endpoint, error) { return own, nil }))
	}
	return w
}

// open opens a stream for each caller and counts the streams of each address.
func (w *watchers) open(t *testing.T, ctx context.Context, procedure string) map[string]int {
	t.Helper()
	opened := map[string]int{}
	for _, b := range w.balancers {
		_, err := b.balance(func(ctx context.Context, _ connect.Spec) (connect.ClientStream, error) {
			opened[placementFrom(ctx).endpoint().address]++
			return nil, nil
		})(ctx, connect.Spec{Procedure: procedure, StreamType: connect.StreamTypeServer})
		if err != nil {
			t.Fatal(err)
		}
	}
	return opened
}

// eject ejects an address at every caller.
func (w *watchers) eject(address string) {
	for _, endpoints := range w.endpoints {
		for _, one := range endpoints {
			if one.address == address {
				one.ejected.Store(true)
			}
		}
	}
}

func only(t *testing.T, opened map[string]int, callers int) string {
	t.Helper()
	for address, count := range opened {
		if count == callers {
			return address
		}
	}
	t.Fatalf("%d callers opened the feed at %v, want one address for all", callers, opened)
	return ""
}

func TestCallersOpenAFeedAtOneEndpoint(t *testing.T) {
	t.Parallel()
	const procedure = "/service.v1.ChangeService/WatchChanges"
	w := newWatchers(20, 5)
	first := only(t, w.open(t, Shared(t.Context()), procedure), 20)

	// Streams that end go to another endpoint, to the same for all of them.
	second := only(t, w.open(t, Shared(t.Context()), procedure), 20)
	if second == first {
		t.Errorf("the streams that ended were opened at the same endpoint, %s", first)
	}

	w = newWatchers(20, 5)
	w.eject(first)
	if got := only(t, w.open(t, Shared(t.Context()), procedure), 20); got != second {
		t.Errorf("without %s the callers chose %s, want %s as after a stream that ended there", first, got, second)
	}
}

func TestOtherStreamsAreSpread(t *testing.T) {
	t.Parallel()
	if opened := newWatchers(40, 4).open(t, t.Context(), "/users.v1.ProfileService/Other"); len(opened) < 2 {
		t.Errorf("40 streams went to %v, want them spread", opened)
	}
}

func TestFeedsAreSpreadOverTheEndpoints(t *testing.T) {
	t.Parallel()
	addresses := map[string]int{}
	for i := range 200 {
		addresses[only(t, newWatchers(2, 4).open(t, Shared(t.Context()), "/feed"+strconv.Itoa(i)), 2)]++
	}
	for address, count := range addresses {
		if count < 20 || len(addresses) != 4 {
			t.Errorf("200 feeds were opened at %v; %s has %d, want about 50", addresses, address, count)
		}
	}
}

// One caller may open streams at the same time.
func TestSharedStreamsOfOneCaller(t *testing.T) {
	t.Parallel()
	w := newWatchers(1, 3)
	open := w.balancers[0].balance(func(context.Context, connect.Spec) (connect.ClientStream, error) { return nil, nil })
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if _, err := open(Shared(context.Background()), connect.Spec{Procedure: "/feed" + strconv.Itoa(i%2), StreamType: connect.StreamTypeServer}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
