package bff

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
)

// rated gives a gateway a rate whose clock the test turns.
func (h *harness) rated(t testing.TB) *atomicTime {
	t.Helper()
	held, err := newRates("", h.gateway.proxies, discard)
	wantNoError(t, "newRates", err)
	clock := &atomicTime{at: time.Now()}
	held.addresses.Now = clock.now
	h.gateway.rates, h.gateway.identity.limit = held, held.limitAddress
	return clock
}

// spend uses up what the address has.
func (h *harness) spend(t testing.TB, address string) {
	t.Helper()
	for i := range addressRate.Burst {
		if err := h.gateway.rates.takeAddress(address); err != nil {
			t.Fatalf("request %d from %s: %v", i+1, address, err)
		}
	}
}

func wantTooMany(t testing.TB, what string, err error) {
	t.Helper()
	wait, ok := fault.RetryDelay(err)
	if connect.CodeOf(err) != connect.CodeResourceExhausted || fault.Reason(err) != "TOO_MANY_REQUESTS" || !ok || wait <= 0 || wait > addressRate.Interval {
		t.Errorf("%s: got %v (reason %q, retry after %v), want TOO_MANY_REQUESTS and a wait of at most %v", what, err, fault.Reason(err), wait, addressRate.Interval)
	}
}

func TestAnAddressHasABurstAndThenARate(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	clock := h.rated(t)
	h.spend(t, "203.0.113.7")
	wantTooMany(t, "after the burst", h.gateway.rates.takeAddress("203.0.113.7"))
	clock.set(clock.now().Add(10 * addressRate.Interval))
	for range 10 {
		wantNoError(t, "one for each interval", h.gateway.rates.takeAddress("203.0.113.7"))
	}
	wantTooMany(t, "one more", h.gateway.rates.takeAddress("203.0.113.7"))
	wantNoError(t, "another address", h.gateway.rates.takeAddress("203.0.113.8"))
	clock.set(clock.now().Add(time.Hour))
	h.spend(t, "203.0.113.7")
	wantTooMany(t, "a rest saves up no more than the burst", h.gateway.rates.takeAddress("203.0.113.7"))
}

func TestIPv6AddressesShareTheRateOfTheir64(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.rated(t)
	h.spend(t, "2001:db8:1:2::1")
	wantTooMany(t, "the same /64", h.gateway.rates.takeAddress("2001:db8:1:2:ffff::9"))
	wantNoError(t, "another /64", h.gateway.rates.takeAddress("2001:db8:1:3::1"))
	h.spend(t, "198.51.100.1")
	wantTooMany(t, "IPv4 within IPv6", h.gateway.rates.takeAddress("::ffff:198.51.100.1"))
	for range addressRate.Burst + 1 {
		wantNoError(t, "no address", h.gateway.rates.takeAddress(""))
	}
}

// The flood is refused before any signature is checked; what is remembered as
// verified, and what carries no token, costs no check and isn't counted.
func TestAFloodOfTokensIsRefusedBeforeTheyAreChecked(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	known := h.token(alice)
	_, got := h.getMe(t, known)
	wantNoError(t, "a good token", got.err)
	h.rated(t)
	for range 10 { // each of them unknown, though well signed
		_, got := h.getMe(t, h.signer.token(func(_, claims map[string]any) { claims["aud"] = "another" }))
		wantError(t, "an unknown token", got, http.StatusUnauthorized, connect.CodeUnauthenticated, "TOKEN_INVALID")
	}
	if verdict := h.gateway.rates.addresses.Take(limit.Network(addressOfDirect), addressRate); verdict.Left != addressRate.Burst-11 {
		t.Errorf("after 10 unknown tokens and one more, %d are left, want %d", verdict.Left, addressRate.Burst-11)
	}
	for range addressRate.Burst - 11 {
		wantNoError(t, "the rest of the burst", h.gateway.rates.takeAddress(addressOfDirect.String()))
	}
	_, got = h.getMe(t, h.token(bob)) // good, and unknown
	wantError(t, "beyond the rate", got, http.StatusTooManyRequests, connect.CodeResourceExhausted, "TOO_MANY_REQUESTS")
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q, want 1", got.header.Get("Retry-After"))
	}
	if _, known, _ := h.gateway.verifier.Recall(h.token(bob)); known {
		t.Error("the token was checked all the same")
	}
	for range 20 {
		_, got = h.getMe(t, known)
		wantNoError(t, "a known token beyond the rate", got.err)
		_, got = h.getMe(t, "")
		wantError(t, "no token", got, http.StatusUnauthorized, connect.CodeUnauthenticated, "TOKEN_MISSING")
	}
}

