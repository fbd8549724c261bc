package bff

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/uuid"

	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// preparedRefusal is an answer of the Connect protocol that is written once, at
// the start: a refusal must cost next to nothing when there is too much to do.
type preparedRefusal struct {
	header http.Header
	status int
	body   []byte
}

func prepareRefusal(err *connect.Error) preparedRefusal {
	written := &writtenAnswer{header: http.Header{}}
	request := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}}
	_ = connecthttp.NewErrorWriter().Write(written, request, err) // a buffer takes everything
	if after, ok := fault.RetryDelay(err); ok {
		written.header.Set("Retry-After", strconv.Itoa(int(seconds(after))))
	}
	return preparedRefusal{header: written.header, status: written.status, body: written.body.Bytes()}
}

func (p *preparedRefusal) write(w http.ResponseWriter) {
	header := w.Header()
	for name, values := range p.header {
		header[name] = values
	}
	if header.Get("X-Request-Id") == "" {
		header["X-Request-Id"] = []string{uuid.NewString()}
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(p.body)
}

type writtenAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *writtenAnswer) Header() http.Header            { return w.header }
func (w *writtenAnswer) WriteHeader(status int)         { w.status = status }
func (w *writtenAnswer) Write(data []byte) (int, error) { return w.body.Write(data) }

// turnAway answers calls that their queue would refuse at once, before anything
// else is done for them. Calls that speak another protocol than Connect, and those
// that a cache may answer, are refused by the queue itself.
func (s *Service) shedEarly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := s.shedder.methods[r.URL.Path]
		if m == nil || !isConnectUnary(r) || s.mayBeCached(m.plan) {
			next.ServeHTTP(w, r)
			return
		}
		class := m.class.Load()
		if !class.queue.Overloaded() && !(m.plan.Sheddable && s.shedder.pressed(class.needs)) {
			next.ServeHTTP(w, r)
			return
		}
		reason := class.queue.TurnAway(r.Context(), m.call(class, s.requestFlow(r)))
		if reason == "" {
			next.ServeHTTP(w, r)
			return
		}
		m.count(class, reason)
		s.shedder.refusal.write(w)
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

func (s *Service) mayBeCached(plan *policy.Method) bool {
	if plan.Cache == nil {
		return false
	}
	kinds := make([]string, 0, 4)
	for _, tag := range plan.Cache.Tags {
		kinds = append(kinds, tag.Kind())
	}
	return s.cache.Usable(kinds)
}

// requestFlow is who a request counts for, as far as that is known without a
// check: the principal of a token that was verified before, else the address.
func (s *Service) requestFlow(r *http.Request) limit.Flow {
	if token, ok := rpc.BearerToken(r.Header.Get("Authorization")); ok {
		if who := s.verifier.remembered(token); who != nil {
			return limit.Flow{Subject: who.userID}
		}
	}
	return flowOf(s.proxies.addressOfRequest(r))
}
