package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/serve"
	"gatehouse/internal/unary"
)

// Mux serves a server's methods, and pages. Each page declares its access, as each method
// does in its schema, so that the mux serves no path without a policy.
type Mux struct {
	server  *Server
	mux     *http.ServeMux
	pages   []Page
	mounted []string                // the patterns of the methods and their services
	methods map[string]http.Handler // by procedure
	streams map[string]bool         // the paths of streams
	// NotFound may respond to a request for a path that nothing serves, and reports whether
	// it did; nil for never.
	NotFound func(w http.ResponseWriter, r *http.Request) bool
	// frontend serves what is below prefix; nil for none.
	frontend http.Handler
	prefix   string
}

// Page is a path that a mux serves in addition to the methods.
type Page struct {
	// Pattern is as in [http.ServeMux], such as "GET /livez".
	Pattern string
	// Access declares who may request it.
	Access *policyv1.Access
}

// Mux returns a mux that serves the services over Connect, gRPC and gRPC-Web, gRPC
// reflection and health, and /livez and /readyz. ready returns an error while the server
// is not ready.
func (s *Server) Mux(ready func() error) *Mux {
	mux := &Mux{server: s, mux: http.NewServeMux(), methods: map[string]http.Handler{}, streams: map[string]bool{}}
	connecthttp.Mount(methodMux{Mux: mux, of: s}, s.rpc, s.options...)

	limit := connectv1.WithReadMaxBytes(MaxMessageBytes)
	reflector := newReflector(s)
	for _, newHandler := range []func(*grpcreflect.Reflector, ...connectv1.HandlerOption) (string, http.Handler){
		grpcreflect.NewHandlerV1, grpcreflect.NewHandlerV1Alpha,
	} {
		path, handler := newHandler(reflector, limit)
		mux.Handle(path, policy.Anyone(), serve.UntilStop(interruptReads(handler)))
	}
	path, handler := grpchealth.NewHandler(health{services: s.Services(), ready: ready}, limit)
	mux.Handle(path, policy.Anyone(), handler)
	mux.Handle("GET /livez", policy.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok\n")
	}))
	mux.Handle("GET /readyz", policy.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := ready()
		if serve.Stopping(r.Context()) {
			err = serve.ErrStopping
		}
		if err != nil {
			// Readiness errors are written for operators and contain no secret.
			writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
		writeText(w, http.StatusOK, "ok\n")
	}))
	return mux
}

// Join serves the methods of another server too, for callers of another kind. They are
// not among Methods, and neither reflection nor a [Frontend] knows them. All of them end
// when the HTTP server stops, as streams do.
func (m *Mux) Join(s *Server) {
	connecthttp.Mount(methodMux{Mux: m, of: s, untilStop: true}, s.rpc, s.options...)
}

// HandlePrefix sends each request below a prefix, such as "/api/", to a [Frontend]'s
// handler, which makes its calls at the paths of the methods.
func (m *Mux) HandlePrefix(prefix string, frontend http.Handler) {
	m.prefix, m.frontend = prefix, frontend
}

// StreamsAt declares a path at which a [Frontend] serves a stream.
func (m *Mux) StreamsAt(path string) { m.streams[path] = true }

// Streams implements [serve.Streamer]: a stream may continue after its method has
// returned (package continuation).
func (m *Mux) Streams(r *http.Request) bool { return m.streams[r.URL.Path] }

// Methods returns the policies of the methods that the mux serves.
func (m *Mux) Methods() []*policy.Method { return m.server.Methods() }

// Handle registers a page. Like [http.ServeMux], it panics if the pattern is already
// registered. It also panics if the access is not for anyone, because the mux
// authenticates no callers.
func (m *Mux) Handle(pattern string, access *policyv1.Access, handler http.Handler) {
	if access.GetAnyone() == nil {
		panic(fmt.Sprintf("rpc: %s: a page must be for anyone", pattern))
	}
	m.mux.Handle(pattern, handler)
	m.pages = append(m.pages, Page{Pattern: pattern, Access: access})
}

// Pages returns the pages, sorted by path.
func (m *Mux) Pages() []Page {
	return slices.SortedFunc(slices.Values(m.pages), func(a, b Page) int { return strings.Compare(pagePath(a), pagePath(b)) })
}

func pagePath(page Page) string { return page.Pattern[strings.Index(page.Pattern, "/"):] }

// Patterns returns all patterns that the mux serves: the pages, and the methods and
// services as Connect mounts them.
func (m *Mux) Patterns() []string {
	patterns := slices.Clone(m.mounted)
	for _, page := range m.pages {
		patterns = append(patterns, page.Pattern)
	}
	return patterns
}

