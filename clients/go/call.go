package gatehouse

import (
	"context"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse.example/client/gen/bff/v1"
)

const idempotencyKey = "Idempotency-Key"

// keyed are the methods that take an Idempotency-Key: calls with the same key take effect
// once. The exchange of a refresh token has the key of its session.
var keyed = map[string]bool{
	bffv1.AuthServiceRefreshProcedure:                      true,
	bffv1.AuthServiceRegisterProcedure:                     true,
	bffv1.AuthServiceVerifyEmailProcedure:                  true,
	bffv1.AuthServiceCompleteLoginProcedure:                true,
	bffv1.AccountServiceCompleteReauthenticationProcedure:  true,
	bffv1.AccountServiceFinishPasskeyRegistrationProcedure: true,
	bffv1.AccountServiceFinishTOTPEnrolmentProcedure:       true,
	bffv1.AuthServiceCompleteFederatedLoginProcedure:       true,
	bffv1.AccountServiceCompleteLinkIdentityProcedure:      true,
	bffv1.AccountServiceCreateKeyProcedure:                 true,
	bffv1.WebhookServiceCreateWebhookProcedure:             true,
	bffv1.UserServiceCreateUserProcedure:                   true,
}

const (
	maxRetryDelay     = 3 * time.Second
	defaultRetryDelay = 300 * time.Millisecond // on average, if the gateway gives none
)

// unary holds a unary call back until its response is wanted, so that it can be made more
// than once.
type unary struct {
	call    func(request, response any) error
	request any
	called  bool
}

func (u *unary) SendHeaders() error { return nil }
func (u *unary) CloseSend() error   { return nil }
func (u *unary) Close() error       { return nil }

func (u *unary) Send(message any) error {
	u.request = message
	return nil
}

func (u *unary) Receive(message any) error {
	if u.called {
		return io.EOF
	}
	u.called = true
	return u.call(u.request, message)
}

// attempt makes one unary call.
func attempt(ctx context.Context, spec connect.Spec, next connect.ClientFunc, request, response any) (err error) {
	if info, ok := connect.CallInfoForClientContext(ctx); ok {
		for _, header := range []*connect.Header{info.ResponseHeader(), info.ResponseTrailer()} { // of an earlier attempt
			for name := range header.All() {
				header.Delete(name)
			}
		}
	}
	stream, err := next(ctx, spec)
	if err != nil {
		return err
	}
	defer func() {
		if failure := stream.Close(); err == nil {
			err = failure
		}
	}()
	if err := stream.Send(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.Receive(response)
}

// retryOnce repeats a call that got no answer, once, if that is safe: a read, a call
// that is idempotent by its schema, or one with an Idempotency-Key, which it adds.
func retryOnce(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec)
		}
		return &unary{call: func(request, response any) error {
			defer holdKey(ctx, spec)()
			err := attempt(ctx, spec, next, request, response)
			repeatable := keyed[spec.Procedure] || spec.IdempotencyLevel != connect.IdempotencyUnknown
			if connect.CodeOf(err) != connect.CodeUnavailable || !repeatable || !waitToRetry(ctx, err) {
				return err
			}
			return attempt(ctx, spec, next, request, response)
		}}, nil
	}
}

// holdKey gives a call an Idempotency-Key if it takes one and has none, for all its
// attempts until the returned function is called: the context may be used for another
// call.
func holdKey(ctx context.Context, spec connect.Spec) (release func()) {
	info, _ := connect.CallInfoForClientContext(ctx)
	if !keyed[spec.Procedure] || info.RequestHeader().Get(idempotencyKey) != "" {
		return func() {}
	}
	info.RequestHeader().Set(idempotencyKey, rand.Text())
	return func() { info.RequestHeader().Delete(idempotencyKey) }
}

// waitToRetry waits for the delay that the gateway asks for. It reports whether there is
// a point in a retry.
func waitToRetry(ctx context.Context, err error) bool {
	delay, ok := RetryDelay(err)
	if !ok {
		delay = defaultRetryDelay/2 + mathrand.N(defaultRetryDelay)
	}
	if deadline, ok := ctx.Deadline(); delay > maxRetryDelay || ok && time.Until(deadline) < delay {
		return false
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
