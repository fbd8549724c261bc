// Package egress opens connections to URLs that administrators or clients chose. It
// connects to public addresses only, so that nobody reaches through it what the network
// of the system protects.
//
// The address is checked after the resolution of its name, for each connection: a name may
// resolve to another address than before (DNS rebinding).
package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// ErrAddress is the error for an address that is not public.
var ErrAddress = errors.New("the address is not public")

// dialLimit is how long one connection may take.
const dialLimit = 10 * time.Second

// Dialer connects to public addresses.
type Dialer struct {
	// Networks are additional networks that may be reached.
	Networks []netip.Prefix
	// Localhost allows the loopback addresses of the name localhost.
	Localhost bool
	// Resolver resolves names; the system's if nil.
	Resolver *net.Resolver
}

// DialContext connects to a host and a port. Errors: ErrAddress.
func (d Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if literal, err := netip.ParseAddr(host); err == nil && literal.Is4In6() {
		return nil, fmt.Errorf("dial %s: %w", host, ErrAddress)
	}
	dialer := net.Dialer{Timeout: dialLimit, Resolver: d.Resolver, Control: func(_, address string, _ syscall.RawConn) error {
		return d.check(address, d.Localhost && isLocalhost(host))
	}}
	return dialer.DialContext(ctx, network, address)
}

func (d Dialer) check(address string, localhost bool) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if ip := to.Addr(); !d.Allows(ip) && (!localhost || !ip.IsLoopback()) {
		return fmt.Errorf("dial %s: %w", ip, ErrAddress)
	}
	return nil
}

// Allows reports whether connections to an address are allowed.
func (d Dialer) Allows(ip netip.Addr) bool {
	if ip.Zone() != "" {
		return false
	}
	for _, network := range d.Networks {
		if network.Contains(ip) {
			return true
		}
	}
	return isPublic(ip)
}

// special are the networks in 0.0.0.0/0 and in 2000::/3 that IANA's registries of
// special-purpose addresses list (RFC 6890), multicast and reserved addresses, and the
// address of the metadata service of Azure, which is in none of them.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

// globalUnicast is what IANA assigns of IPv6; everything outside is special: loopback,
// mapped and translated addresses, unique local, link-local and multicast ones.
var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, text := range texts {
		parsed = append(parsed, netip.MustParsePrefix(text))
	}
	return parsed
}

func isPublic(ip netip.Addr) bool {
	if !ip.IsValid() || !ip.Is4() && !globalUnicast.Contains(ip) {
		return false
	}
	for _, network := range special {
		if network.Contains(ip) {
			return false
		}
	}
	return true
}

func isLocalhost(host string) bool { return strings.EqualFold(host, "localhost") }

// Check returns an error that says what is wrong with a URL, if it can't be sent to
// whatever its host resolves to.
func (d Dialer) Check(text string) error {
	parsed, err := url.Parse(text)
	switch {
	case err != nil || parsed.Opaque != "" || parsed.Hostname() == "":
		return errors.New("give an absolute URL, such as https://example.com/hooks")
	case parsed.User != nil:
		return errors.New("leave out the user and the password")
	case parsed.Fragment != "" || strings.Contains(text, "#"):
		return errors.New("leave out the fragment")
	case parsed.Scheme == "http" && (!d.Localhost || !isLocalhost(parsed.Hostname())), parsed.Scheme != "http" && parsed.Scheme != "https":
		return errors.New("give a URL that begins with https://")
	}
	if ip, err := netip.ParseAddr(parsed.Hostname()); err == nil && (ip.Is4In6() || !d.Allows(ip)) {
		return errors.New("give a public address, or allow its network in GATEHOUSE_WEBHOOK_NETWORKS")
	}
	return nil
}

// Client returns a client that follows no redirect, and uses no proxy of the environment.
func (d Dialer) Client(limit time.Duration) *http.Client {
	return &http.Client{
		Timeout:       limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: d.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: dialLimit,
			MaxIdleConns: 256, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
	}
}