// addressOfDirect is where direct calls from.
var addressOfDirect = netip.MustParseAddr("192.0.2.1")

func TestAFloodOfSignInsNeverReachesAuth(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{proxies: networks(t, "192.0.2.0/24")})
	answer(h.backend, authv1.SessionServiceLoginProcedure, func(_ context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
	})
	h.rated(t)
	login := func(forwarded string) reply {
		_, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "", "X-Forwarded-For", forwarded)
		return got
	}
	wantNoError(t, "a sign-in", login("203.0.113.7").err)
	for range addressRate.Burst - 1 {
		wantNoError(t, "the rest of the burst", h.gateway.rates.takeAddress("203.0.113.7"))
	}
	before := h.called("")
	// What the caller writes on the left of the proxy's own entry changes nothing.
	for _, forwarded := range []string{"203.0.113.7", "1.2.3.4, 203.0.113.7", "192.0.2.9, 203.0.113.7, 192.0.2.8", "garbage, 203.0.113.7:4711"} {
		got := login(forwarded)
		wantError(t, "beyond the rate, forwarded "+forwarded, got, http.StatusTooManyRequests, connect.CodeResourceExhausted, "TOO_MANY_REQUESTS")
	}
	for name, call := range map[string]func() error{
		"Refresh": func() error {
			_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "x"}, "", "X-Forwarded-For", "203.0.113.7")
			return got.err
		},
		"ConfirmEmailChange": func() error {
			_, got := ask(t, h.accounts.ConfirmEmailChange, &bffv1.ConfirmEmailChangeRequest{Token: "x"}, "", "X-Forwarded-For", "203.0.113.7")
			return got.err
		},
	} {
		if err := call(); fault.Reason(err) != "TOO_MANY_REQUESTS" {
			t.Errorf("%s beyond the rate: %v, want TOO_MANY_REQUESTS", name, err)
		}
	}
	if after := h.called(""); after != before {
		t.Errorf("%d calls reached a service, want none", after-before)
	}
	wantNoError(t, "another address", login("203.0.113.8").err)
}

func TestTheRateHoldsForConcurrentCalls(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.rated(t)
	var group sync.WaitGroup
	admitted := make(chan struct{}, 4*addressRate.Burst)
	for range 20 {
		group.Go(func() {
			for range addressRate.Burst / 10 {
				if h.gateway.rates.takeAddress("203.0.113.7") == nil {
					admitted <- struct{}{}
				}
			}
		})
	}
	group.Wait()
	if len(admitted) != addressRate.Burst {
		t.Errorf("%d were admitted at once, want %d", len(admitted), addressRate.Burst)
	}
}

// The memory for addresses is bounded, however many there are, and an address that
// floods the gateway stays limited.
func TestTheMemoryOfAddressesIsBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.rated(t)
	h.spend(t, "203.0.113.7")
	for i := range 2 * ratedAddresses {
		address := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 16), byte(i >> 8), byte(i)})
		_ = h.gateway.rates.takeAddress(address.String())
		if i%100 == 0 && h.gateway.rates.takeAddress("203.0.113.7") == nil {
			t.Fatalf("after %d other addresses, the flood's own was forgotten", i)
		}
	}
	if size := h.gateway.rates.addresses.Callers(); size > ratedAddresses {
		t.Errorf("%d addresses are remembered, want at most %d", size, ratedAddresses)
	}
}

// A password of 10 MB goes no further than the edge.
func TestAHugePasswordIsRefusedAtTheEdge(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	before := h.called("")
	response, body := h.send(t, "/bff.v1.AuthService/Login", `{"email":"ada@example.com","password":"`+strings.Repeat("x", 10<<20)+`"}`)
	if response.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "The request is too large") {
		t.Errorf("got %s %.200s, want REQUEST_TOO_LARGE", response.Status, body)
	}
	if h.called("") != before {
		t.Error("it reached a service")
	}
}
