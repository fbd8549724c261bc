package bff

import (
	"context"
	"crypto/sha256"
	"fmt"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

const (
	idempotencyHeader = "Idempotency-Key"
	maxIdempotencyKey = 128 // bytes
)

var errIdempotencyKey = fault.Invalid("IDEMPOTENCY_KEY_INVALID", idempotencyHeader, "send one key of at most 128 bytes of printable UTF-8")

type idempotencyKeyKey struct{}

// idempotencyKey returns the idempotency key of the call, which the service uses to do
// its work once; nil if there is none.
func idempotencyKey(ctx context.Context) *authv1.IdempotencyKey {
	key, _ := ctx.Value(idempotencyKeyKey{}).(*authv1.IdempotencyKey)
	return key
}

// readIdempotencyKey reads the keys of calls to methods that take one. It is an
// [rpc.Interceptor].
func readIdempotencyKey(plan *policy.Method) (connect.ServerInterceptor, error) {
	if !plan.IdempotencyKey {
		return nil, nil
	}
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			values := info.RequestHeader().Values(idempotencyHeader)
			switch {
			case len(values) == 0, len(values) == 1 && values[0] == "":
				return next(ctx, spec, stream)
			case len(values) > 1, !isIdempotencyKey(values[0]):
				return errIdempotencyKey
			}
			hash, err := requestHash(rpc.CallFrom(ctx).Request)
			if err != nil {
				return err
			}
			key := &authv1.IdempotencyKey{Key: values[0], Procedure: plan.Procedure, RequestHash: hash}
			return next(context.WithValue(ctx, idempotencyKeyKey{}, key), spec, stream)
		}
	}, nil
}

func isIdempotencyKey(text string) bool {
	if len(text) > maxIdempotencyKey || !utf8.ValidString(text) {
		return false
	}
	for _, c := range text {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

// requestHash returns a hash of the request without its secrets.
func requestHash(request proto.Message) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(policy.Redact(request))
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	sum := sha256.Sum256(encoded)
	return sum[:], nil
}

// repeatable allows retries of a call to a service if the call has an idempotency key.
func repeatable(ctx context.Context, key *authv1.IdempotencyKey) context.Context {
	if key == nil {
		return ctx
	}
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set(idempotencyHeader, key.GetKey())
	return ctx
}
