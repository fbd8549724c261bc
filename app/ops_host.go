package app

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// The operators' listener asks nobody who they are: it relies on who reaches it.
// A browser reaches it too, and a page whose host name its owner points at that
// address (DNS rebinding) could read what it says. Such a request has the page's
// host name in its Host header, so only names that no stranger can own are
// answered.

// opsHosts decides which Host headers the operators' listener answers.
type opsHosts struct{ names []string }

// parseOpsHosts returns the hosts of a listener at listen: those that extra
// lists, the listener's own, and this machine's.
func parseOpsHosts(m *mistakes, listen, extra string) opsHosts {
	var hosts opsHosts
	for _, name := range list(extra) {
		if strings.ContainsAny(name, ":/* ") {
			m.add("GATEHOUSE_OPS_HOSTS", fmt.Sprintf("%q is not a host name", name), "give names such as metrics.example.com, without scheme and port")
			continue
		}
		hosts.names = append(hosts.names, plainHost(name))
	}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		hosts.names = append(hosts.names, plainHost(host))
	}
	if name, err := os.Hostname(); err == nil {
		hosts.names = append(hosts.names, plainHost(name))
	}
	return hosts
}

// privateSuffixes end the names that clusters and networks give by themselves:
// nobody can register one (RFC 6761, ICANN's .internal, Kubernetes' .svc).
var privateSuffixes = []string{".localhost", ".internal", ".svc", ".cluster.local"}

// allows reports whether a request with that Host header may be answered: an IP
// address, as Prometheus and kubelets use; a name of one label, as container
// networks give; a private name; a listed one. A request without a Host
// (HTTP/1.0) comes from no browser.
func (h opsHosts) allows(header string) bool {
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
	host = plainHost(host)
	return host != "" && !strings.Contains(host, ".") || slices.Contains(h.names, host) ||
		slices.ContainsFunc(privateSuffixes, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}

func plainHost(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

func (h opsHosts) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.allows(r.Host) {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "This host name is not one of the operators' listener. Use its IP address, or list the name in GATEHOUSE_OPS_HOSTS.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
