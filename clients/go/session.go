package gatehouse

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse.example/client/gen/bff/v1"
)

const (
	// refreshAhead is how long before its expiry an access token is replaced.
	refreshAhead = 30 * time.Second
	// refreshTimeout is longer than the gateway takes.
	refreshTimeout = 15 * time.Second

	sessionEnded         = "SESSION_ENDED"
	secondFactorRequired = "SECOND_FACTOR_REQUIRED"
)

// fixedByRefresh are the reasons for refusing an access token that a refresh may fix.
var fixedByRefresh = map[string]bool{"TOKEN_EXPIRED": true, "TOKEN_STALE": true, "TOKEN_INVALID": true, sessionEnded: true}

// needsNoSession reports whether a method needs no session: signing in or out, or
// following a mailed link.
func needsNoSession(procedure string) bool {
	return strings.HasPrefix(procedure, "/"+bffv1.AuthServiceName+"/") || procedure == bffv1.AccountServiceConfirmEmailChangeProcedure
}

// ending are the methods that end the caller's session if they succeed.
var ending = map[string]bool{
	bffv1.AccountServiceRevokeAllSessionsProcedure: true,
	bffv1.AccountServiceDeleteMeProcedure:          true,
}

// session keeps the tokens of a client. A refresh token works once, so one exchange
// serves all concurrent calls, and the holder of the lock looks into the store first:
// another process may have exchanged the token.
type session struct {
	store     TokenStore
	auth      bffv1.AuthServiceClient // without this session
	onSignOut func(reason string)
	lock      chan struct{} // held while the store changes

	mu      sync.Mutex
	renewal *renewal
}

// renewal is an exchange that is in progress.
type renewal struct {
	refused string // the access token to replace
	done    chan struct{}
	stored  Session
	err     error
}

// intercept authorizes calls, and stores and ends the session.
func (s *session) intercept(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			stored, err := s.fresh(ctx)
			if err != nil {
				return nil, err
			}
			authorize(ctx, stored)
			return next(ctx, spec)
		}
		return &unary{call: func(request, response any) error {
			call := func(request any) error { return attempt(ctx, spec, next, request, response) }
			if logout, ok := request.(*bffv1.LogoutRequest); ok && logout.GetRefreshToken() == "" {
				return s.logout(ctx, call)
			}
			if needsNoSession(spec.Procedure) {
				return s.signIn(ctx, call, request, response)
			}
			defer holdKey(ctx, spec)()
			before, err := s.store.Load(ctx)
			if err != nil {
				return err
			}
			requested := time.Now()
			if err := s.authorized(ctx, func() error { return call(request) }); err != nil {
				return err
			}
			if tokens := nextTokens(response); tokens != nil {
				return s.exclusively(ctx, func() error { return s.replace(ctx, before.ID, tokens, requested) })
			}
			if ending[spec.Procedure] {
				return s.exclusively(ctx, func() error { return s.end(ctx) })
			}
			return nil
		}}, nil
	}
}

// withKey authorizes calls by an API key.
func withKey(key string) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+key)
			return next(ctx, spec)
		}
	}
}

func authorize(ctx context.Context, stored Session) {
	info, _ := connect.CallInfoForClientContext(ctx)
	if stored.SignedIn() {
		info.RequestHeader().Set("Authorization", "Bearer "+stored.AccessToken)
	}
}

// authorized makes a call with an access token, and again with a newer one if the gateway
// refuses it.
func (s *session) authorized(ctx context.Context, call func() error) error {
	stored, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	authorize(ctx, stored)
	err = call()
	reason := Reason(err)
	if connect.CodeOf(err) != connect.CodeUnauthenticated || !fixedByRefresh[reason] || !stored.SignedIn() {
		return err
	}
	newer, failure := s.renew(ctx, stored, reason)
	if failure != nil {
		return failure
	}
	if newer.ID != stored.ID { // ended, or another person's
		return err
	}
	authorize(ctx, newer)
	return call()
}

// fresh returns the session with an access token that is not about to expire.
func (s *session) fresh(ctx context.Context) (Session, error) {
	stored, err := s.store.Load(ctx)
	if err != nil || !stored.SignedIn() || time.Until(stored.ExpireTime) > refreshAhead {
		return stored, err
	}
	newer, err := s.renew(ctx, stored, "")
	code := connect.CodeOf(err)
	unreachable := code == connect.CodeUnavailable || code == connect.CodeDeadlineExceeded && ctx.Err() == nil
	if err != nil && unreachable && time.Now().Before(stored.ExpireTime) {
		return stored, nil
	}
	if err == nil && newer.ID != stored.ID && newer.SignedIn() {
		return Session{}, connect.NewError(connect.CodeAborted, "Another session was started in the meantime. Try again.")
	}
	return newer, err
}

// renew returns a session with newer tokens than old, with one exchange for all
// concurrent callers. The exchange goes on if a caller leaves. why is the reason for
// which the gateway refused the access token, or empty.
func (s *session) renew(ctx context.Context, old Session, why string) (Session, error) {
	s.mu.Lock()
	current := s.renewal
	if current == nil || current.refused != old.AccessToken {
		current = &renewal{refused: old.AccessToken, done: make(chan struct{})}
		s.renewal = current
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTimeout)
		go func() {
			defer cancel()
			current.err = s.exclusively(detached, func() error {
				var err error
				current.stored, err = s.exchange(detached, old, why)
				return err
			})
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.renewal == current {
				s.renewal = nil
			}
			close(current.done)
		}()
	}
	s.mu.Unlock()
	select {
	case <-current.done:
		return current.stored, current.err
	case <-ctx.Done():
		return Session{}, ctx.Err()
	}
}

