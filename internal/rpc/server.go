package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"connectrpc.com/validate"

	"gatehouse/internal/telemetry"
)

// MaxMessageBytes bounds a request's body and each message, decompressed.
const MaxMessageBytes = 1 << 20

// DefaultLimit is how long a call may take when nothing says otherwise.
const DefaultLimit = 10 * time.Second

// ServerConfig says how a server behaves.
type ServerConfig struct {
	// Logger gets one line for each call.
	Logger *slog.Logger
	// Level is that of a call that went well or that its caller got wrong.
	Level slog.Level
	// Authorizer admits callers.
	Authorizer Authorizer
	// Limit is the longest that a unary call may take; DefaultLimit if zero.
	Limit time.Duration
	// Telemetry measures and traces each call; nil does neither.
	Telemetry *telemetry.Telemetry
	// Internal says that callers are services of ours, whose traces go on here.
	Internal bool
	// CompressMinBytes is the size from which answers are compressed for those
	// who accept it; zero never compresses, as suits calls between services.
	CompressMinBytes int
}

// Server is a set of RPC services with everything around them.
type Server struct {
	rpc      *connect.Server
	policies Policies
	options  []connecthttp.Option
}

// NewServer builds a server of what register registers. It returns an error
// when a method's schema doesn't say who may call it.
func NewServer(config ServerConfig, register func(*connect.Server)) (*Server, error) {
	if config.Limit == 0 {
		config.Limit = DefaultLimit
	}
	// The interceptors want the policies of methods that are registered with
	// the interceptors, so the methods are first collected.
	survey := connect.NewServer()
	register(survey)
	policies, err := PoliciesOf(survey)
	if err != nil {
		return nil, err
	}
	authorize, err := config.Authorizer(policies)
	if err != nil {
		return nil, fmt.Errorf("enforce the policies: %w", err)
	}
	server := &Server{policies: policies, options: []connecthttp.Option{connecthttp.WithReadMaxBytes(MaxMessageBytes)}}
	if config.CompressMinBytes > 0 {
		server.options = append(server.options, connecthttp.WithCompressMinBytes(config.CompressMinBytes))
	} else {
		server.options = append(server.options, connecthttp.WithCompressors())
	}
	var outermost []connect.ServerInterceptor
	if config.Telemetry != nil {
		measured, err := served(config.Telemetry, policies, config.Internal)
		if err != nil {
			return nil, err
		}
		outermost = append(outermost, measured)
	}
	server.rpc = connect.NewServer(append(outermost,
		answered(config.Logger, config.Level),
		bounded(config.Limit),
		unshared,
		known(policies),
		// The validator looks at a message once it is received, the authorizer
		// at the headers before, and at what the message says after.
		validate.NewServerInterceptor(),
		authorize,
	)...)
	register(server.rpc)
	// Without one of our own, the answer would pass the interceptors by.
	server.rpc.SetUnknownHandler(func(context.Context, connect.Spec, connect.ServerStream) error {
		return connect.NewError(connect.CodeUnimplemented, "")
	})
	return server, nil
}

// known refuses methods that nobody registered before anything asks for their
// policy.
func known(policies Policies) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if policies[spec.Procedure] == nil {
				return connect.NewError(connect.CodeUnimplemented, "")
			}
			return next(ctx, spec, stream)
		}
	}
}

// Policies returns what the schema says of each method that it serves.
func (s *Server) Policies() Policies { return s.policies }

// Services returns the full names of the services that it serves, sorted.
func (s *Server) Services() []string {
	var names []string
	for procedure := range s.policies {
		name, _, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Mux returns a mux that serves the services over Connect, gRPC and gRPC-Web,
// with gRPC reflection and health beside them, and /livez and /readyz. ready
// tells what keeps the server from doing its own part; nil when it can.
func (s *Server) Mux(ready func() error) *http.ServeMux {
	mux := http.NewServeMux()
	connecthttp.Mount(methodMux{ServeMux: mux, streams: s.streams()}, s.rpc, s.options...)

	limit := connectv1.WithReadMaxBytes(MaxMessageBytes)
	reflector := grpcreflect.NewStaticReflector(append(s.Services(), grpchealth.HealthV1ServiceName)...)
	for _, newHandler := range []func(*grpcreflect.Reflector, ...connectv1.HandlerOption) (string, http.Handler){
		grpcreflect.NewHandlerV1, grpcreflect.NewHandlerV1Alpha,
	} {
		path, handler := newHandler(reflector, limit)
		mux.Handle(path, interruptible(handler))
	}
	mux.Handle(grpchealth.NewHandler(health{services: s.Services(), ready: ready}, limit))

	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			// The reasons are ours, written for operators; they hold no secret.
			writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
		writeText(w, http.StatusOK, "ok\n")
	})
	return mux
}

// streams are the procedures whose answers have no end of their own.
func (s *Server) streams() map[string]bool {
	streams := map[string]bool{}
	for spec := range s.rpc.Specs() {
		streams[spec.Procedure] = spec.StreamType != connect.StreamTypeUnary
	}
	return streams
}

// methodMux mounts methods. Streams are without the server's time limits, which
// would cut them off in the middle.
type methodMux struct {
	*http.ServeMux
	streams map[string]bool
}

func (m methodMux) Handle(pattern string, handler http.Handler) {
	if m.streams[pattern] {
		handler = unlimited(handler)
	}
	m.ServeMux.Handle(pattern, typed(handler))
}

var errContentType = NewError(connect.CodeInvalidArgument, "CONTENT_TYPE_UNSUPPORTED",
	"Say what you send: add the header Content-Type: application/json.")

// typed refuses a body of a type that no protocol of ours has, such as curl's
// own, in words; connect says nothing but 415.
func typed(next http.Handler) http.Handler {
	refusal := connecthttp.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
		kind = strings.ToLower(strings.TrimSpace(kind))
		known := kind == "application/json" || kind == "application/proto" ||
			strings.HasPrefix(kind, "application/connect+") || strings.HasPrefix(kind, "application/grpc")
		if r.Method != http.MethodPost || known {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Accept-Post", "application/json, application/proto")
		_ = refusal.Write(statusWriter{ResponseWriter: w, status: http.StatusUnsupportedMediaType}, r, errContentType)
	})
}

// statusWriter answers with a status of its own.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w statusWriter) WriteHeader(int) { w.ResponseWriter.WriteHeader(w.status) }

func unlimited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
		next.ServeHTTP(w, r)
	})
}

// interruptible wakes a handler that waits for more of its request when the
// request's context ends, as it does when the server stops.
func interruptible(next http.Handler) http.Handler {
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

func (h health) Check(_ context.Context, request *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if request.Service != "" && !slices.Contains(h.services, request.Service) {
		return nil, connectv1.NewError(connectv1.CodeNotFound, errors.New("unknown service"))
	}
	if h.ready() != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
