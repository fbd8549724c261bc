package auth_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// listener collects what a stream says.
type listener struct {
	stream authv1.RevocationServiceWatchRevocationsClientStream
	cancel context.CancelFunc
}

func (h *harness) listen(t testing.TB) *listener {
	t.Helper()
	return h.listenFrom(t, "")
}

func (h *harness) listenFrom(t testing.TB, cursor string) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := h.revocations.WatchRevocations(ctx, &authv1.WatchRevocationsRequest{Cursor: cursor})
	if err != nil {
		t.Fatalf("WatchRevocations: %v", err)
	}
	return &listener{stream: stream, cancel: cancel}
}

// until reads until a message satisfies the condition, and returns the messages
// read.
func (l *listener) until(t testing.TB, what string, satisfied func(*authv1.WatchRevocationsResponse) bool) []*authv1.WatchRevocationsResponse {
	t.Helper()
	var read []*authv1.WatchRevocationsResponse
	for {
		message, err := l.stream.Receive()
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		read = append(read, message)
		if satisfied(message) {
			return read
		}
	}
}

func endsSession(id string) func(*authv1.WatchRevocationsResponse) bool {
	return func(m *authv1.WatchRevocationsResponse) bool {
		return slices.ContainsFunc(m.GetRevocations(), func(r *authv1.Revocation) bool { return r.GetSessionId() == id })
	}
}

func wantsVersion(account string, version int64) func(*authv1.WatchRevocationsResponse) bool {
	return func(m *authv1.WatchRevocationsResponse) bool {
		return slices.ContainsFunc(m.GetRevocations(), func(r *authv1.Revocation) bool {
			return r.GetLeastVersion().GetAccountId() == account && r.GetLeastVersion().GetVersion() == version
		})
	}
}

func (h *harness) sessionsOf(t *testing.T, account string) []string {
	t.Helper()
	response, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, session := range response.GetSessions() {
		ids = append(ids, session.GetId())
	}
	return ids
}

func TestEverythingThatEndsASessionIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(t *testing.T, h *harness, account *authv1.Account, tokens *authv1.Tokens, session string) error
		want func(account *authv1.Account, session string) func(*authv1.WatchRevocationsResponse) bool
	}{
		"logout": {
			func(t *testing.T, h *harness, _ *authv1.Account, tokens *authv1.Tokens, _ string) error {
				_, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: tokens.GetRefreshToken()})
				return err
			},
			func(_ *authv1.Account, session string) func(*authv1.WatchRevocationsResponse) bool {
				return endsSession(session)
			},
		},
		"a session revoked": {
			func(t *testing.T, h *harness, account *authv1.Account, _ *authv1.Tokens, session string) error {
				_, err := h.sessions.RevokeSession(t.Context(), &authv1.RevokeSessionRequest{AccountId: account.GetId(), SessionId: session})
				return err
			},
			func(_ *authv1.Account, session string) func(*authv1.WatchRevocationsResponse) bool {
				return endsSession(session)
			},
		},
		"all sessions revoked": {
			func(t *testing.T, h *harness, account *authv1.Account, _ *authv1.Tokens, _ string) error {
				_, err := h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: account.GetId()})
				return err
			},
			func(_ *authv1.Account, session string) func(*authv1.WatchRevocationsResponse) bool {
				return endsSession(session)
			},
		},
		"a refresh token used again": {
			func(t *testing.T, h *harness, _ *authv1.Account, tokens *authv1.Tokens, _ string) error {
				h.mustRefresh(t, tokens.GetRefreshToken(), "")
				h.age(t, "1 minute")
				if _, err := h.refresh(t, tokens.GetRefreshToken(), ""); err == nil {
					return errors.New("the token was accepted")
				}
				return nil
			},
			func(_ *authv1.Account, session string) func(*authv1.WatchRevocationsResponse) bool {
				return endsSession(session)
			},
		},
		"a password reset": {
			func(t *testing.T, h *harness, account *authv1.Account, _ *authv1.Tokens, _ string) error {
				return h.service.SetPassword(t.Context(), account.GetEmail(), "a brand new password")
			},
			func(_ *authv1.Account, session string) func(*authv1.WatchRevocationsResponse) bool {
				return endsSession(session)
			},
		},
		"other roles": {
			func(t *testing.T, h *harness, account *authv1.Account, _ *authv1.Tokens, _ string) error {
				_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: []string{"editor"}})
				return err
			},
			func(account *authv1.Account, _ string) func(*authv1.WatchRevocationsResponse) bool {
				return wantsVersion(account.GetId(), 2)
			},
		},
		"a disabled account": {
			func(t *testing.T, h *harness, account *authv1.Account, _ *authv1.Tokens, _ string) error {
				_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
				return err
			},
			func(account *authv1.Account, _ string) func(*authv1.WatchRevocationsResponse) bool {
				return wantsVersion(account.GetId(), 2)
			},
		},
		"a deleted account": {
			func(t *testing.T, h *harness, account *authv1.Account, _ *authv1.Tokens, _ string) error {
				_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()})
				return err
			},
			func(account *authv1.Account, _ string) func(*authv1.WatchRevocationsResponse) bool {
				return wantsVersion(account.GetId(), 2)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.run(t)
			account, tokens := h.signUp(t, "ada@example.com")
			session := h.sessionsOf(t, account.GetId())[0]
			listener := h.listen(t)
			first := listener.until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })
			if !first[0].GetComplete() || len(first[0].GetRevocations()) != 0 {
				t.Errorf("the first message is %v, want complete and empty", first[0])
			}
			if err := test.end(t, h, account, tokens, session); err != nil {
				t.Fatal(err)
			}
			listener.until(t, name, test.want(account, session))
			// A stream that opens later receives the full state in its first message.
			late := h.listen(t).until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })
			if !test.want(account, session)(late[0]) {
				t.Errorf("a later stream begins with %v", late[0])
			}
		})
	}
}

