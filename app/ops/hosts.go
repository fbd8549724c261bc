package ops

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// The operators' listener is unauthenticated: it relies on who can reach it. A
// browser can reach it too, and a page whose owner points its host name at that
// address (DNS rebinding) could read the answers. Such a request has the page's
// host name in its Host header, so the listener answers only names that no
// stranger can register.

// Hosts decides which Host headers the operators' listener answers.
type Hosts struct{ names []string }

// ParseHosts returns the hosts of a listener at listen: the extra ones, the
// listener's own, and this machine's. It also returns which of the extra ones
// are not host names.
func ParseHosts(listen string, extra []string) (hosts Hosts, invalid []string) {
	for _, name := range extra {
		if strings.ContainsAny(name, ":/* ") {
			invalid = append(invalid, name)
			continue
		}
		hosts.names = append(hosts.names, canonicalHost(name))
	}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		hosts.names = append(hosts.names, canonicalHost(host))
	}
	if name, err := os.Hostname(); err == nil {
		hosts.names = append(hosts.names, canonicalHost(name))
	}
	return hosts, invalid
}

// privateSuffixes end the names that clusters and networks assign: nobody can
// register one (RFC 6761, ICANN's .internal, Kubernetes' .svc).
var privateSuffixes = []string{".localhost", ".internal", ".svc", ".cluster.local"}

// allows reports whether a request with that Host header may be answered: an IP
// address, as Prometheus and kubelets use; a name of one label, as in container
// networks; a private name; a listed one. A request without a Host (HTTP/1.0)
// comes from no browser.
func (h Hosts) allows(header string) bool {
	if header == "" {
		return true
	}
	host := header
	if name, _, err := net.SplitHostPort(header); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	host = canonicalHost(host)
	return host != "" && !strings.Contains(host, ".") || slices.Contains(h.names, host) ||
		slices.ContainsFunc(privateSuffixes, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}

func canonicalHost(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

func (h Hosts) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.allows(r.Host) {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "Host name not allowed. Use the listener's IP address, or add the name to GATEHOUSE_OPS_HOSTS.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
