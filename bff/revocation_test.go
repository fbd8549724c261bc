package bff

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/follow"
)

func sessionRevoked(id string, seconds int32) *authv1.Revocation {
	return &authv1.Revocation{Of: &authv1.Revocation_SessionId{SessionId: id}, ExpiresIn: seconds}
}

func versionsRevoked(account string, version int64, seconds int32) *authv1.Revocation {
	return &authv1.Revocation{Of: &authv1.Revocation_LeastVersion{LeastVersion: &authv1.LeastVersion{AccountId: account, Version: version}}, ExpiresIn: seconds}
}

func news(revocations ...*authv1.Revocation) *authv1.WatchRevocationsResponse {
	return &authv1.WatchRevocationsResponse{Revocations: revocations}
}

// admitted asks for something that every token whose holder is known may have.
func (h *harness) admitted(t testing.TB, token string) reply {
	t.Helper()
	_, got := h.getMe(t, token)
	return got
}

func TestARevokedTokenIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	token := h.token(alice) // of version 1
	newer := h.signer.token(func(_, claims map[string]any) { claims["sub"], claims["ver"] = alice, 3 })
	refused := func(what, token, reason string) {
		t.Helper()
		got := h.admitted(t, token)
		wantError(t, what, got, http.StatusUnauthorized, connect.CodeUnauthenticated, reason)
		if want := `Bearer realm="gatehouse", error="invalid_token"`; got.header.Get("Www-Authenticate") != want {
			t.Errorf("%s: got Www-Authenticate %q, want %q", what, got.header.Get("Www-Authenticate"), want)
		}
	}
	passes := func(what, token string) {
		t.Helper()
		if got := h.admitted(t, token); connect.CodeOf(got.err) == connect.CodeUnauthenticated {
			t.Errorf("%s: got %v, want it admitted", what, got.err)
		}
	}
	passes("before anything is revoked", token)
	h.gateway.revoked.Take(news(versionsRevoked(bob, 9, 60), sessionRevoked(bob, 60)))
	passes("when others are revoked", token)
	h.gateway.revoked.Take(news(versionsRevoked(alice, 3, 60)))
	refused("a token of an older version", token, "TOKEN_STALE")
	passes("a token of the version", newer)
	h.gateway.revoked.Take(news(versionsRevoked(alice, 2, 60)))
	refused("an older version after it, once a later revocation came first", token, "TOKEN_STALE")
	h.gateway.revoked.Take(news(sessionRevoked(session, 60)))
	refused("any token of a session that has ended", newer, "SESSION_ENDED")
	if n := h.called(authv1.RevocationServiceCheckAccessProcedure); n != 0 {
		t.Errorf("auth was asked %d times though the stream speaks", n)
	}
	h.gateway.revoked.Take(&authv1.WatchRevocationsResponse{Complete: true})
	passes("once the whole is said without it", newer)
}

func TestWithASilentStreamTheGatewayAsksAuthAboutEachToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	token := h.token(alice)
	now := time.Now()
	h.gateway.revoked.Now = func() time.Time { return now }
	h.gateway.revoked.Take(news())
	now = now.Add(access.Silence)
	h.admitted(t, token)
	if n := h.called(authv1.RevocationServiceCheckAccessProcedure); n != 0 {
		t.Errorf("after %s auth was asked %d times", access.Silence, n)
	}
	now = now.Add(time.Millisecond)
	for range 2 {
		if got := h.admitted(t, token); connect.CodeOf(got.err) == connect.CodeUnauthenticated {
			t.Errorf("a token that auth admits: %v", got.err)
		}
	}
	if n := h.called(authv1.RevocationServiceCheckAccessProcedure); n != 2 {
		t.Errorf("for two calls auth was asked %d times", n)
	}
	for reason, want := range map[string]struct {
		err    error
		status int
		code   connect.Code
	}{
		"SESSION_ENDED":       {fault.New(connect.CodeUnauthenticated, "SESSION_ENDED", "Ended."), 401, connect.CodeUnauthenticated},
		"TOKEN_STALE":         {fault.New(connect.CodeUnauthenticated, "TOKEN_STALE", "Stale."), 401, connect.CodeUnauthenticated},
		"SERVICE_UNAVAILABLE": {fault.Unavailable(), 503, connect.CodeUnavailable},
		"INTERNAL":            {errors.New("broken"), 500, connect.CodeInternal},
	} {
		h.fail(authv1.RevocationServiceCheckAccessProcedure, want.err)
		wantError(t, "auth answers "+reason, h.admitted(t, token), want.status, want.code, reason)
	}
	// Anyone may still do what anyone may.
	if response, body := h.send(t, "/bff.v1.AuthService/Login", `{"email":"a@example.com","password":"x"}`); response.StatusCode == http.StatusServiceUnavailable {
		t.Errorf("Login: %d %s", response.StatusCode, body)
	}
}

