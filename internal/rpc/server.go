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

// MaxMessageBytes limits a request's body and each decompressed message.
const MaxMessageBytes = serve.MaxBodyBytes

// DefaultLimit is the time limit of a call if neither the method nor the server sets one.
const DefaultLimit = 10 * time.Second

// ServerConfig configures a server.
type ServerConfig struct {
	// Logger receives one line for each call.
	Logger *slog.Logger
	// Level is the log level of a call that succeeds, or fails by the caller's mistake.
	Level slog.Level
	// ClientIP returns the client's address for the log, from the peer's address and the
	// X-Forwarded-For headers. If nil, the log has the peer's address.
	ClientIP func(peer string, forwarded []string) string
	// Authorizer authenticates and authorizes callers.
	Authorizer Authorizer
	// Limit is the time limit of a unary call whose method has none; DefaultLimit if zero.
	Limit time.Duration
	// Policy tightens time limits and rates. It has one entry for each method, separated
	// by line breaks or semicolons, such as
	// "bff.v1.AuthService/Login limit=2s rate=5/m burst=5".
	Policy string
	// CacheTags are tags of methods' cache entries that the schema does not declare.
	CacheTags []policy.CacheTag
	// IsUnavailable reports whether an error of a method means that a dependency, such as
	// its database, is unavailable. The caller then receives unavailable. If nil, only
	// network errors count.
	IsUnavailable func(error) bool
	// Telemetry measures and traces each call. If nil, calls are neither measured nor
	// traced.
	Telemetry *telemetry.Telemetry
	// Internal declares that the callers are services of this system: the server continues
	// their traces, and serves methods without side effects in batches.
	Internal bool
	// CompressMinBytes is the size from which the server compresses responses for clients
	// that accept it. Zero disables compression, which suits calls between services.
	CompressMinBytes int
	Interceptors
}

// Server is a set of RPC services with their interceptors.
type Server struct {
	rpc *connect.Server
	// registered and unknown are the handlers of rpc, for the in-process transport.
	registered []connect.Method
	unknown    connect.ServerFunc
	policies   []*policy.Method
	options    []connecthttp.Option
	methods    map[string]*policy.Method // by procedure
	logger     *slog.Logger
	level      slog.Level
	// clientIP is ServerConfig.ClientIP.
	clientIP func(peer string, forwarded []string) string
	measured bool // it has telemetry
	// compressMinBytes is ServerConfig.CompressMinBytes.
	compressMinBytes int
}

// NewServer builds a server of the services that register registers. It returns an error
// if a method's policy does not declare who may call it, or cannot be enforced.
func NewServer(config ServerConfig, register func(*connect.Server)) (*Server, error) {
	if config.Limit == 0 {
		config.Limit = DefaultLimit
	}
	if config.ClientIP == nil {
		config.ClientIP = peerIP
	}
	// Each method has its own chain of the interceptors that its policy needs, so that a
	// call needs no lookup. Collect the methods first: the interceptor is called for each
	// method at registration, in the order of Specs.
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
	policies, err := policy.Compile(specs, config.Limit, config.Policy, config.CacheTags...)
	if err != nil {
		return nil, err
	}
	server := &Server{rpc: connect.NewServer(), policies: policies, methods: map[string]*policy.Method{}, logger: config.Logger, level: config.Level, clientIP: config.ClientIP, compressMinBytes: config.CompressMinBytes, measured: config.Telemetry != nil, options: []connecthttp.Option{
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

// Methods returns the policies of the methods that the server serves.
func (s *Server) Methods() []*policy.Method { return s.policies }

// Serves reports whether a procedure is a method of the server.
func (s *Server) Serves(procedure string) bool { return s.methods[procedure] != nil }

// Services returns the full names of the server's services, sorted.
func (s *Server) Services() []string {
	var names []string
	for _, p := range s.policies {
		names = append(names, string(p.Descriptor.Parent().FullName()))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
