package identity

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
)

type contextKey struct{}

// FromContext returns who is calling, in a handler behind [Verifier.Middleware] or
// [Verifier.Interceptor].
func FromContext(ctx context.Context) (*Claims, bool) {
	claims, ok := ctx.Value(contextKey{}).(*Claims)
	return claims, ok
}

// NewContext returns a context with a caller, for tests of handlers.
func NewContext(ctx context.Context, claims *Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, claims)
}

// Middleware calls next only for requests with a valid token. Others get 401,
// or 503 while the gateway's keys are unavailable. It works for every kind of handler,
// such as those of connect-go version 1 and grpc-go's ServeHTTP.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, refusal := v.authenticate(r.Context(), r.Header.Values("Authorization"))
		switch {
		case refusal == nil:
			next.ServeHTTP(w, r.WithContext(ctx))
		case refusal.Code() == connect.CodeUnavailable:
			w.Header().Set("Retry-After", "1")
			http.Error(w, refusal.Message(), http.StatusServiceUnavailable)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, refusal.Message(), http.StatusUnauthorized)
		}
	})
}

// Interceptor does what [Verifier.Middleware] does for the methods of a Connect server:
// others get unauthenticated, or unavailable.
func (v *Verifier) Interceptor() connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			var authorization []string
			if info, ok := connect.CallInfoForServerContext(ctx); ok {
				authorization = info.RequestHeader().Values("Authorization")
			}
			ctx, refusal := v.authenticate(ctx, authorization)
			if refusal != nil {
				return refusal
			}
			return next(ctx, spec, stream)
		}
	}
}

// authenticate returns a context with the caller, or the refusal to send.
func (v *Verifier) authenticate(ctx context.Context, authorization []string) (context.Context, *connect.Error) {
	if len(authorization) != 1 {
		return nil, connect.NewError(connect.CodeUnauthenticated, v.kind.missing)
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, connect.NewError(connect.CodeUnauthenticated, v.kind.missing)
	}
	claims, err := v.Verify(ctx, strings.TrimLeft(token, " "))
	switch {
	case err == nil:
		return NewContext(ctx, claims), nil
	case errors.Is(err, ErrAnonymous):
		return nil, connect.NewError(connect.CodeUnauthenticated, "Sign in to call this method.")
	case errors.Is(err, ErrKeysUnavailable):
		slog.WarnContext(ctx, "identity: keys unavailable, refusing calls", "error", err)
		return nil, connect.NewError(connect.CodeUnavailable, "Callers cannot be identified now. Try again.")
	case ctx.Err() != nil:
		return nil, connect.NewError(connect.CodeUnavailable, "The call was cancelled. Try again.").WithCause(err)
	default:
		slog.WarnContext(ctx, "identity: token refused", "error", err)
		return nil, connect.NewError(connect.CodeUnauthenticated, v.kind.invalid)
	}
}