// ServeHTTP implements [http.Handler].
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.belowPrefix(r.URL.Path) { // before the mux, which redirects paths that are not clean
		m.frontend.ServeHTTP(w, r)
		return
	}
	if handler := m.methods[r.URL.Path]; handler != nil { // exact match: faster than the mux
		handler.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodPost && isRPC(r) && procedureForm.MatchString(r.URL.Path) {
		// Report an unknown method in the caller's protocol.
		if _, pattern := m.mux.Handler(r); pattern == "" {
			m.server.refuse(w, r, &Refusal{err: errUnknownMethod, status: http.StatusNotFound})
			return
		}
	}
	if handler, pattern := m.mux.Handler(r); pattern == "" {
		m.refuseUnknown(w, r, handler)
		return
	}
	m.mux.ServeHTTP(w, r)
}

func (m *Mux) belowPrefix(path string) bool {
	if m.frontend == nil {
		return false
	}
	below, ok := strings.CutPrefix(path, m.prefix[:len(m.prefix)-1])
	return ok && (below == "" || below[0] == '/')
}

// refuseUnknown responds to a request that matches no pattern. The mux's own handler
// determines whether the path supports other HTTP methods.
func (m *Mux) refuseUnknown(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	answer := &discardWriter{header: http.Header{}}
	handler.ServeHTTP(answer, r)
	allow := ""
	if answer.status == http.StatusMethodNotAllowed {
		allow = answer.header.Get("Allow")
	}
	if allow == "" && m.NotFound != nil && m.NotFound(w, r) {
		return
	}
	m.RefusePath(w, r, allow)
}

var (
	errUnknownPath = fault.New(connect.CodeNotFound, "PATH_UNKNOWN", "There is nothing at this path.")
	errPathMethod  = fault.New(connect.CodeUnimplemented, "HTTP_METHOD_UNSUPPORTED",
		"This path does not support this HTTP method. The Allow header lists those that it supports.")
)

// RefusePath responds to a request for an unknown path or, if allow lists HTTP methods,
// for a path that does not support the HTTP method of the request.
func (m *Mux) RefusePath(w http.ResponseWriter, r *http.Request, allow string) {
	no := &Refusal{err: errUnknownPath, status: http.StatusNotFound}
	if allow != "" {
		no = &Refusal{err: errPathMethod, status: http.StatusMethodNotAllowed, allow: allow}
	}
	m.server.refuse(w, inJSON(r), no)
}

// Refuse responds to a request that cannot be converted to a call.
func (m *Mux) Refuse(w http.ResponseWriter, r *http.Request, no *Refusal) { m.server.refuse(w, r, no) }

// discardWriter keeps the header of a response, and discards its body.
type discardWriter struct {
	header http.Header
	status int
}

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *discardWriter) WriteHeader(status int)      { w.status = status }

// methodMux mounts the methods of a server. Streams have time limits of their own.
type methodMux struct {
	*Mux
	of        *Server
	untilStop bool
}

func (m methodMux) Handle(pattern string, handler http.Handler) {
	if p := m.of.methods[pattern]; p != nil {
		if !p.Streams() {
			handler = m.of.unaryHandler(pattern, handler)
		}
		switch {
		case p.Streams():
			m.streams[pattern] = !p.ClientStreams()
			handler = continueStreams(m.of.logger, serve.UntilStop(limitStream(p, handler)))
		case m.untilStop:
			handler = serve.UntilStop(handler)
		}
		handler = m.of.checkRequests(p, handler)
		m.methods[pattern] = handler
	}
	m.mux.Handle(pattern, handler)
	m.mounted = append(m.mounted, pattern)
}

// unaryHandler returns the handler of a unary method. connects is connect's own.
func (s *Server) unaryHandler(procedure string, connects http.Handler) http.Handler {
	i := slices.IndexFunc(s.registered, func(m connect.Method) bool { return m.Spec.Procedure == procedure })
	return &unary.Handler{
		Server: s.rpc, Spec: s.registered[i].Spec, Proto: connectproto.NewBinaryCodec(), JSON: newJSONCodec(),
		MaxBytes: MaxMessageBytes, CompressMinBytes: s.compressMinBytes, Other: connects,
	}
}

// interruptReads interrupts the reading of a request's body when the request's context
// ends, for example because the server stops.
func interruptReads(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		woken := make(chan struct{})
		stop := context.AfterFunc(r.Context(), func() {
			defer close(woken)
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		})
		defer func() {
			if !stop() {
				<-woken // w must not be used after this returns
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// health answers grpc.health.v1 from the same readiness as /readyz.
type health struct {
	services []string
	ready    func() error
}

func (h health) Check(ctx context.Context, request *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if request.Service != "" && !slices.Contains(h.services, request.Service) {
		return nil, connectv1.NewError(connectv1.CodeNotFound, errors.New("unknown service"))
	}
	if serve.Stopping(ctx) || h.ready() != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
