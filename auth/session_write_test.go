package auth_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/pgtest"
)

// sessionOf returns the session of a refresh token.
func sessionOf(t *testing.T, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "ghr_"))
	if err != nil {
		t.Fatal(err)
	}
	return uuid.UUID(raw[:16]).String()
}

// others adds sessions of an account, which fill pages. The statement is that of
// binaries before schema number 7.
const others = `
	INSERT INTO auth.sessions
		(id, account_id, token_hash, token_key, user_agent, ip_address, device_id, epoch, expire_time, max_expire_time)
	SELECT gen_random_uuid(), $1, sha256(n::text::bytea), 'key', repeat('agent', 10), '192.0.2.1', gen_random_uuid(), 0,
		now() + interval '30 days', now() + interval '365 days'
	FROM generate_series(1, $2) AS n`

// An update of an indexed column writes to each index of the table.
func TestARefreshWritesToNoIndex(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	var held []string
	for range 3 {
		h.exec(t, others, account.GetId(), 100)
		login, err := h.login(t, "ada@example.com", password)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, login.GetTokens().GetRefreshToken())
	}
	const rounds = 40
	for range rounds {
		for i, token := range held {
			held[i] = h.mustRefresh(t, token, "").GetRefreshToken()
		}
	}
	h.config.DB.Close() // its sessions report what they did when they end
	deadline := time.Now().Add(20 * time.Second)
	updates := 0
	for updates < rounds*len(held) {
		if time.Now().After(deadline) {
			t.Fatalf("Postgres counts %d updates, want %d", updates, rounds*len(held))
		}
		updates = h.count(t, "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'auth.sessions'::regclass")
	}
	// With an index on a column that a refresh changes, none is heap-only. A few aren't
	// while a snapshot, such as autovacuum's, keeps Postgres from pruning a full page.
	if hot := h.count(t, "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'auth.sessions'::regclass"); hot < updates*3/4 {
		t.Errorf("%d of %d updates of sessions were heap-only, want three quarters at least", hot, updates)
	}
}

// Guarantee 7: gateways receive a change if and only if they cache it for longer.
func TestARefreshAnnouncesOnlyAChangedClient(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	token := tokens.GetRefreshToken()
	for _, test := range []struct {
		name   string
		origin *authv1.Origin
		want   int
	}{
		{"the first client", &authv1.Origin{IpAddress: "192.0.2.1", UserAgent: "one"}, 1},
		{"the same client", &authv1.Origin{IpAddress: "192.0.2.1", UserAgent: "one"}, 0},
		{"another address", &authv1.Origin{IpAddress: "192.0.2.2", UserAgent: "one"}, 1},
		{"another user agent", &authv1.Origin{IpAddress: "192.0.2.2", UserAgent: "two"}, 1},
		{"the same again", &authv1.Origin{IpAddress: "192.0.2.2", UserAgent: "two"}, 0},
	} {
		h.exec(t, "DELETE FROM auth.changes")
		response, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: token, Origin: test.origin})
		if err != nil {
			t.Fatal(err)
		}
		token = response.GetTokens().GetRefreshToken()
		got, all := h.count(t, "SELECT count(*) FROM auth.changes WHERE tag = 'sessions/' || $1", account.GetId()), h.count(t, "SELECT count(*) FROM auth.changes")
		if got != test.want || all != test.want {
			t.Errorf("%s: %d changes of the sessions among %d are announced, want %d", test.name, got, all, test.want)
		}
		stored := h.count(t, "SELECT count(*) FROM auth.sessions WHERE ip_address = $1 AND user_agent = $2", test.origin.GetIpAddress(), test.origin.GetUserAgent())
		if stored != 1 {
			t.Errorf("%s: the session doesn't say where it was used from", test.name)
		}
	}
}

// An older binary doesn't know prune_date: it neither sets it nor moves it.
func TestSessionsOfAnOlderBinaryArePruned(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	h.exec(t, others, account.GetId(), 2)
	h.exec(t, `UPDATE auth.sessions SET expire_time = now() - interval '31 days'
		WHERE id = (SELECT id FROM auth.sessions WHERE prune_date = CURRENT_DATE LIMIT 1)`)
	// A session that the older binary has refreshed since its day.
	h.exec(t, "UPDATE auth.sessions SET prune_date = CURRENT_DATE - 3 WHERE id = $1", sessionOf(t, tokens.GetRefreshToken()))
	for range 2 {
		if err := h.service.PruneForTest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != 2 {
			t.Errorf("%d sessions are left, want the two that live", n)
		}
		if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE prune_date = (expire_time + interval '30 days')::date"); n != 2 {
			t.Errorf("%d sessions have a day on which they may have to go, want both", n)
		}
	}
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
}

func TestAShorterIdleTimePrunesSooner(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	changed := h.config
	changed.SessionIdle = time.Hour
	h.open(t, changed)
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
	if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE prune_date = (expire_time + interval '30 days')::date"); n != 1 {
		t.Error("the session would stay for as long as the former idle time said")
	}
}

func TestSessionsAreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	var recorder pgtest.Recorder
	h := newHarness(t, func(c *auth.Config) {
		config := c.DB.Config()
		config.ConnConfig.Tracer = &recorder
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		c.DB = pool
	})
	account, tokens := h.signUp(t, "ada@example.com")
	many, _ := h.signUp(t, "many@example.com")
	h.exec(t, others, many.GetId(), 20_000)
	h.exec(t, "UPDATE auth.sessions SET prune_date = (expire_time + interval '30 days')::date")
	h.exec(t, "VACUUM ANALYZE auth.sessions")
	recorder.Forget()
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
	if _, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.accounts.GetAccount(t.Context(), &authv1.GetAccountRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	if err := h.service.PruneForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, looked := pgtest.Connect(t, h.owner.Config().ConnString()), 0
	// How binaries before schema number 7 list sessions.
	recorded := append(recorder.All(), pgx.TraceQueryStartData{SQL: `
		SELECT id FROM auth.sessions
		WHERE account_id = @account_id AND revoke_time IS NULL AND epoch >= 0 AND expire_time > now()
		ORDER BY last_used_time DESC LIMIT 100`, Args: []any{pgx.NamedArgs{"account_id": account.GetId()}}})
	for _, statement := range recorded {
		if !strings.Contains(statement.SQL, "auth.sessions") {
			continue
		}
		looked++
		for _, plan := range pgtest.Explain(t, conn, statement)[:1] {
			if readsAll(plan, "sessions") || plan.Blocks() > 100 {
				t.Errorf("%d blocks are read by\n%s\n%s", plan.Blocks(), statement.SQL, plan)
			}
		}
	}
	if looked != 6 {
		t.Errorf("%d statements were looked at, want 6", looked)
	}
}

// readsAll reports whether a plan reads a whole table.
func readsAll(plan pgtest.Plan, table string) bool {
	if plan.NodeType == "Seq Scan" && plan.RelationName == table {
		return true
	}
	for _, part := range plan.Plans {
		if readsAll(part, table) {
			return true
		}
	}
	return false
}