// exchange exchanges the refresh token. The caller holds the lock.
func (s *session) exchange(ctx context.Context, old Session, why string) (Session, error) {
	stored, err := s.store.Load(ctx)
	if err != nil || stored.AccessToken != old.AccessToken {
		return stored, err
	}
	if why == sessionEnded {
		return Session{}, s.endFor(ctx, why)
	}
	// A context of its own, with no header of the call that waits.
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set(idempotencyKey, stored.RefreshKey)
	requested := time.Now()
	response, err := s.auth.Refresh(ctx, &bffv1.RefreshRequest{RefreshToken: stored.RefreshToken})
	if reason := Reason(err); connect.CodeOf(err) == connect.CodeUnauthenticated && reason != "" { // a proxy's 401 has no reason
		return Session{}, errors.Join(err, s.endFor(ctx, reason))
	}
	if err != nil {
		return Session{}, err // such as an unreachable network: the session stays
	}
	if response.GetTokens().GetRefreshToken() == "" {
		return Session{}, connect.NewError(connect.CodeInternal, "The gateway's response has no tokens. Try again.")
	}
	newer := sessionOf(response.GetTokens(), stored.ID, stored.DeviceToken, requested)
	return newer, s.save(ctx, newer)
}

// signIn makes a call that needs no session, and stores the one that it begins.
func (s *session) signIn(ctx context.Context, call func(request any) error, request, response any) error {
	if login, ok := request.(*bffv1.LoginRequest); ok && login.GetDeviceToken() == "" {
		stored, err := s.store.Load(ctx)
		if err != nil {
			return err
		}
		login = proto.CloneOf(login)
		login.DeviceToken = stored.DeviceToken
		request = login
	}
	requested := time.Now()
	if err := call(request); err != nil {
		return err
	}
	tokens, device := signedInBy(response)
	if tokens == nil {
		return nil
	}
	return s.exclusively(ctx, func() error {
		stored, err := s.store.Load(ctx)
		if err != nil {
			return err
		}
		if device == "" {
			device = stored.DeviceToken
		}
		return s.save(ctx, sessionOf(tokens, rand.Text(), device, requested))
	})
}

// signedInBy returns the tokens of the session that a response begins, if it does.
func signedInBy(response any) (*bffv1.Tokens, string) {
	switch r := response.(type) {
	case interface{ GetSignedIn() *bffv1.SignedIn }:
		return r.GetSignedIn().GetTokens(), r.GetSignedIn().GetDeviceToken()
	case *bffv1.VerifyEmailResponse:
		return r.GetTokens(), r.GetDeviceToken()
	}
	return nil, ""
}

// nextTokens returns the next tokens of the caller's own session in a response, or nil:
// after a change of its level.
func nextTokens(response any) *bffv1.Tokens {
	if r, ok := response.(interface{ GetTokens() *bffv1.Tokens }); ok {
		return r.GetTokens()
	}
	return nil
}

// replace stores the next tokens of a session, unless another one has begun meanwhile,
// which may be another person's. The caller holds the lock.
func (s *session) replace(ctx context.Context, id string, tokens *bffv1.Tokens, requested time.Time) error {
	stored, err := s.store.Load(ctx)
	if err != nil || stored.ID != id {
		return err
	}
	return s.save(ctx, sessionOf(tokens, id, stored.DeviceToken, requested))
}

// logout ends the session here even if the call fails: the person may be leaving.
func (s *session) logout(ctx context.Context, call func(request any) error) error {
	return s.exclusively(ctx, func() error {
		stored, err := s.store.Load(ctx)
		if err != nil || !stored.SignedIn() {
			return err
		}
		err = call(&bffv1.LogoutRequest{RefreshToken: stored.RefreshToken})
		return errors.Join(err, s.end(context.WithoutCancel(ctx)))
	})
}

// exclusively runs work with the lock.
func (s *session) exclusively(ctx context.Context, work func() error) error {
	select {
	case s.lock <- struct{}{}:
		defer func() { <-s.lock }()
		return work()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end removes the tokens from the store. The caller holds the lock.
func (s *session) end(ctx context.Context) error {
	stored, err := s.store.Load(ctx)
	if err != nil {
		return err
	}
	return s.save(ctx, Session{DeviceToken: stored.DeviceToken})
}

// endFor is end after a refusal by the gateway.
func (s *session) endFor(ctx context.Context, reason string) error {
	err := s.end(ctx)
	s.onSignOut(reason)
	return err
}

func (s *session) save(ctx context.Context, session Session) error {
	if err := s.store.Save(ctx, session); err != nil {
		return fmt.Errorf("store the session: %w", err)
	}
	return nil
}

func sessionOf(tokens *bffv1.Tokens, id, device string, requested time.Time) Session {
	return Session{
		ID: id, AccessToken: tokens.GetAccessToken(), RefreshToken: tokens.GetRefreshToken(), RefreshKey: rand.Text(),
		ExpireTime: requested.Add(time.Duration(tokens.GetExpiresIn()) * time.Second), DeviceToken: device,
	}
}