func TestTheGatewayFollowsTheStream(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart=%v", apart), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{apart: apart})
			ctx, stop := context.WithCancel(t.Context())
			stopped := make(chan struct{})
			go func() { defer close(stopped); h.gateway.Run(ctx) }()
			defer func() { stop(); <-stopped }()
			h.backend.revoked <- news(sessionRevoked(session, 60))
			deadline := time.Now().Add(20 * time.Second)
			for got := h.admitted(t, h.token(alice)); fault.Reason(got.err) != "SESSION_ENDED"; got = h.admitted(t, h.token(alice)) {
				if time.Now().After(deadline) {
					t.Fatalf("after the stream said that it has ended: %v", got.err)
				}
			}
		})
	}
}

func TestAStreamThatEndsOrFallsSilentIsOpenedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		opened := func() int { return h.called(authv1.RevocationServiceWatchRevocationsProcedure) }
		set := func(stream func(context.Context, connect.ServerStream) error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.answers[authv1.RevocationServiceWatchRevocationsProcedure] = func(ctx context.Context, s connect.ServerStream) error {
				if err := s.Receive(&authv1.WatchRevocationsRequest{}); err != nil {
					return err
				}
				return stream(ctx, s)
			}
		}
		set(func(_ context.Context, stream connect.ServerStream) error { // the whole, and the end
			return stream.Send(&authv1.WatchRevocationsResponse{Complete: true, SigningKeys: h.published()})
		})
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() { defer close(stopped); h.gateway.revoked.Run(ctx) }()
		time.Sleep(5*follow.Backoff + follow.Backoff/2)
		if n := opened(); n != 6 {
			t.Errorf("in five pauses it was opened %d times, want 6", n)
		}
		set(func(ctx context.Context, _ connect.ServerStream) error { <-ctx.Done(); return ctx.Err() }) // says nothing
		time.Sleep(follow.Backoff)
		before := opened()
		time.Sleep(follow.Silence + 4*follow.Backoff)
		if n := opened() - before; n != 1 {
			t.Errorf("a silent stream was opened again %d times within its patience, want once", n)
		}
		if lines := h.log.lines(t, "feed: stream lost, retrying"); len(lines) == 0 {
			t.Error("nothing was logged of it")
		}
		if lines := h.log.lines(t, "feed: stream recovered"); len(lines) == 0 {
			t.Error("nothing was logged of its return")
		}
		set(func(_ context.Context, stream connect.ServerStream) error { // not the whole first
			return stream.Send(news(sessionRevoked(session, 60)))
		})
		time.Sleep(2 * follow.Silence)
		if got := h.gateway.revoked.State().Sessions; got != 0 {
			t.Errorf("a stream that doesn't begin with the whole was believed: %d sessions", got)
		}
		stop()
		<-stopped
		h.gateway.verifier.Stop()
	})
}

func TestTheGatewayIsReadyOnceItHasTheRevocations(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{noRevocations: true})
	if h.gateway.Ready() == nil {
		t.Error("it is ready before")
	}
	h.gateway.revoked.Take(&authv1.WatchRevocationsResponse{Complete: true})
	if err := h.gateway.Ready(); err != nil {
		t.Errorf("after: %v", err)
	}
}

