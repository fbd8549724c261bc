package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
)

// refreshes are what a refresh costs auth and Postgres, with this build and, if -before
// names one, with an older binary, on one Postgres.
type refreshes struct {
	builds []*refreshBuild
	rounds int
}

// refreshBuild is the auth of a binary, with a database and sessions of its own.
type refreshBuild struct {
	name     string
	url      string
	auth     *process
	client   authv1.SessionServiceClient
	token    *internalToken
	sessions []string // their refresh tokens
	next     []int    // of each worker: how many refreshes it has made
	done     int

	turns []turn
	// Of each turn, for each refresh: bytes of the write-ahead log in records and in full
	// pages, and rows for the gateways.
	records, pages, told []float64
	// hot is the share of updates that are HOT; moved the rows for the gateways for each
	// refresh from another address.
	hot, moved float64
}

const (
	// refreshedSessions and their accounts fit into the buffers of Postgres.
	refreshedSessions = 20_000
	movedSessions     = 200
	refreshAddress    = "198.18.0.1"
	movedAddress      = "198.18.0.2"
)

// measureRefreshes measures the builds in turn, straight at auth, so that no gateway takes
// CPU from Postgres.
func (r *results) measureRefreshes(ctx context.Context, h *stack, o options, progress io.Writer) error {
	m := &r.refreshes
	for _, one := range []struct{ name, binary string }{{"now", h.binary}, {"before", o.before}} {
		if one.binary == "" {
			continue
		}
		fmt.Fprintln(progress, "refreshes: starting auth,", one.name)
		build, err := h.openRefreshBuild(ctx, one.name, one.binary, o.connections)
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		defer build.auth.stop()
		m.builds = append(m.builds, build)
	}
	var series []*[]turn
	for _, build := range m.builds {
		series = append(series, &build.turns)
	}
	round := func(round int) error {
		for i := range m.builds {
			if err := h.refreshTurn(ctx, m.builds[(round+i)%len(m.builds)], o); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	if m.rounds, err = o.repeat(progress, "refreshes", round, func() [][]float64 { return [][]float64{m.ratio()} }, series...); err != nil {
		return err
	}
	for _, build := range m.builds {
		if err := build.finish(ctx); err != nil {
			return fmt.Errorf("%s: %w", build.name, err)
		}
	}
	return nil
}

// openRefreshBuild starts an auth on a new database with sessions.
func (h *stack) openRefreshBuild(ctx context.Context, name, binary string, workers int) (*refreshBuild, error) {
	database := "refreshes_" + name
	environment, err := h.prepare(ctx, binary, h.dir, database)
	if err != nil {
		return nil, err
	}
	internal, err := hex.DecodeString(settingOf(environment["auth"], "GATEHOUSE_INTERNAL_KEY"))
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(settingOf(environment["auth"], "GATEHOUSE_SECRET_KEY"))
	if err != nil {
		return nil, err
	}
	keys, err := tokens.NewRefreshKeys([][]byte{secret})
	if err != nil {
		return nil, err
	}
	b := &refreshBuild{name: name, url: h.database.URL(database), token: &internalToken{callee: "auth", master: internal}, next: make([]int, workers)}
	if err := b.insertSessions(ctx, keys); err != nil {
		return nil, fmt.Errorf("insert sessions: %w", err)
	}
	var address string
	b.auth, address, err = h.begin(ctx, "auth-refreshes-"+name, binary, "auth", slices.Concat(h.peers, environment["auth"], []string{unthrottled})...)
	if err != nil {
		return nil, err
	}
	b.client = authv1.NewSessionServiceClient(bareClient("http://" + address))
	return b, nil
}

// letJanitorWait makes the janitor leave the sessions alone, as it leaves those that a
// sign-in made. Databases of older binaries have no such column.
const letJanitorWait = `
	DO $$ BEGIN ALTER TABLE auth.sessions ALTER prune_date SET DEFAULT CURRENT_DATE + 30; EXCEPTION WHEN undefined_column THEN NULL; END $$`

func (b *refreshBuild) insertSessions(ctx context.Context, keys tokens.RefreshKeys) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const day = 24 * time.Hour
	expire, last := time.Now().Add(30*day), time.Now().Add(365*day) // each refresh moves the first
	var accounts, sessions [][]any
	for i := range refreshedSessions {
		account, session := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
		text, key := keys.Issue(tokens.Refresh{Session: session, Generation: 1})
		hash := tokens.HashOf(text)
		b.sessions = append(b.sessions, text)
		accounts = append(accounts, []any{[16]byte(account), email(i), ""})
		sessions = append(sessions, []any{[16]byte(session), [16]byte(account), hash[:], key, userAgent, refreshAddress, expire, last})
	}
	for _, statement := range []string{letJanitorWait, "CREATE EXTENSION IF NOT EXISTS pg_walinspect"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"auth", "accounts"}, []string{"id", "email", "password_hash"}, pgx.CopyFromRows(accounts)); err != nil {
		return err
	}
	columns := []string{"id", "account_id", "token_hash", "token_key", "user_agent", "ip_address", "expire_time", "max_expire_time"}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"auth", "sessions"}, columns, pgx.CopyFromRows(sessions)); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE auth.accounts, auth.sessions")
	return err
}

