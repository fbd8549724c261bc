package dial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"gatehouse/internal/readposition"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

const (
	// deadlineMargin is subtracted from the deadline of each outgoing call, so that this
	// process has time to report a timeout to its own caller.
	deadlineMargin = 10 * time.Millisecond
	// defaultTimeout is the timeout of a call without a deadline, such as a background
	// job's.
	defaultTimeout = 5 * time.Second
)

// Route configures the calls from one service to another.
type Route struct {
	Caller, Callee string
	Keys           rpc.InternalKeys
	// Telemetry measures and traces the calls; nil disables both.
	Telemetry *telemetry.Telemetry
	// Logger receives changes of the endpoints' health; nil disables them.
	Logger *slog.Logger
	// Persistent is for a caller that retries by itself: each call is made exactly once,
	// even while the circuit breakers are open.
	Persistent bool
}

// Dial returns a client of the service at the URLs, which are separated by commas. Calls use
// HTTP/2, and repeatable calls HTTP/1.1, in clear text for http:// and over TLS for
// https://. The client connects at the first call and reconnects as needed.
//
// A load balancer spreads the calls over all addresses of the URLs' hosts. A call that got
// no response is retried, at another endpoint if there is one, if the method's idempotency
// level and the retry budget allow it. An endpoint that does not respond is ejected.
func Dial(route Route, urls string) (*connect.Client, error) {
	logger := route.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	t, err := newTransport(route.Callee, urls, logger)
	if err != nil {
		return nil, err
	}
	return newHTTPClient(route, t)
}

func newHTTPClient(route Route, t *transport) (*connect.Client, error) {
	transport := connecthttp.NewTransport(
		directClient{t}, t.urls[0].String(),
		connecthttp.WithCompressors(), connecthttp.WithReadMaxBytes(4*rpc.MaxMessageBytes),
	)
	balancer := newLoadBalancer(route.Callee, t.logger, t.endpoints)
	if route.Persistent {
		return newClient(route, transport, balancer.callOnce)
	}
	return newClient(route, transport, (&batcher{balancer: balancer}).batchCalls, balancer.balance)
}

// directClient sends requests without the redirects and cookies of [http.Client]. A redirect
// would send the token to another server.
type directClient struct{ transport *transport }

// Do implements [connecthttp.HTTPClient].
func (c directClient) Do(r *http.Request) (*http.Response, error) {
	response, err := c.transport.RoundTrip(r)
	if err != nil { // connect expects the errors of http.Client
		return nil, &url.Error{Op: "Post", URL: r.URL.Redacted(), Err: err}
	}
	return response, nil
}

func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// InProcess returns a client of a server in the same process, which behaves like a client
// from [Dial]. The transport states the caller, without an internal token.
func InProcess(route Route, server *rpc.Server) (*connect.Client, error) {
	return newInProcess(route, rpc.InProcessTransport(server, inProcessCall(route)))
}

// InProcessLater is [InProcess] for a server that is created after the client. The client
// must not be used before.
func InProcessLater(route Route, server func() *rpc.Server) (*connect.Client, error) {
	return newInProcess(route, lazyTransport(sync.OnceValue(func() connect.Transport {
		return rpc.InProcessTransport(server(), inProcessCall(route))
	})))
}

func newInProcess(route Route, transport connect.Transport) (*connect.Client, error) {
	chain, err := routeInterceptors(route)
	if err != nil {
		return nil, err
	}
	return connect.NewClient(transport, append(chain, leaveBatch, readposition.Send(route.Callee))...), nil
}

func inProcessCall(route Route) rpc.InProcess {
	return rpc.InProcess{Caller: route.Caller, DeadlineMargin: deadlineMargin, DefaultTimeout: defaultTimeout}
}

// lazyTransport returns its transport when the first call is made.
type lazyTransport func() connect.Transport

func (t lazyTransport) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	return t().NewClientStream(ctx, spec)
}

func newClient(route Route, transport connect.Transport, between ...connect.ClientInterceptor) (*connect.Client, error) {
	issuer, err := rpc.NewIssuer(route.Keys, route.Caller, route.Callee)
	if err != nil {
		return nil, err
	}
	chain, err := routeInterceptors(route)
	if err != nil {
		return nil, err
	}
	chain = append(append(chain, propagateDeadline), between...)
	return connect.NewClient(transport, append(chain, readposition.Send(route.Callee), sendIdentity(issuer))...), nil
}

// routeInterceptors returns the interceptors that all transports share.
func routeInterceptors(route Route) ([]connect.ClientInterceptor, error) {
	chain := []connect.ClientInterceptor{noteCallee(route.Callee), recordCall}
	if route.Telemetry != nil {
		measured, err := rpc.MeasureCalls(route.Telemetry)
		if err != nil {
			return nil, err
		}
		chain = append(chain, measured)
	}
	return chain, nil
}

// noteCallee reports the called service to the call in whose context it is made.
func noteCallee(service string) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if note := rpc.CallFrom(ctx).OnCallee; note != nil {
				note(service)
			}
			return next(ctx, spec)
		}
	}
}

// sendIdentity adds the internal token and the request ID.
func sendIdentity(issuer *rpc.Issuer) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			token, err := issuer.Token()
			if err != nil {
				return nil, fmt.Errorf("issue an internal token: %w", err)
			}
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+token)
			if id := rpc.CallFrom(ctx).RequestID; id != "" {
				info.RequestHeader().Set(rpc.RequestIDHeader, id)
			}
			return next(ctx, spec)
		}
	}
}

// propagateDeadline shortens the deadline by [deadlineMargin], and does not make a call
// whose deadline has passed.
func propagateDeadline(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec)
		}
		deadline, ok := ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(defaultTimeout)
		} else {
			deadline = deadline.Add(-deadlineMargin)
		}
		ctx, cancel := context.WithDeadline(ctx, deadline)
		if err := ctx.Err(); err != nil {
			cancel()
			return nil, rpc.ContextError(err)
		}
		stream, err := next(ctx, spec)
		if err != nil {
			cancel()
			return nil, err
		}
		return &deadlineStream{ClientStream: stream, cancel: cancel}, nil
	}
}

// deadlineStream releases the timer of its deadline when the call ends.
type deadlineStream struct {
	connect.ClientStream
	cancel context.CancelFunc
}

func (s *deadlineStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	if errors.Is(err, io.EOF) {
		s.cancel()
	}
	return err
}

func (s *deadlineStream) Close() error {
	err := s.ClientStream.Close()
	s.cancel()
	return err
}