// onStream replaces auth's stream.
func (h *harness) onStream(stream func(ctx context.Context, req *authv1.WatchRevocationsRequest, s connect.ServerStream) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[authv1.RevocationServiceWatchRevocationsProcedure] = func(ctx context.Context, s connect.ServerStream) error {
		req := &authv1.WatchRevocationsRequest{}
		if err := s.Receive(req); err != nil {
			return err
		}
		return stream(ctx, req, s)
	}
}

// follow runs the gateway until the returned function is called.
func (h *harness) follow(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); h.gateway.Run(ctx) }()
	return func() { cancel(); <-stopped }
}

func TestTheStreamSendsKeysAtItsStartAndOnChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{noKeys: true})
		newer := newSigner(2)
		old, fresh := h.token(alice), newer.token(func(_, _ map[string]any) {})
		verifies := func(token string) bool { _, err := h.gateway.verifier.Verify(token); return err == nil }
		messages := make(chan *authv1.WatchRevocationsResponse)
		h.onStream(func(ctx context.Context, _ *authv1.WatchRevocationsRequest, s connect.ServerStream) error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case message := <-messages:
					if err := s.Send(message); err != nil {
						return err
					}
				}
			}
		})
		stop := h.follow(t)
		defer stop()
		say := func(message *authv1.WatchRevocationsResponse) { messages <- message; synctest.Wait() }
		if verifies(old) || h.gateway.Ready() == nil {
			t.Error("it has keys before any came")
		}
		say(&authv1.WatchRevocationsResponse{Complete: true, SigningKeys: &authv1.SigningKeys{Keys: []*authv1.SigningKey{h.signer.published()}}})
		if !verifies(old) || verifies(fresh) || h.gateway.Ready() != nil {
			t.Errorf("after the first message: old %v, new %v, %v", verifies(old), verifies(fresh), h.gateway.Ready())
		}
		say(&authv1.WatchRevocationsResponse{SigningKeys: &authv1.SigningKeys{Keys: []*authv1.SigningKey{newer.published(), h.signer.published()}}})
		if !verifies(old) || !verifies(fresh) {
			t.Errorf("once the next is published: old %v, new %v, want both", verifies(old), verifies(fresh))
		}
		say(news())
		if !verifies(old) || !verifies(fresh) {
			t.Errorf("after a message without keys: old %v, new %v, want both", verifies(old), verifies(fresh))
		}
		say(&authv1.WatchRevocationsResponse{SigningKeys: &authv1.SigningKeys{Keys: []*authv1.SigningKey{newer.published()}}})
		if verifies(old) || !verifies(fresh) {
			t.Errorf("once the old one is retired: old %v, new %v, want the new one alone", verifies(old), verifies(fresh))
		}
		say(&authv1.WatchRevocationsResponse{SigningKeys: &authv1.SigningKeys{}})
		if !verifies(fresh) {
			t.Error("the keys were replaced by an empty list")
		}
		if n := h.called(authv1.KeyServiceListSigningKeysProcedure); n != 0 {
			t.Errorf("auth was asked for keys %d times, though it says them", n)
		}
	})
}

// The auth of the version before says no keys on its stream.
func TestAnOlderAuthIsAskedForItsKeysOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{noKeys: true})
		answer(h.backend, authv1.KeyServiceListSigningKeysProcedure, func(context.Context, *authv1.ListSigningKeysRequest) (*authv1.ListSigningKeysResponse, error) {
			return &authv1.ListSigningKeysResponse{Keys: h.published().GetKeys()}, nil
		})
		h.onStream(func(ctx context.Context, _ *authv1.WatchRevocationsRequest, s connect.ServerStream) error {
			for message := (&authv1.WatchRevocationsResponse{Complete: true}); ; message = news() {
				if err := s.Send(message); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(250 * time.Millisecond):
				}
			}
		})
		stop := h.follow(t)
		defer stop()
		time.Sleep(10 * time.Second)
		if err := h.gateway.Ready(); err != nil {
			t.Error(err)
		}
		if _, err := h.gateway.verifier.Verify(h.token(alice)); err != nil {
			t.Errorf("a good token: %v", err)
		}
		if n := h.called(authv1.KeyServiceListSigningKeysProcedure); n != 1 {
			t.Errorf("auth was asked for keys %d times, want once", n)
		}
	})
}

