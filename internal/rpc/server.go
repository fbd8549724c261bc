package rpc

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	batchv1 "gatehouse/gen/batch/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
)

// MaxMessageBytes bounds a request's body and each message, decompressed.
const MaxMessageBytes = serve.MaxBodyBytes

// DefaultLimit is how long a call may take when nothing says otherwise.
const DefaultLimit = 10 * time.Second

// ServerConfig says how a server behaves.
type ServerConfig struct {
	// Logger gets one line for each call.
	Logger *slog.Logger
	// Level is that of a call that went well or that its caller got wrong.
	Level slog.Level
	// ClientIP is the address in the log of who calls from peer, with those headers
	// X-Forwarded-For; the peer's if nil.
	ClientIP func(peer string, forwarded []string) string
	// Authorizer admits callers.
	Authorizer Authorizer
	// Limit is the longest that a unary call may take whose method doesn't say;
	// DefaultLimit if zero.
	Limit time.Duration
	// Policy tightens time limits and rates: a line or what stands between two
	// semicolons for each method, such as
	// "bff.v1.AuthService/Login limit=2s rate=5/m burst=5".
	Policy string
	// IsUnavailable reports whether an error of a method means that something it needs,
	// such as its database, could not be reached or could not serve: the caller gets
	// unavailable. Nil means network errors.
	IsUnavailable func(error) bool
	// Telemetry measures and traces each call; nil does neither.
	Telemetry *telemetry.Telemetry
	// Internal says that callers are services of ours, whose traces go on here, and
	// that they may call methods without side effects in batches.
	Internal bool
	// CompressMinBytes is the size from which answers are compressed for those
	// who accept it; zero never compresses, as suits calls between services.
	CompressMinBytes int
	Interceptors
}

// Server is a set of RPC services with everything around them.
type Server struct {
	rpc *connect.Server
	// registered and unknown are what rpc serves, for the in-process transport.
	registered []connect.Method
	unknown    connect.ServerFunc
	policies   []*policy.Method
	options    []connecthttp.Option
	methods    map[string]*policy.Method // by procedure
	logger     *slog.Logger
	level      slog.Level
	// clientIP is as ServerConfig says.
	clientIP func(peer string, forwarded []string) string
	measured bool // it has telemetry
}

// NewServer builds a server of the services that register registers. It returns an
// error when a method's policy does not declare who may call it, or cannot be enforced.
func NewServer(config ServerConfig, register func(*connect.Server)) (*Server, error) {
	if config.Limit == 0 {
		config.Limit = DefaultLimit
	}
	if config.ClientIP == nil {
		config.ClientIP = peerIP
	}
	// Each method has its own chain of the interceptors that its policy needs, so that
	// a call needs no lookup. The methods are collected first: an interceptor sees them
	// as they are registered, in the order of Specs.
	var methods []connect.ServerFunc
	survey := connect.NewServer(func(method connect.ServerFunc) connect.ServerFunc {
		methods = append(methods, method)
		return method
	})
	register(survey)
	batches := &batchService{}
	if config.Internal {
		batchv1.RegisterBatchServiceHandler(survey, batches)
	}
	specs := slices.Collect(survey.Specs())
	policies, err := policy.Compile(specs, config.Limit, config.Policy)
	if err != nil {
		return nil, err
	}
	server := &Server{rpc: connect.NewServer(), policies: policies, methods: map[string]*policy.Method{}, logger: config.Logger, level: config.Level, clientIP: config.ClientIP, measured: config.Telemetry != nil, options: []connecthttp.Option{
		connecthttp.WithReadMaxBytes(MaxMessageBytes), connecthttp.WithCodecs(connectproto.NewBinaryCodec(), newJSONCodec()),
	}}
	batches.server = server
	if config.CompressMinBytes > 0 {
		server.options = append(server.options, connecthttp.WithCompressMinBytes(config.CompressMinBytes))
	} else {
		server.options = append(server.options, connecthttp.WithCompressors())
	}
	other := passThrough
	if config.Telemetry != nil {
		var measured connect.ServerInterceptor
		if measured, other, err = measureServer(config.Telemetry, config.Internal); err != nil {
			return nil, err
		}
		config.Trace = func(*policy.Method) (connect.ServerInterceptor, error) { return measured, nil }
	}
	for i, p := range policies {
		handler, err := chain(&config, p, methods[i])
		if err != nil {
			return nil, err
		}
		server.methods[p.Procedure] = p
		server.registered = append(server.registered, connect.Method{Spec: specs[i], Handler: handler})
	}
	server.rpc.Register(server.registered...)
	unknown := logAndMapErrors(callLog{config.Logger, config.Level, config.ClientIP, config.IsUnavailable}, nil)
	server.unknown = other(unknown(func(context.Context, connect.Spec, connect.ServerStream) error {
		return connect.NewError(connect.CodeUnimplemented, "")
	}))
	server.rpc.SetUnknownHandler(server.unknown)
	return server, nil
}

// Methods returns the policies of the methods that it serves.
func (s *Server) Methods() []*policy.Method { return s.policies }

// Serves reports whether a procedure is one of its methods.
func (s *Server) Serves(procedure string) bool { return s.methods[procedure] != nil }

// Services returns the full names of the services that it serves, sorted.
func (s *Server) Services() []string {
	var names []string
	for _, p := range s.policies {
		names = append(names, string(p.Descriptor.Parent().FullName()))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
