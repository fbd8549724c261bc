// Package readposition carries the positions at which a service may answer a read from a
// standby of its database: from the gateway, which knows them from the services' change
// feeds, in a header to the service.
//
// A position is a text that only the service understands. The gateway sends one with the
// calls whose answers it may cache, and no other call has one. A service trusts it
// because only other services can call it; nothing of a caller's headers reaches it.
package readposition

import (
	"context"

	"connectrpc.com/connect/v2"
)

// Header is the header of a call between services. The position is that of the callee.
const Header = "X-Gatehouse-Read-Position"

// Positions are those of services, by their names.
type Positions map[string]string

type key struct{}

// With returns a context whose calls have the positions, and no others.
func With(ctx context.Context, positions Positions) context.Context {
	if len(positions) == 0 && ctx.Value(key{}) == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, positions)
}

// For returns the position that calls of a service have; empty for none.
func For(ctx context.Context, service string) string {
	positions, _ := ctx.Value(key{}).(Positions)
	return positions[service]
}

// Send is a client interceptor that adds the header to calls of a service.
func Send(service string) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if position := For(ctx, service); position != "" && spec.IdempotencyLevel == connect.IdempotencyNoSideEffects {
				info, _ := connect.CallInfoForClientContext(ctx)
				info.RequestHeader().Set(Header, position)
			}
			return next(ctx, spec)
		}
	}
}

// Of returns the position of the call that ctx belongs to; empty for none. Only services
// ask, whose callers are services.
func Of(ctx context.Context) string {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return ""
	}
	return info.RequestHeader().Get(Header)
}
