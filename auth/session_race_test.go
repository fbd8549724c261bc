package auth_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	"gatehouse/internal/database"
)

// losingConn drops the next answer of Postgres when lose is set.
type losingConn struct {
	net.Conn
	lose *atomic.Bool
}

func (c losingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.lose.Swap(false) {
		c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// Guarantees 1 and 8: a commit whose acknowledgement was lost.
func TestALostAnswerOfPostgresEndsNoSession(t *testing.T) {
	t.Parallel()
	var lose atomic.Bool
	h := newHarness(t, func(c *auth.Config) {
		config := c.DB.Config()
		config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return losingConn{Conn: conn, lose: &lose}, err
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		c.DB = pool
	})
	_, tokens := h.signUp(t, "ada@example.com")
	token := tokens.GetRefreshToken()
	for range 12 { // so that each connection has prepared its statements
		token = h.mustRefresh(t, token, "key").GetRefreshToken()
	}
	generation := h.count(t, "SELECT generation FROM auth.sessions")
	lose.Store(true)
	if _, err := h.refresh(t, token, "key"); err == nil || !database.IsUnavailable(err) && connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a refresh without an answer: %v, want unavailable", err)
	}
	if got := h.count(t, "SELECT generation FROM auth.sessions"); got != generation+1 {
		t.Fatalf("the session is at generation %d, want %d: nothing was lost", got, generation+1)
	}
	h.age(t, "11 seconds")
	next := h.mustRefresh(t, token, "key").GetRefreshToken()
	h.mustRefresh(t, next, "key")
}

// waiting runs call while another transaction has executed the statement, and commits
// that once the call waits for it.
func (h *harness) waiting(t *testing.T, statement string, call func() error) error {
	t.Helper()
	other, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(t.Context())
	if _, err := other.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	go func() { outcome <- call() }()
	for h.count(t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 0 {
		select {
		case err := <-outcome:
			t.Fatalf("it didn't wait for %s: %v", statement, err)
		default:
		}
	}
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return <-outcome
}

// A password that was right when it was checked begins no session after its change.
func TestASignInSeesWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		statement string
		refused   bool
	}{
		"the password is changed":  {"UPDATE auth.accounts SET password_hash = password_hash || 'x'", true},
		"the account is disabled":  {"UPDATE auth.accounts SET status = 'disabled'", true},
		"the account is deleted":   {"DELETE FROM auth.accounts", true},
		"the roles are changed":    {"UPDATE auth.accounts SET roles = '{admin}', authz_version = 2", false},
		"every session is revoked": {"WITH l AS (SELECT FROM auth.accounts FOR UPDATE) INSERT INTO auth.deployment (session_epoch) SELECT 7 FROM l", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, withMail)
			h.signUp(t, "ada@example.com")
			h.exec(t, "DELETE FROM auth.deployment")
			h.exec(t, "DELETE FROM auth.audit_events")
			var account string
			var version int64
			err := h.waiting(t, test.statement, func() error {
				response, err := h.try(context.WithoutCancel(t.Context()), "ada@example.com", password, "192.0.2.33", "")
				account, version = response.GetAccount().GetId(), response.GetAccount().GetAuthzVersion()
				return err
			})
			begun := h.count(t, "SELECT count(*) FROM auth.sessions WHERE ip_address = '192.0.2.33'")
			audited, mailed := h.audited(t, "session.login", "succeeded"), h.count(t, "SELECT count(*) FROM auth.mails WHERE kind = 'new_sign_in'")
			if test.refused {
				wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
				if begun != 0 || audited != 0 || mailed != 0 || h.audited(t, "session.login", "refused") != 1 {
					t.Errorf("%d sessions, %d audited sign-ins and %d mails, want none but a refusal", begun, audited, mailed)
				}
				return
			}
			if err != nil || account == "" || begun != 1 || audited != 1 || mailed != 1 {
				t.Fatalf("%v, %d sessions, %d audited sign-ins, %d mails; want 1 each", err, begun, audited, mailed)
			}
			if name == "the roles are changed" && version != 2 {
				t.Errorf("the token has version %d of the roles, want 2", version)
			}
			if name == "every session is revoked" && h.count(t, "SELECT count(*) FROM auth.sessions WHERE epoch = 7") != 1 {
				t.Error("the session belongs to an epoch that has ended")
			}
		})
	}
}

// As a repeated refresh of two tabs, one of which waits for the other.
func TestARefreshThatWaitedRepeatsOrEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ statement, reason string }{
		"the session is revoked":  {"UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test'", "SESSION_ENDED"},
		"the session expires":     {"UPDATE auth.sessions SET expire_time = now() - interval '1 second'", "SESSION_ENDED"},
		"the account is deleted":  {"DELETE FROM auth.accounts", "SESSION_ENDED"},
		"only its sign-in is new": {"UPDATE auth.sessions SET authenticate_time = now()", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			_, tokens := h.signUp(t, "ada@example.com")
			err := h.waiting(t, test.statement, func() error {
				_, err := h.refreshAs(context.WithoutCancel(t.Context()), tokens.GetRefreshToken())
				return err
			})
			if test.reason != "" {
				wantReason(t, err, connect.CodeUnauthenticated, test.reason)
			} else if err != nil {
				t.Errorf("Refresh: %v", err)
			}
		})
	}
}
