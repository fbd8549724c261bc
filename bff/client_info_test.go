package bff

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

func networks(t testing.TB, texts ...string) []netip.Prefix {
	t.Helper()
	var networks []netip.Prefix
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		wantNoError(t, "parse "+text, err)
		networks = append(networks, network)
	}
	return networks
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	proxies := networks(t, "10.0.0.0/8", "fd00::/8", "127.0.0.1/32", "::1/128")
	for _, test := range []struct {
		name      string
		peer      string
		forwarded []string
		want      string
	}{
		// Without a proxy.
		{"IPv4", "203.0.113.7:4711", nil, "203.0.113.7"},
		{"IPv6", "[2001:db8::1]:4711", nil, "2001:db8::1"},
		{"no port", "203.0.113.7", nil, "203.0.113.7"},
		{"IPv6, no port", "2001:db8::1", nil, "2001:db8::1"},
		{"IPv4 in IPv6", "[::ffff:203.0.113.7]:4711", nil, "203.0.113.7"},
		{"IPv6 with a zone", "[fe80::1%eth0]:4711", nil, "fe80::1"},
		{"IPv6 written long", "[2001:0DB8:0:0::0001]:1", nil, "2001:db8::1"},
		{"no peer", "", nil, ""},
		{"a Unix socket", "@", nil, ""},
		{"a name", "localhost:80", nil, ""},
		{"garbage", "\x00\xff", nil, ""},
		// Nobody else's word counts.
		{"untrusted peer", "203.0.113.7:1", []string{"198.51.100.1"}, "203.0.113.7"},
		{"untrusted peer, says loopback", "203.0.113.7:1", []string{"127.0.0.1"}, "203.0.113.7"},
		{"untrusted peer, says a proxy", "203.0.113.7:1", []string{"198.51.100.1, 10.0.0.1"}, "203.0.113.7"},
		{"unknown peer", "@", []string{"198.51.100.1"}, ""},
		// Behind proxies.
		{"one proxy", "10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a port", "10.0.0.1:1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"a port, IPv6", "10.0.0.1:1", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"one proxy, IPv6", "[fd00::1]:1", []string{"2001:db8::5"}, "2001:db8::5"},
		{"one proxy, IPv4 in IPv6", "[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:1", []string{"198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"a forwarded zone", "10.0.0.1:1", []string{"fe80::1%x"}, "fe80::1"},
		{"spaces", "10.0.0.1:1", []string{"  198.51.100.1\t,10.0.0.2 "}, "198.51.100.1"},
		{"no header", "10.0.0.1:1", nil, "10.0.0.1"},
		{"an empty header", "10.0.0.1:1", []string{""}, "10.0.0.1"},
		// What stands left of the first stranger may be made up.
		{"spoofed left", "10.0.0.1:1", []string{"1.2.3.4, 198.51.100.1"}, "198.51.100.1"},
		{"spoofed proxy left", "10.0.0.1:1", []string{"10.9.9.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"spoofed garbage left", "10.0.0.1:1", []string{"<script>, 198.51.100.1"}, "198.51.100.1"},
		{"spoofed in a header before", "10.0.0.1:1", []string{"1.2.3.4", "198.51.100.1"}, "198.51.100.1"},
		{"several headers", "10.0.0.1:1", []string{"198.51.100.1, 10.0.0.3", "10.0.0.2"}, "198.51.100.1"},
		{"all proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		// What can't be read ends the belief: the proxy that wrote it is the last known.
		{"garbage", "10.0.0.1:1", []string{"garbage"}, "10.0.0.1"},
		{"garbage in between", "10.0.0.1:1", []string{"198.51.100.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"an empty entry", "10.0.0.1:1", []string{"198.51.100.1,,10.0.0.2"}, "198.51.100.1"},
		{"empty entries at both ends", "10.0.0.1:1", []string{", 198.51.100.1 , "}, "198.51.100.1"},
		{"an empty header behind", "10.0.0.1:1", []string{"198.51.100.1", ""}, "198.51.100.1"},
		{"empty entries alone", "10.0.0.1:1", []string{" , ,"}, "10.0.0.1"},
		{"a name", "10.0.0.1:1", []string{"client.example"}, "10.0.0.1"},
		{"IPv4 of five", "10.0.0.1:1", []string{"1.2.3.4.5"}, "10.0.0.1"},
		{"IPv4 with zeros", "10.0.0.1:1", []string{"010.1.2.3"}, "10.0.0.1"},
		{"a network", "10.0.0.1:1", []string{"198.51.100.0/24"}, "10.0.0.1"},
		{"brackets", "10.0.0.1:1", []string{"[2001:db8::5]"}, "2001:db8::5"},
		{"brackets, two proxies", "10.0.0.1:1", []string{"[2001:db8::5], [fd00::7]"}, "2001:db8::5"},
		{"a proxy with a port", "10.0.0.1:1", []string{"[2001:db8::5]:4711, 10.0.0.2:80, [fd00::7]:80"}, "2001:db8::5"},
		{"brackets, IPv4 in IPv6", "10.0.0.1:1", []string{"[::ffff:198.51.100.1]"}, "198.51.100.1"},
		{"brackets, a zone", "10.0.0.1:1", []string{"[fe80::1%x]"}, "fe80::1"},
		{"half a bracket", "10.0.0.1:1", []string{"[2001:db8::5"}, "10.0.0.1"},
		{"the other half", "10.0.0.1:1", []string{"2001:db8::5]"}, "10.0.0.1"},
		{"brackets around IPv4", "10.0.0.1:1", []string{"[198.51.100.1]"}, "10.0.0.1"},
		{"a port that is none", "10.0.0.1:1", []string{"198.51.100.1:http"}, "10.0.0.1"},
		{"a port that is too large", "10.0.0.1:1", []string{"198.51.100.1:65536"}, "10.0.0.1"},
	} {
		if got := clientAddress(test.peer, test.forwarded, proxies); got != test.want {
			t.Errorf("%s: peer %q, forwarded %q: got %q, want %q", test.name, test.peer, test.forwarded, got, test.want)
		}
	}
	if got := clientAddress("10.0.0.1:1", []string{"198.51.100.1"}, nil); got != "10.0.0.1" {
		t.Errorf("no trusted proxies: got %q, want the peer's", got)
	}
}

// Whatever is sent, the address is one or none, and a caller whom nobody trusts
// can't change it.
func FuzzClientAddress(f *testing.F) {
	proxies := networks(f, "10.0.0.0/8", "::ffff:0:0/96", "fd00::/8")
	f.Add("10.0.0.1:1", "198.51.100.1", "1.2.3.4,,")
	f.Add("[::1%lo]:1", "::ffff:10.0.0.1", "fe80::1%a,b")
	f.Fuzz(func(t *testing.T, peer, first, second string) {
		got := clientAddress(peer, []string{first, second}, proxies)
		if got == "" {
			return
		}
		address, err := netip.ParseAddr(got)
		if err != nil || address.Zone() != "" || address.Is4In6() || address.String() != got {
			t.Fatalf("peer %q, forwarded %q, %q: got %q, want a plain address", peer, first, second, got)
		}
		if alone := clientAddress(peer, nil, proxies); !trusts(proxies, alone) && got != alone {
			t.Fatalf("peer %q, forwarded %q, %q: got %q, want the peer's own %q", peer, first, second, got, alone)
		}
		if spoofed := clientAddress(peer, []string{"203.0.113.99, " + first, second}, proxies); spoofed != got && got != "203.0.113.99" && !trusts(proxies, got) {
			t.Fatalf("peer %q, forwarded %q, %q: got %q, but %q with an entry on the left", peer, first, second, got, spoofed)
		}
	})
}

func trusts(proxies []netip.Prefix, text string) bool {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	for _, proxy := range proxies {
		if proxy.Contains(address) {
			return true
		}
	}
	return false
}

// Behind a proxy that isn't named, everybody would count as one address.
func TestAProxyThatIsNotTrustedIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		proxies   []netip.Prefix
		peer      string
		forwarded string
		want      int
	}{
		"a proxy that isn't named":       {nil, "10.0.0.5:1", "203.0.113.7", 1},
		"one before a named one":         {networks(t, "10.0.0.5/32"), "10.0.0.5:1", "203.0.113.7, 10.0.0.6", 1},
		"a named one":                    {networks(t, "10.0.0.0/8"), "10.0.0.5:1", "203.0.113.7", 0},
		"a client on one's own network":  {networks(t, "10.0.0.5/32"), "10.0.0.5:1", "10.1.2.3", 0},
		"a client that sends the header": {nil, "203.0.113.7:1", "10.0.0.1", 0},
		"a neighbour without the header": {nil, "10.0.0.5:1", "", 0},
	} {
		h := newHarness(t, options{proxies: test.proxies})
		for range 3 {
			info := &connect.CallInfo{PeerAddr: test.peer}
			if test.forwarded != "" {
				info.RequestHeader().Set("X-Forwarded-For", test.forwarded)
			}
			_ = h.gateway.proxies.addressOfCall(info)
		}
		if got := strings.Count(h.log.String(), "GATEHOUSE_TRUSTED_PROXIES"); got != test.want {
			t.Errorf("%s: %d lines of the log say so, want %d", name, got, test.want)
		}
	}
}

// auth receives the caller, the IP address and the user agent, in a form that it can
// store.
func TestServicesReceiveTheClientInfo(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{proxies: networks(t, "192.0.2.0/24")}) // where direct calls from
	origins := make(chan *authv1.Origin, 1)
	answer(h.backend, authv1.SessionServiceReauthenticateProcedure, func(_ context.Context, req *authv1.ReauthenticateRequest) (*authv1.ReauthenticateResponse, error) {
		origins <- req.GetOrigin()
		return &authv1.ReauthenticateResponse{}, nil
	})
	for _, test := range []struct {
		agent string
		want  string
	}{
		{"curl/8", "curl/8"},
		{strings.Repeat("a", 600), strings.Repeat("a", maxUserAgent)},
		{strings.Repeat("é", 600), strings.Repeat("é", maxUserAgent/2)},
		{strings.Repeat("a", maxUserAgent-1) + "é", strings.Repeat("a", maxUserAgent-1)},
		{"broken \xff\xfe agent", "broken  agent"},
	} {
		_, got := ask(t, h.accounts.Reauthenticate, &bffv1.ReauthenticateRequest{Password: "x"}, h.token(alice),
			"User-Agent", test.agent, "X-Forwarded-For", "1.2.3.4, 198.51.100.1", "X-Request-Id", "r-7")
		if got.err != nil {
			t.Errorf("User-Agent %q: %v", test.agent, got.err)
			continue
		}
		origin := <-origins
		if origin.GetUserAgent() != test.want || !utf8.ValidString(origin.GetUserAgent()) {
			t.Errorf("User-Agent %q: got %q, want %q", test.agent, origin.GetUserAgent(), test.want)
		}
		if origin.GetIpAddress() != "198.51.100.1" || origin.GetAccountId() != alice || origin.GetSessionId() != session || origin.GetRequestId() != "r-7" {
			t.Errorf("got origin %v, want the client's address, the caller and the request", origin)
		}
	}
}

func TestAcceptedLocale(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"":                             "",
		"*":                            "",
		"de-AT,de;q=0.9,en;q=0.8":      "de-AT",
		"en;q=0.1, pt-br;q=0.9, *;q=1": "pt-BR",
		"en;q=0":                       "",
		"zh-hant-tw":                   "zh-Hant-TW",
		"en_US":                        "en-US",
		"x;;":                          "",
		"de, \xff":                     "",
		"'; DROP TABLE":                "",
		"\r\nBcc: someone@example.com": "",
		strings.Repeat("a-", 2000):     "",
		"sl-rozaj-biske-1994-alalc97-ao1990-aluku-arevela, sl;q=0.5": "sl",
	} {
		if got := acceptedLocale(header); got != want || len(got) > maxLocale {
			t.Errorf("Accept-Language %.60q: got %q, want %q", header, got, want)
		}
	}
}

func TestTheLocaleReachesAuth(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := make(chan *authv1.RequestPasswordResetRequest, 1)
	answer(h.backend, authv1.LinkServiceRequestPasswordResetProcedure, func(_ context.Context, req *authv1.RequestPasswordResetRequest) (*authv1.RequestPasswordResetResponse, error) {
		asked <- req
		return &authv1.RequestPasswordResetResponse{}, nil
	})
	_, got := ask(t, h.auth.RequestPasswordReset, &bffv1.RequestPasswordResetRequest{Email: "ada@example.com"}, "", "Accept-Language", "de-CH, fr;q=0.5")
	wantNoError(t, "RequestPasswordReset", got.err)
	if locale := (<-asked).GetOrigin().GetLocale(); locale != "de-CH" {
		t.Errorf("got locale %q, want de-CH", locale)
	}
}
