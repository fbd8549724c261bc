package shed

import (
	"net/http"
	"strings"
)

// RefuseEarly refuses calls that their queue would refuse immediately, before any other
// work. It leaves calls of other protocols than Connect, and calls that the cache may
// answer, to the queue.
func (s *Shedder) RefuseEarly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := s.methods[r.URL.Path]
		if m == nil || !isConnectUnary(r) || m.mayBeCached() {
			next.ServeHTTP(w, r)
			return
		}
		class := m.class.Load()
		if !class.Queue.Overloaded() && !(m.plan.Sheddable && s.pressed(class.needs)) {
			next.ServeHTTP(w, r)
			return
		}
		reason := class.Queue.TurnAway(r.Context(), m.call(class, s.config.RequestFlow(r)))
		if reason == "" {
			next.ServeHTTP(w, r)
			return
		}
		m.count(class, reason)
		s.refusal.write(w)
	})
}

// isConnectUnary reports whether a request is a unary call of the Connect protocol.
func isConnectUnary(r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	kind := r.Header.Get("Content-Type")
	return strings.HasPrefix(kind, "application/json") || strings.HasPrefix(kind, "application/proto")
}