const (
	selectMark = `SELECT pg_current_wal_flush_lsn()::text, clock_timestamp()`
	// The records include those of the other systems, which are idle.
	selectLogged = `
		SELECT coalesce(sum(record_size), 0)::float8, coalesce(sum(fpi_size), 0)::float8, (SELECT count(*) FROM auth.changes WHERE create_time > @since)::float8
		FROM pg_get_wal_stats(@from::text::pg_lsn, pg_current_wal_flush_lsn())`
)

// refreshTurn measures a turn of a build. It begins with a checkpoint, after which each page
// that is changed is written as a whole once.
func (h *stack) refreshTurn(ctx context.Context, b *refreshBuild, o options) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if _, err := b.refresh(ctx, o.settle); err != nil {
		return err
	}
	var from string
	var since time.Time
	if err := conn.QueryRow(ctx, selectMark).Scan(&from, &since); err != nil {
		return err
	}
	s := system{gateway: b.auth, servers: []*process{b.auth}}
	before, begin, err := h.usage(s)
	if err != nil {
		return err
	}
	latencies, err := b.refresh(ctx, o.length)
	if err != nil {
		return err
	}
	after, end, err := h.usage(s)
	if err != nil {
		return err
	}
	taken := turn{
		others: othersIn(before, after, end.Sub(begin).Seconds()), seconds: end.Sub(begin).Seconds(), latencies: latencies,
		gateway: after.of(b.auth.pid()) - before.of(b.auth.pid()), servers: after.servers - before.servers, postgres: after.postgres - before.postgres,
	}
	h.noise = append(h.noise, taken.others)
	b.turns = append(b.turns, taken)
	var records, pages, told float64
	if err := conn.QueryRow(ctx, selectLogged, pgx.NamedArgs{"from": from, "since": since}).Scan(&records, &pages, &told); err != nil {
		return err
	}
	each := float64(len(latencies))
	b.records, b.pages, b.told = append(b.records, records/each), append(b.pages, pages/each), append(b.told, told/each)
	b.auth.forget()
	return nil
}