// A cursor over a sequence would pass by a row whose transaction began first and
// committed last.
func TestALateCommitIsNotSkipped(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	bob, _ := h.signUp(t, "bob@example.com")
	session := h.sessionsOf(t, account.GetId())[0]
	listener := h.listen(t)

	late, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback(t.Context())
	if _, err := late.Exec(t.Context(), "INSERT INTO auth.revocations (session_id, expire_time) VALUES ($1, now() + interval '5 minutes')", session); err != nil {
		t.Fatal(err)
	}
	// Other transactions commit and are streamed while this one is still open.
	for version := int64(2); version < 5; version++ {
		roles := []string{"editor"}
		if version%2 == 1 {
			roles = nil
		}
		if _, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: bob.GetId(), Roles: roles}); err != nil {
			t.Fatal(err)
		}
		listener.until(t, "a change after it", wantsVersion(bob.GetId(), version))
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	listener.until(t, "the late one", endsSession(session))
}

func TestEveryCopyTellsWhatAnotherRevoked(t *testing.T) {
	t.Parallel()
	one := newHarness(t)
	one.run(t)
	two := &harness{owner: one.owner}
	two.open(t, one.config)
	two.run(t)
	account, _ := one.signUp(t, "ada@example.com")
	session := one.sessionsOf(t, account.GetId())[0]
	listener := two.listen(t)
	if _, err := one.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	listener.until(t, "what the other copy revoked", endsSession(session))
}

func TestTheStreamIsSilentWhileTheDatabaseCannotBeRead(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	listener := h.listen(t)
	listener.until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })
	locked, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Rollback(t.Context())
	if _, err := locked.Exec(t.Context(), "LOCK TABLE auth.revocations IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	// Polls that are under way may still speak; then a whole poll interval and
	// more goes by without a word.
	silent := make(chan time.Duration)
	go func() {
		for last := time.Now(); ; last = time.Now() {
			if _, err := listener.stream.Receive(); err != nil {
				return
			}
			if gap := time.Since(last); gap > time.Second {
				silent <- gap
				return
			}
		}
	}()
	waitFor := time.NewTimer(1500 * time.Millisecond)
	defer waitFor.Stop()
	select {
	case gap := <-silent:
		t.Fatalf("the stream spoke after %s though its database was locked", gap)
	case <-waitFor.C:
	}
	if err := locked.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-silent:
	case <-time.After(20 * time.Second):
		t.Fatal("the stream speaks no more")
	}
}

func TestTheStreamEndsWhenAuthStops(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.service.Run(ctx) }()
	listener := h.listen(t)
	listener.until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })
	stop()
	<-done
	for {
		_, err := listener.stream.Receive()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("the stream ended with %v, want its plain end", err)
		}
	}
}

func TestCheckAccess(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com", auth.AdminRole)
	h.signUp(t, "another@example.com", auth.AdminRole)
	session := h.sessionsOf(t, account.GetId())[0]
	check := func(version int64) error {
		_, err := h.revocations.CheckAccess(t.Context(), &authv1.CheckAccessRequest{AccountId: account.GetId(), SessionId: session, AuthzVersion: version})
		return err
	}
	if err := check(1); err != nil {
		t.Errorf("a token that counts: %v", err)
	}
	if _, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, check(1), connect.CodeUnauthenticated, "TOKEN_STALE")
	if err := check(2); err != nil {
		t.Errorf("a token of the new version: %v", err)
	}
	if _, err := h.sessions.RevokeSession(t.Context(), &authv1.RevokeSessionRequest{AccountId: account.GetId(), SessionId: session}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, check(2), connect.CodeUnauthenticated, "SESSION_ENDED")
	session = newID(t)
	wantReason(t, check(2), connect.CodeUnauthenticated, "SESSION_ENDED")
}
