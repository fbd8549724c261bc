package dial

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"testing"

	"connectrpc.com/connect/v2"
)

// BalanceOne returns the load balancer of a service with one endpoint.
func BalanceOne(service string, logger *slog.Logger) connect.ClientInterceptor {
	return Balance(service, logger, 1, nil)
}

// Balance returns the load balancer of a service with count endpoints, which the
// test pings with ping.
func Balance(service string, logger *slog.Logger, count int, ping func(ctx context.Context, endpoint int) error) connect.ClientInterceptor {
	endpoints := make([]*endpoint, count)
	for i := range endpoints {
		endpoints[i] = newEndpoint(service, strconv.Itoa(i), logger)
		endpoints[i].ping = func(ctx context.Context) error { return ping(ctx, i) }
	}
	return newLoadBalancer(service, logger, func(context.Context) ([]*endpoint, error) { return endpoints, nil }).balance
}

// EndpointOf returns the index of the endpoint of an attempt.
func EndpointOf(ctx context.Context) int {
	i, _ := strconv.Atoi(placementFrom(ctx).endpoint().address)
	return i
}

// NewDialError returns the error of a dial that timed out or was refused.
func NewDialError(timedOut bool) error {
	failure := &dialError{text: "no connection", timedOut: timedOut}
	return connect.NewError(connect.CodeUnavailable, failure.Error()).WithCause(failure)
}

// DialWith is Dial with another lookup function.
func DialWith(t testing.TB, route Route, urls string, lookup func(context.Context, string) ([]netip.Addr, error)) *connect.Client {
	t.Helper()
	transport, err := newTransport(route.Callee, urls, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	transport.lookup = lookup
	client, err := newHTTPClient(route, transport)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