// refresh refreshes sessions for a time, in as many loops as there are workers, and returns
// the sorted latencies.
func (b *refreshBuild) refresh(ctx context.Context, length time.Duration) ([]time.Duration, error) {
	took := make([][]time.Duration, len(b.next))
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for worker := range b.next {
		group.Go(func() error {
			for time.Since(begin) < length {
				began := time.Now()
				if err := b.refreshOne(ctx, b.turnOf(worker), refreshAddress); err != nil {
					return err
				}
				took[worker] = append(took[worker], time.Since(began))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("refresh: %w: %s", err, b.auth.logTail())
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	b.done += len(all)
	return all, nil
}

// turnOf returns the session that a worker refreshes next. Each worker has its own, and they
// come in an order that spreads them over the pages of the table.
func (b *refreshBuild) turnOf(worker int) int {
	const stride = 7919 // a prime, so that all have their turn
	each := len(b.sessions) / len(b.next)
	b.next[worker]++
	return worker*each + b.next[worker]*stride%each
}

func (b *refreshBuild) refreshOne(ctx context.Context, session int, address string) error {
	response, err := b.client.Refresh(b.token.identify(ctx), &authv1.RefreshRequest{
		RefreshToken: b.sessions[session], Origin: &authv1.Origin{IpAddress: address, UserAgent: userAgent},
	})
	if err == nil {
		b.sessions[session] = response.GetTokens().GetRefreshToken()
	}
	return err
}

// finish refreshes sessions from another address, and stops auth: Postgres' processes report
// what they have written when their connections close.
func (b *refreshBuild) finish(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var since time.Time
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&since); err != nil {
		return err
	}
	for session := range movedSessions {
		if err := b.refreshOne(ctx, session, movedAddress); err != nil {
			return err
		}
	}
	b.done += movedSessions
	if err := conn.QueryRow(ctx, `SELECT count(*)::float8 FROM auth.changes WHERE create_time > $1`, since).Scan(&b.moved); err != nil {
		return err
	}
	b.moved /= movedSessions
	b.auth.stop()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		var updated, hot float64
		err := conn.QueryRow(ctx, `SELECT n_tup_upd::float8, n_tup_hot_upd::float8 FROM pg_stat_user_tables WHERE schemaname = 'auth' AND relname = 'sessions'`).Scan(&updated, &hot)
		if err != nil {
			return err
		}
		if b.hot = hot / max(1, updated); updated >= float64(b.done) {
			return nil
		}
	}
	return errors.New("some updates are not counted yet")
}

// ratio is Postgres' CPU for a refresh with this build over that with the other one.
func (m *refreshes) ratio() []float64 {
	if len(m.builds) < 2 {
		return nil
	}
	return over(m.builds[0].postgres(), m.builds[1].postgres())
}

func (b *refreshBuild) postgres() []float64 {
	return mapped(b.turns, func(t turn) float64 { return t.perRequest(t.postgres) })
}

func (m *refreshes) print(t *table) {
	if len(m.builds) == 0 {
		return
	}
	each := func(name, format string, figures func(*refreshBuild) []float64) {
		cells := []string{name}
		for _, build := range m.builds {
			cells = append(cells, spread(format, figures(build)))
		}
		t.row(cells...)
	}
	titles := []string{fmt.Sprintf("Refreshes of %d sessions, straight at auth", refreshedSessions), "this build", "before"}
	t.row(titles[:1+len(m.builds)]...)
	each("  refreshes/s", "%.0f", func(b *refreshBuild) []float64 { return mapped(b.turns, turn.rate) })
	each("  p50, ms", "%.1f", func(b *refreshBuild) []float64 {
		return mapped(b.turns, func(t turn) float64 { return t.percentile(50) })
	})
	each("  CPU µs/refresh, auth", "%.0f", func(b *refreshBuild) []float64 { return mapped(b.turns, turn.cpu) })
	each("    Postgres", "%.0f", (*refreshBuild).postgres)
	each("  refreshes for each CPU-second of Postgres", "%.0f", func(b *refreshBuild) []float64 {
		var rates []float64
		for _, spent := range b.postgres() {
			rates = append(rates, 1e6/spent)
		}
		return rates
	})
	each("  bytes of WAL/refresh, records", "%.0f", func(b *refreshBuild) []float64 { return b.records })
	each("    full pages, soon after a checkpoint", "%.0f", func(b *refreshBuild) []float64 { return b.pages })
	each("  share of updates that are HOT", "%.4f", func(b *refreshBuild) []float64 { return []float64{b.hot} })
	each("  rows for the gateways per refresh of an unchanged client", "%.3f", func(b *refreshBuild) []float64 { return b.told })
	each("    of a client with another address", "%.3f", func(b *refreshBuild) []float64 { return []float64{b.moved} })
	if ratio := m.ratio(); len(ratio) > 0 {
		t.steady("≤ 0.75", median(ratio) <= 0.75, ratio, "  CPU of Postgres ÷ before", spread("%.2f", ratio))
	}
	t.rounds("refreshes", m.rounds, len(m.builds[0].turns))
}

// settingOf returns a setting of a list; empty if it has none.
func settingOf(settings []string, name string) string {
	for _, setting := range settings {
		if value, ok := strings.CutPrefix(setting, name+"="); ok {
			return value
		}
	}
	return ""
}
