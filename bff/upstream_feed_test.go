package bff

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/upstream"
	"gatehouse/internal/upstreamtest"
)

var stockSecret = strings.Repeat("stoc", 10)

// withTwoFollowers is a gateway that limits callers, and two upstreams that follow
// accounts.
func withTwoFollowers(t testing.TB) options {
	t.Helper()
	folder := t.TempDir()
	lines := []string{"upstreams:"}
	for name, secret := range map[string]string{"shop": shopSecret, "stock": stockSecret} {
		upstreamtest.Write(t, filepath.Join(folder, name+".binpb"), upstreamtest.Encode(upstreamtest.FileOf(name)))
		upstreamtest.Write(t, filepath.Join(folder, name+".secret"), []byte(secret+"\n"))
		lines = append(lines, "  "+name+":", "    url: http://127.0.0.1:1", "    descriptors: "+name+".binpb", "    lifecycle: deletions", "    credential_file: "+name+".secret")
	}
	set, err := upstream.Load(upstream.Config{Path: upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte(strings.Join(lines, "\n")+"\n"))})
	wantNoError(t, "load the upstreams", err)
	return options{served: true, limited: true, upstreams: set}
}

// An upstream that calls without a pause costs auth no more than the rate of the method,
// and takes nothing from another upstream at its address.
func TestAnUpstreamThatNeverPausesIsRefusedByItsRate(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withTwoFollowers(t))
	var asked atomic.Int64
	answer(h.backend, authv1.AccountFeedServiceWatchAccountsProcedure, func(context.Context, *authv1.WatchAccountsRequest) (*authv1.WatchAccountsResponse, error) {
		asked.Add(1)
		return &authv1.WatchAccountsResponse{Cursor: "c"}, nil
	})
	const calls, burst, perSecond = 400, 100, 20
	began, refused := time.Now(), 0
	for range calls {
		response, text := h.send(t, watchAccounts, "{}", "Authorization", "Bearer "+shopSecret)
		switch {
		case response.StatusCode == http.StatusOK:
		case response.StatusCode == http.StatusTooManyRequests && strings.Contains(text, "RATE_LIMITED") && response.Header.Get("Retry-After") != "":
			refused++
		default:
			t.Fatalf("got %d %s, want 200 or 429 RATE_LIMITED with Retry-After", response.StatusCode, text)
		}
	}
	most := burst + int64(time.Since(began)/(time.Second/perSecond)) + 1
	if got := asked.Load(); got < burst || got > most || int(got)+refused != calls {
		t.Errorf("auth was asked %d times and %d calls were refused, want %d to %d and the rest", got, refused, burst, most)
	}
	if response, text := h.send(t, watchAccounts, "{}", "Authorization", "Bearer "+stockSecret); response.StatusCode != http.StatusOK {
		t.Errorf("the other upstream: got %d %s, want 200", response.StatusCode, text)
	}
}

// An upstream that opens many calls holds few at auth, and none once they have ended.
func TestAnUpstreamHoldsFewOpenCalls(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withTwoFollowers(t))
	const calls, most = 30, 8
	var open atomic.Int64
	release := make(chan struct{})
	answer(h.backend, authv1.AccountFeedServiceWatchAccountsProcedure, func(ctx context.Context, req *authv1.WatchAccountsRequest) (*authv1.WatchAccountsResponse, error) {
		if req.GetService() == "shop" {
			open.Add(1)
			defer open.Add(-1)
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return &authv1.WatchAccountsResponse{Cursor: "c"}, nil
	})
	var served, refused atomic.Int64
	var group sync.WaitGroup
	for range calls {
		group.Go(func() {
			response, text := h.send(t, watchAccounts, `{"wait":"15s"}`, "Authorization", "Bearer "+shopSecret)
			switch {
			case response.StatusCode == http.StatusOK:
				served.Add(1)
			case response.StatusCode == http.StatusTooManyRequests && strings.Contains(text, "TOO_MANY_READERS") && response.Header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				t.Errorf("got %d %s, want 200 or 429 TOO_MANY_READERS with Retry-After", response.StatusCode, text)
			}
		})
	}
	for deadline := time.Now().Add(10 * time.Second); (refused.Load() < calls-most || open.Load() < most) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if response, text := h.send(t, watchAccounts, "{}", "Authorization", "Bearer "+stockSecret); response.StatusCode != http.StatusOK {
		t.Errorf("the other upstream meanwhile: got %d %s, want 200", response.StatusCode, text)
	}
	close(release)
	group.Wait()
	if served.Load() != most || refused.Load() != calls-most {
		t.Errorf("%d served and %d refused, want %d and %d", served.Load(), refused.Load(), most, calls-most)
	}
	for range most + 1 {
		if response, text := h.send(t, watchAccounts, "{}", "Authorization", "Bearer "+shopSecret); response.StatusCode != http.StatusOK {
			t.Errorf("after they have ended: got %d %s, want 200", response.StatusCode, text)
		}
	}
}
