package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/batch"
)

// Reader answers reads from a standby that has replayed the position that the read
// requires, and from the primary otherwise. Without a standby, every read goes to the
// primary.
type Reader struct {
	primary *Pool
	standby *Standby
}

// NewReader returns a reader. standby may be nil.
func NewReader(primary *Pool, standby *Standby) *Reader { return &Reader{primary, standby} }

// Read is a read at a position.
type Read struct {
	*Reader
	at position
	ok bool
}

// At returns a read of everything that was committed before a position was taken. The
// primary answers a read at no position.
func (r *Reader) At(position string) Read {
	if r.standby == nil || position == "" {
		return Read{Reader: r}
	}
	at, ok := parsePosition(position)
	return Read{r, at, ok}
}

// Query is [Pool.Query]. The primary answers whenever the standby can't, and also if the
// standby finds no row: what does not exist there may have been created since.
func (r Read) Query(ctx context.Context, sql string, arguments ...any) (pgx.Rows, error) {
	if r.ok {
		if rows := r.standby.query(ctx, r.at, sql, r.primary.parseOnce(arguments)); rows != nil {
			return rows, nil
		}
	}
	return r.primary.Query(ctx, sql, arguments...)
}

// QueryRow is [Pool.QueryRow] by Query.
func (r Read) QueryRow(ctx context.Context, sql string, arguments ...any) pgx.Row {
	return rowOf(func() (pgx.Rows, error) { return r.Query(ctx, sql, arguments...) })
}

// A read that the standby does not answer in time is answered by the primary within the
// same deadline, so the bounds are short.
const (
	standbyAcquireLimit = 100 * time.Millisecond
	standbyReadLimit    = 250 * time.Millisecond
	// standbyShare is the part of the remaining time that a read may take on the standby.
	standbyShare = 4
	// The standby is not asked for these times after it was behind, or failed. Then one
	// read finds out whether it works again.
	behindPause = 100 * time.Millisecond
	failedPause = time.Second
)

// Standby is a pool of connections to a standby of a service's database.
type Standby struct {
	pool        *pgxpool.Pool
	limit       int32        // of connections
	inUse       atomic.Int32 // connections, including those that are being opened
	pooled      atomic.Bool  // a pooler is between this process and the standby
	pausedUntil atomic.Int64 // in Unix nanoseconds; 0 while the standby is asked
	pausedFor   atomic.Int64 // the outcome of the read before the pause
	reads       [outcomes]atomic.Int64
	distance    atomic.Int64 // in bytes
}

// outcome is how a read at a position was answered.
type outcome int64

const (
	answeredByStandby outcome = iota
	primaryBehind             // by the primary: the standby was behind
	primaryFailed             // by the primary: the standby failed, was slow, or was no standby of it
	primaryBusy               // by the primary: all connections to the standby were in use
	primaryEmpty              // by the primary: the standby found no row
	outcomes
)

// OpenStandby returns the pool of a service for reads on a standby. It does not connect.
// The role and its passwords are those of [Open].
func OpenStandby(ctx context.Context, url, service string, otherPasswords ...string) (*Standby, error) {
	config, err := poolConfig(url, service, strings.ToUpper(service)+"_READ_DATABASE_URL")
	if err != nil {
		return nil, err
	}
	s := &Standby{}
	// The role's settings in its database, which the standby has too, are those of a
	// session. So what a pooler refuses need not be sent.
	setSession(config.ConnConfig, service, true)
	if !strings.Contains(url, execMode) {
		config.BeforeConnect, config.AfterConnect = s.avoidPrepared, s.detectPooler
	}
	s.limit = config.MaxConns
	s.pool, err = newPool(ctx, config, newPasswords(config.ConnConfig.Password, otherPasswords))
	if err != nil {
		return nil, fmt.Errorf("open the standby of %s: %w", service, err)
	}
	return s, nil
}

// Close closes the connections. A nil Standby has none.
func (s *Standby) Close() {
	if s != nil {
		s.pool.Close()
	}
}

// errBusy leaves the standby to the reads that have its connections: a read waits for none.
var errBusy = errors.New("all connections to the standby are in use")

var errPooler = errors.New("a pooler is between this process and the standby")

// detectPooler refuses the first connection through a pooler, which may run each
// transaction on another backend, without the statements that were prepared before.
func (s *Standby) detectPooler(ctx context.Context, conn *pgx.Conn) error {
	var process uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&process); err != nil {
		return err
	}
	if process != conn.PgConn().PID() && !s.pooled.Swap(true) {
		return errPooler
	}
	return nil
}

