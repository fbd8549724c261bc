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

// UpstreamRoute says how the gateway calls a service that is not of this system.
type UpstreamRoute struct {
	// Name is the upstream's in logs and metrics.
	Name string
	// URLs are those of its copies, separated by commas.
	URLs string
	// GRPC says that it speaks gRPC instead of the Connect protocol.
	GRPC bool
	// HTTP is the version of HTTP that it speaks: "1.1" or "2"; anything else finds
	// out with the first call of each copy.
	HTTP string
	// Token returns the token that tells it who is calling.
	Token func(context.Context) (string, error)
	// Telemetry measures and traces each call; nil does neither.
	Telemetry *telemetry.Telemetry
	// Logger gets a line when a copy is ejected or its circuit breaker opens, and when
	// it is healthy again.
	Logger *slog.Logger
}

// DialUpstream returns a client of an upstream. Its calls are balanced, retried, hedged
// and broken off as those of [Dial] are. They carry the token, the request id and the
// trace, and no other header of the call that they are made for.
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
	chain := []connect.ClientInterceptor{noteCallee(route.Name), leaveBatch}
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

// sendToken sends a token and the request id.
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
