package egress_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"gatehouse/internal/egress"
)

// nameServer answers each question for a name with the next of its addresses, and the last
// one for ever.
type nameServer struct {
	conn  net.PacketConn
	asked atomic.Int32
	names map[string][]netip.Addr
}

func newNameServer(t *testing.T, names map[string][]string) *nameServer {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, names: map[string][]netip.Addr{}}
	for name, texts := range names {
		for _, text := range texts {
			s.names[name+"."] = append(s.names[name+"."], netip.MustParseAddr(text))
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); s.serve() }()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return s
}

func (s *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		q := m.Questions[0]
		addresses := s.names[strings.ToLower(q.Name.String())]
		if len(addresses) == 0 {
			m.RCode = dnsmessage.RCodeNameError
		} else {
			address := addresses[0]
			header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			switch {
			case q.Type == dnsmessage.TypeA && address.Is4():
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: address.As4()}}}
			case q.Type == dnsmessage.TypeAAAA && address.Is6():
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: address.As16()}}}
			}
			if len(m.Answers) > 0 {
				s.asked.Add(1)
				if len(addresses) > 1 {
					s.names[strings.ToLower(q.Name.String())] = addresses[1:]
				}
			}
		}
		if packed, err := m.Pack(); err == nil {
			_, _ = s.conn.WriteTo(packed, from)
		}
	}
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// forbidden are hosts that must not be reached: literals, spellings that some parsers read
// as addresses, and names that the name server below resolves to what they say.
var forbidden = []string{
	// Loopback, unspecified, and their spellings.
	"127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "0.0.0.0", "0.1.2.3", "[::1]", "[::]", "localhost", "LOCALHOST", "localhost.",
	"127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.1.", "①②⑦.0.0.1",
	// Private, shared and link-local.
	"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1", "100.127.255.255", "169.254.0.1",
	"[fc00::1]", "[fd12:3456:789a::1]", "[fe80::1]", "[fe80::1%25lo]", "[fec0::1]",
	// Metadata services.
	"169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "[fd00:ec2::254]",
	// Documentation, benchmarking, protocol assignments, relays, multicast, reserved.
	"192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.88.99.1", "192.31.196.1", "192.52.193.1", "192.175.48.1",
	"224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[5f00::1]",
	// IPv4 inside IPv6: mapped, compatible, translated (NAT64), 6to4, Teredo.
	"[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::808:808]", "[64:ff9b:1::1]",
	"[2002:7f00:1::1]", "[2001::1]", "[2001:0:7f00:1::1]", "[2001:10::1]", "[2001:20::1]", "[2620:4f:8000::1]",
	// Names.
	"loopback.test", "private.test", "metadata.test", "mapped.test", "six.test", "unique.test", "nat64.test",
}

func TestNothingButPublicAddressesIsReached(t *testing.T) {
	t.Parallel()
	if len(forbidden) < 60 {
		t.Fatalf("the table has %d hosts, want at least 60", len(forbidden))
	}
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	names := newNameServer(t, map[string][]string{
		"loopback.test": {"127.0.0.1"}, "private.test": {"10.0.0.1"}, "metadata.test": {"169.254.169.254"}, "mapped.test": {"::ffff:127.0.0.1"},
		"six.test": {"::1"}, "unique.test": {"fd00::1"}, "nat64.test": {"64:ff9b::7f00:1"},
	})
	dialer := egress.Dialer{Resolver: names.resolver()}
	client := dialer.Client(5 * time.Second)
	for _, host := range forbidden {
		for _, scheme := range []string{"http", "https"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scheme+"://"+host+":"+port+"/", nil)
			if err != nil {
				continue // it is no URL
			}
			response, err := client.Do(request)
			if err == nil {
				_ = response.Body.Close()
				t.Errorf("%s://%s answers with status %d", scheme, host, response.StatusCode)
				continue
			}
			var dns *net.DNSError
			if !errors.Is(err, egress.ErrAddress) && !errors.As(err, &dns) && !strings.Contains(err.Error(), "invalid") {
				t.Errorf("%s://%s: %v, want it refused before a connection", scheme, host, err)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the server was reached %d times", n)
	}
}

// The name resolves to a public address when it is checked, and to a private one later.
func TestAnAddressIsCheckedForEachConnection(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	names := newNameServer(t, map[string][]string{"rebinding.test": {"93.184.215.14", "127.0.0.1"}})
	resolver := names.resolver()
	public, err := resolver.LookupNetIP(t.Context(), "ip4", "rebinding.test")
	dialer := egress.Dialer{Resolver: resolver}
	if err != nil || len(public) != 1 || !dialer.Allows(public[0].Unmap()) {
		t.Fatalf("the first answer is %v, %v, want a public address", public, err)
	}
	url := "http://rebinding.test:" + port
	if err := (egress.Dialer{Localhost: true}).Check("https://rebinding.test:" + port); err != nil {
		t.Fatalf("Check: %v", err)
	}
	for range 3 {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := dialer.Client(5 * time.Second).Do(request)
		if !errors.Is(err, egress.ErrAddress) {
			t.Errorf("got %v, want ErrAddress", err)
		}
		if err == nil {
			_ = response.Body.Close()
		}
	}
	if n := reached.Load(); n != 0 || names.asked.Load() < 2 {
		t.Errorf("the server was reached %d times, after %d questions", n, names.asked.Load())
	}
}

func TestAllowedNetworksAndLocalhostAreReached(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		http.Redirect(w, new(http.Request), "http://127.0.0.1/", http.StatusFound)
	}))
	t.Cleanup(server.Close)
	for n, test := range []struct {
		dialer egress.Dialer
		url    string
	}{
		{egress.Dialer{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, server.URL},
		{egress.Dialer{Localhost: true}, strings.Replace(server.URL, "127.0.0.1", "localhost", 1)},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := test.dialer.Client(5 * time.Second).Do(request)
		if err != nil {
			t.Fatalf("%s: %v", test.url, err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusFound || reached.Load() != int32(n+1) {
			t.Errorf("%s: status %d after %d requests: the redirect was followed", test.url, response.StatusCode, reached.Load())
		}
	}
	if err := (egress.Dialer{Localhost: true}).Check(server.URL); err == nil {
		t.Error("http://127.0.0.1 is accepted")
	}
}

func TestWhatIsWrongWithAURLIsSaid(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://example.com/hooks":         "",
		"https://example.com:8443/hooks?a=": "",
		"":                                  "absolute",
		"example.com":                       "absolute",
		"https:///hooks":                    "absolute",
		"mailto:a@example.com":              "absolute",
		"http://example.com":                "https://",
		"http://localhost":                  "https://",
		"ftp://example.com":                 "https://",
		"https://user@example.com":          "user",
		"https://user:password@example.com": "user",
		"https://example.com/#part":         "fragment",
		"https://127.0.0.1/":                "public",
		"https://[::1]/":                    "public",
		"https://[::ffff:8.8.8.8]/":         "public",
		"https://10.0.0.1:443/":             "public",
	} {
		err := (egress.Dialer{}).Check(text)
		if got := fmt.Sprint(err); (want == "") != (err == nil) || !strings.Contains(got, want) && want != "" {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A proxy of the environment would resolve the name itself, past the check of the address.
func TestTheClientUsesNoProxy(t *testing.T) {
	t.Parallel()
	transport, ok := egress.Dialer{}.Client(time.Second).Transport.(*http.Transport)
	if !ok || transport.Proxy != nil {
		t.Errorf("the client has a transport with a proxy")
	}
}