// avoidPrepared prepares no statements on connections through a pooler.
func (s *Standby) avoidPrepared(_ context.Context, config *pgx.ConnConfig) error {
	if s.pooled.Load() {
		config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return nil
}

// standbyQuery is a query that a member of a round sends (package batch).
type standbyQuery struct {
	at        position
	sql       string
	arguments []any
	rows      *readRows // nil if the primary has to answer
}

// query returns nil if the primary has to answer.
func (s *Standby) query(ctx context.Context, at position, sql string, arguments []any) pgx.Rows {
	if because, ok := s.admit(); !ok {
		s.count(because, 1)
		return nil
	}
	one := &standbyQuery{at: at, sql: sql, arguments: arguments}
	together, err := batch.From(ctx).Do(ctx, s, one, func(queries []any) { s.send(ctx, queries) })
	if !together && err == nil {
		s.send(ctx, []any{one})
	}
	if one.rows == nil {
		return nil
	}
	return one.rows
}

// admit reports whether the standby may be asked, or why not.
func (s *Standby) admit() (outcome, bool) {
	until := s.pausedUntil.Load()
	if until == 0 {
		return 0, true
	}
	now := time.Now()
	if now.UnixNano() < until || !s.pausedUntil.CompareAndSwap(until, now.Add(failedPause).UnixNano()) {
		return outcome(s.pausedFor.Load()), false
	}
	return 0, true
}

// send sends queries to the standby in one round trip, and stores the rows of those that it
// answers.
func (s *Standby) send(ctx context.Context, queries []any) {
	limit := standbyReadLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/standbyShare)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	state, found, err := s.attempt(limited, queries)
	switch {
	case err != nil && ctx.Err() != nil: // the caller has left
	case errors.Is(err, errBusy):
		s.count(primaryBusy, len(queries))
	case err != nil && AsksForRetry(err): // such as a conflict with recovery: the next read may succeed
		s.count(primaryFailed, len(queries))
	case err != nil || state == standbyUnusable:
		s.pause(primaryFailed, failedPause)
		s.count(primaryFailed, len(queries))
	case state == standbyBehind:
		s.pause(primaryBehind, behindPause)
		s.count(primaryBehind, len(queries))
	default:
		s.pausedUntil.Store(0)
		s.answer(queries, found)
	}
}

// answer gives the queries their rows, except those without any.
func (s *Standby) answer(queries []any, found []*readRows) {
	for i, one := range queries {
		if len(found[i].rows) == 0 {
			s.count(primaryEmpty, 1)
			continue
		}
		s.count(answeredByStandby, 1)
		one.(*standbyQuery).rows = found[i]
	}
}

func (s *Standby) pause(because outcome, pause time.Duration) {
	s.pausedFor.Store(int64(because))
	s.pausedUntil.Store(time.Now().Add(pause).UnixNano())
}

func (s *Standby) count(how outcome, n int) { s.reads[how].Add(int64(n)) }

// The states of a standby.
const (
	standbyReady    = "ready"
	standbyBehind   = "behind"
	standbyUnusable = "unusable"
)

// A server that was promoted has a history of its own. The timeline of the replay is no
// column of any view: that of the last restartpoint and of the last page written are
// never later, so a standby that changes its timeline is not used until one of them has
// changed. pg_last_wal_replay_lsn() is behind for ever only if the server is no standby.
const (
	selectStandbyState = `
		SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'unusable'
			WHEN s.system_identifier::text <> $2::text OR $3::text::bigint NOT IN (c.timeline_id, r.min_recovery_end_timeline) THEN 'unusable'
			WHEN pg_last_wal_replay_lsn() >= $1::text::pg_lsn THEN 'ready' ELSE 'behind' END,
			coalesce(greatest(pg_wal_lsn_diff($1::text::pg_lsn, pg_last_wal_replay_lsn()), 0), 0)::bigint
		FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r`
	// A connection ends with its server, so it does not change to another cluster or an
	// earlier timeline.
	selectKnownStandbyState = `
		SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'unusable'
			WHEN pg_last_wal_replay_lsn() >= $1::text::pg_lsn THEN 'ready' ELSE 'behind' END,
			coalesce(greatest(pg_wal_lsn_diff($1::text::pg_lsn, pg_last_wal_replay_lsn()), 0), 0)::bigint`
)

// historyKey is the cluster and the timeline that a connection's server was seen on.
const historyKey = "gatehouse: history"

// attempt returns the rows of each query if the standby has replayed their positions.
func (s *Standby) attempt(ctx context.Context, queries []any) (state string, found []*readRows, err error) {
	defer s.inUse.Add(-1)
	if s.inUse.Add(1) > s.limit {
		return "", nil, errBusy
	}
	acquiring, cancel := context.WithTimeout(ctx, standbyAcquireLimit)
	defer cancel()
	conn, err := s.pool.Acquire(acquiring)
	if err != nil {
		return "", nil, err
	}
	defer conn.Release()
	history := conn.Conn().PgConn().CustomData()
	var sent pgx.Batch
	for _, one := range queries {
		query := one.(*standbyQuery)
		if history[historyKey] == query.at.history() && !s.pooled.Load() {
			sent.Queue(selectKnownStandbyState, query.at.lsn)
		} else {
			sent.Queue(selectStandbyState, query.at.lsn, query.at.system, query.at.timeline)
		}
		sent.Queue(query.sql, query.arguments...)
	}
	results := conn.SendBatch(ctx, &sent)
	defer func() {
		if closed := results.Close(); err == nil {
			err = closed
		}
	}()
	for _, one := range queries {
		var distance int64
		if err := results.QueryRow().Scan(&state, &distance); err != nil {
			return "", nil, err
		}
		s.distance.Store(distance)
		if state == standbyUnusable { // the next connection may reach another server of the URL
			history[unusableKey] = true
		}
		if state != standbyReady {
			return state, nil, nil
		}
		rows, _ := results.Query() // rows.Err returns its error
		found = append(found, readAll(rows))
		if err := rows.Err(); err != nil {
			return "", nil, err
		}
		history[historyKey] = one.(*standbyQuery).at.history()
	}
	return state, found, nil
}

func (p position) history() string { return p.system + "." + p.timeline }
