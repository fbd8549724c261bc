package dial

import (
	"context"
	"log/slog"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

// UpstreamRoute configures the calls to an upstream, a service of the application.
type UpstreamRoute struct {
	// Name is the upstream's name in logs and metrics.
	Name string
	// URLs are separated by commas.
	URLs string
	// GRPC selects gRPC instead of the Connect protocol.
	GRPC bool
	// HTTP is its version of HTTP: "1.1" or "2". With any other value, the first call to each
	// endpoint detects it.
	HTTP string
	// Token returns the identity token of the caller.
	Token func(context.Context) (string, error)
	// Telemetry measures and traces the calls; nil disables both.
	Telemetry *telemetry.Telemetry
	// Logger receives changes of the endpoints' health.
	Logger *slog.Logger
}

// DialUpstream returns a client of an upstream, with the load balancer, retries, hedges and
// circuit breakers of [Dial]. Its calls carry the token, the request ID and the trace, and no
// other header of the incoming call.
func DialUpstream(route UpstreamRoute) (*connect.Client, error) {
	t, err := newTransport(route.Name, route.URLs, route.Logger)
	if err != nil {
		return nil, err
	}
	t.version = versionOf(route)
	options := []connecthttp.Option{
		connecthttp.WithCompressors(), connecthttp.WithReadMaxBytes(4 * rpc.MaxMessageBytes), connecthttp.WithCodecs(connectproto.NewBinaryCodec()),
	}
	if route.GRPC {
		options = append(options, connecthttp.WithGRPC())
	}
	transport := connecthttp.NewTransport(directClient{t}, t.urls[0].String(), options...)
	chain := []connect.ClientInterceptor{noteCallee(route.Name), recordCall, leaveBatch}
	if route.Telemetry != nil {
		measured, err := rpc.MeasureCalls(route.Telemetry)
		if err != nil {
			return nil, err
		}
		chain = append(chain, measured)
	}
	balancer := newLoadBalancer(route.Name, t.logger, t.endpoints)
	return connect.NewClient(transport, append(chain, propagateDeadline, balancer.balance, sendToken(route.Token))...), nil
}

// sendToken adds a token and the request ID.
func sendToken(token func(context.Context) (string, error)) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			text, err := token(ctx)
			if err != nil {
				return nil, err
			}
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+text)
			if id := rpc.CallFrom(ctx).RequestID; id != "" {
				info.RequestHeader().Set(rpc.RequestIDHeader, id)
			}
			return next(ctx, spec)
		}
	}
}