// A part of the whole is not the whole: until the last has come, what is in the
// others can't be told from what isn't revoked.
func TestALargeUpdateAppliesWithItsLastMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{noKeys: true, noRevocations: true})
		goOn := make(chan struct{})
		cursors := make(chan string, 2)
		h.onStream(func(ctx context.Context, req *authv1.WatchRevocationsRequest, s connect.ServerStream) error {
			if cursors <- req.GetCursor(); req.GetCursor() != "" {
				<-ctx.Done()
				return ctx.Err()
			}
			for _, part := range []*authv1.WatchRevocationsResponse{
				{Complete: true, SigningKeys: h.published(), Revocations: []*authv1.Revocation{sessionRevoked(bob, 60)}, More: true},
				{Revocations: []*authv1.Revocation{versionsRevoked(bob, 2, 60)}, More: true},
				{Revocations: []*authv1.Revocation{sessionRevoked(session, 60)}, Cursor: "one"},
			} {
				if err := s.Send(part); err != nil {
					return err
				}
				<-goOn
			}
			return nil
		})
		stop := h.follow(t)
		defer stop()
		for range 2 {
			synctest.Wait()
			if h.gateway.Ready() == nil {
				t.Error("it is ready with a part")
			}
			time.Sleep(follow.Silence * 3 / 4) // each part is a word
			goOn <- struct{}{}
		}
		synctest.Wait()
		if err := h.gateway.Ready(); err != nil {
			t.Errorf("once all have come: %v", err)
		}
		if known := h.gateway.revoked.State(); known.Sessions != 2 || known.Accounts != 1 {
			t.Errorf("it knows %d sessions and %d accounts", known.Sessions, known.Accounts)
		}
		close(goOn)
		<-cursors
		if cursor := <-cursors; cursor != "one" {
			t.Errorf("the next stream is opened from the cursor %q, want one", cursor)
		}
	})
}

func TestAStreamResumesAtTheCursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		var asked []string
		h.onStream(func(_ context.Context, req *authv1.WatchRevocationsRequest, s connect.ServerStream) error {
			asked = append(asked, req.GetCursor())
			switch len(asked) {
			case 1:
				if err := s.Send(&authv1.WatchRevocationsResponse{Complete: true, SigningKeys: h.published(), Cursor: "one", Revocations: []*authv1.Revocation{sessionRevoked(session, 600)}}); err != nil {
					return err
				}
				return s.Send(&authv1.WatchRevocationsResponse{Cursor: "two"})
			case 2: // only what came since
				return s.Send(&authv1.WatchRevocationsResponse{SigningKeys: h.published(), Cursor: "three", Revocations: []*authv1.Revocation{versionsRevoked(bob, 2, 600)}})
			default:
				return fault.Unavailable()
			}
		})
		stop := h.follow(t)
		time.Sleep(2*follow.Backoff + follow.Backoff/2)
		stop()
		if want := []string{"", "two", "three"}; !slices.Equal(asked, want) {
			t.Errorf("it asked for the cursors %q, want %q", asked, want)
		}
		if known := h.gateway.revoked.State(); known.Sessions != 1 || known.Accounts != 1 {
			t.Errorf("it knows %d sessions and %d accounts, want what both streams said", known.Sessions, known.Accounts)
		}
	})
}

// A key may have come since the stream fell silent: nobody is to sign in again
// because of that.
func TestAnUnknownKeyIsUnavailableWhileTheStreamIsSilent(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	token := newSigner(2).token(func(_, _ map[string]any) {})
	wantError(t, "while it speaks", h.admitted(t, token), http.StatusUnauthorized, connect.CodeUnauthenticated, invalid)
	h.receiveRevocations(time.Now().Add(-time.Hour))
	before := h.called("")
	wantUnavailable(t, "while it is silent", h.admitted(t, token), fault.ReasonUnavailable)
	wantError(t, "garbage all the same", h.admitted(t, "garbage"), http.StatusUnauthorized, connect.CodeUnauthenticated, invalid)
	if n := h.called("") - before; n != 0 {
		t.Errorf("auth was asked %d times", n)
	}
}
