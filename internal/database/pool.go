package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/batch"
)

// Pool is a pool of connections that retries statements after a retryable error of
// Postgres. Each statement outside of a transaction is its own transaction.
type Pool struct {
	*pgxpool.Pool
	statements parsedStatements
}

// Retrying returns a Pool over the connections of another.
func Retrying(pool *pgxpool.Pool) *Pool { return &Pool{Pool: pool} }

// Transact runs work in a transaction at read committed, and rolls it back if work returns
// an error. It runs work again, in a new transaction, if Postgres aborted the transaction
// with a retryable error: the results of work must not depend on an earlier run.
func (p *Pool) Transact(ctx context.Context, work func(pgx.Tx) error) error {
	return retry(ctx, func() error {
		return p.resetIfUnusable(pgx.BeginTxFunc(ctx, p, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, work))
	})
}

// BeginTx is pgxpool's BeginTx, but waits for a connection like Acquire.
func (p *Pool) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, options)
	if err != nil {
		conn.Release()
		return nil, p.resetIfUnusable(err)
	}
	return &pooledTx{Tx: tx, conn: conn}, nil
}

// Begin is BeginTx at read committed.
func (p *Pool) Begin(ctx context.Context) (pgx.Tx, error) {
	return p.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
}

// pooledTx releases its connection when it ends.
type pooledTx struct {
	pgx.Tx
	conn *pgxpool.Conn
}

func (t *pooledTx) Commit(ctx context.Context) error {
	err := t.Tx.Commit(ctx)
	t.release()
	return err
}

func (t *pooledTx) Rollback(ctx context.Context) error {
	err := t.Tx.Rollback(ctx)
	t.release()
	return err
}

func (t *pooledTx) release() {
	if t.conn != nil {
		t.conn.Release()
		t.conn = nil
	}
}

// Acquire is pgxpool's Acquire, except that it waits, until ctx ends, while Postgres
// accepts no more connections.
func (p *Pool) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	batch.From(ctx).Leave() // before it blocks
	for n := 1; ; n++ {
		conn, err := p.Pool.Acquire(ctx)
		if err == nil {
			return conn, nil
		}
		if wrongPassword(err) && n <= otherPasswords(p.Pool) {
			continue // the tracer has switched to the next password
		}
		refusal, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || refusal.Code != tooManyConnections || n == unboundedWaits && !bounded(ctx) || !backOff(ctx, n) {
			return nil, err
		}
	}
}

// unboundedWaits is the maximum number of waits, in total some seconds, of a caller whose
// context has no deadline.
const unboundedWaits = 50

func bounded(ctx context.Context) bool {
	_, ok := ctx.Deadline()
	return ok
}

// Exec is pgxpool's Exec with retries.
func (p *Pool) Exec(ctx context.Context, sql string, arguments ...any) (tag pgconn.CommandTag, err error) {
	arguments = p.parseOnce(arguments)
	err = retry(ctx, func() error {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		tag, err = conn.Exec(ctx, sql, arguments...)
		return p.resetIfUnusable(err)
	})
	return tag, err
}

// Query is pgxpool's Query with retries until the first row arrives. A call in a batch may
// share the round trip of the other calls.
func (p *Pool) Query(ctx context.Context, sql string, arguments ...any) (found pgx.Rows, err error) {
	arguments = p.parseOnce(arguments)
	if member := batch.From(ctx); member != nil {
		if found, err := p.queryInBatch(ctx, member, sql, arguments); found != nil || err != nil {
			return found, err
		}
	}
	err = retry(ctx, func() error {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		result, err := conn.Query(ctx, sql, arguments...)
		if err != nil {
			conn.Release()
			return p.resetIfUnusable(err)
		}
		begun := &rows{Rows: result, conn: conn}
		begun.ready = begun.Rows.Next()
		begun.peeked = true
		found = begun
		if begun.ready {
			return nil
		}
		begun.release()
		return p.resetIfUnusable(result.Err())
	})
	if err != nil && found == nil {
		return nil, err
	}
	// As in pgx, the reader of the rows receives an error of the statement.
	return found, nil
}

// rows are a result whose first row was already read. They release their connection when
// they are closed.
type rows struct {
	pgx.Rows
	conn          *pgxpool.Conn
	peeked, ready bool
}

func (r *rows) Next() bool {
	ready := r.ready
	if r.peeked {
		r.peeked = false
	} else {
		ready = r.Rows.Next()
	}
	if !ready {
		r.release()
	}
	return ready
}

func (r *rows) Close() {
	r.Rows.Close()
	r.release()
}

func (r *rows) release() {
	if r.conn != nil {
		r.conn.Release()
		r.conn = nil
	}
}

// QueryRow is pgxpool's QueryRow with retries. Scan runs the statement.
func (p *Pool) QueryRow(ctx context.Context, sql string, arguments ...any) pgx.Row {
	return rowOf(func() (pgx.Rows, error) { return p.Query(ctx, sql, arguments...) })
}

// rowOf returns the first row of a query, which Scan runs.
func rowOf(query func() (pgx.Rows, error)) pgx.Row {
	return rowFunc(func(destinations []any) error {
		found, err := query()
		if err != nil {
			return err
		}
		defer found.Close()
		if !found.Next() {
			if err := found.Err(); err != nil {
				return err
			}
			return pgx.ErrNoRows
		}
		if err := found.Scan(destinations...); err != nil {
			return err
		}
		found.Close()
		return found.Err()
	})
}

type rowFunc func(destinations []any) error

func (f rowFunc) Scan(destinations ...any) error { return f(destinations) }

// resetIfUnusable resets the pool if an error shows that its connections are unusable, and returns the
// error.
func (p *Pool) resetIfUnusable(err error) error {
	if _, all := makesUnusable(err); all {
		p.Reset()
	}
	return err
}

// The defaults of a pool, which its URL may override.
const (
	maxConnections = 16
	maxIdleTime    = 5 * time.Minute
	// The maximum lifetime of a connection, with a random addition so that connections do
	// not all reconnect at once after a change of the server's address.
	maxLifetime    = 30 * time.Minute
	lifetimeJitter = 10 * time.Minute
	connectTimeout = 2 * time.Second
	unusableKey    = "gatehouse: unusable"
)

// Open opens the pool of a service and checks the encoding of the database. The connections
// have the SessionSettings and accept writes. Errors: ErrReadOnly, and an error for a
// malformed URL, which does not contain the URL.
//
// The role may have one of the other passwords instead of the URL's. The pool uses the
// password that is accepted; if it is refused later, it tries the next.
func Open(ctx context.Context, url, service string, otherPasswords ...string) (*pgxpool.Pool, error) {
	config, err := poolConfig(url, service, strings.ToUpper(service)+"_DATABASE_URL")
	if err != nil {
		return nil, err
	}
	requireWritable(config.ConnConfig, url)
	known := newPasswords(config.ConnConfig.Password, otherPasswords)
	pooled, err := probe(ctx, config.ConnConfig, known)
	if err != nil {
		return nil, fmt.Errorf("reach the database of %s: %w", service, err)
	}
	setSession(config.ConnConfig, service, pooled)
	if pooled && !strings.Contains(url, execMode) {
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pool, err := newPool(ctx, config, known)
	if err != nil {
		return nil, fmt.Errorf("open the database of %s: %w", service, err)
	}
	return pool, nil
}

// execMode is the parameter of a URL that says how pgx sends statements.
const execMode = "default_query_exec_mode"

// poolConfig returns the configuration of a pool with the defaults that its URL does not
// override. The error names the setting of the URL, and does not contain the URL.
func poolConfig(url, service, setting string) (*pgxpool.Config, error) {
	config, err := parsePoolConfig(url)
	if err != nil {
		return nil, errors.New(setting + " is not a valid Postgres URL")
	}
	given := func(setting string) bool { return strings.Contains(url, setting) }
	if !given("pool_max_conns") {
		config.MaxConns = maxConnections
	}
	if !given("pool_max_conn_idle_time") {
		config.MaxConnIdleTime = maxIdleTime
	}
	if !given("pool_max_conn_lifetime=") {
		config.MaxConnLifetime = maxLifetime
	}
	if !given("pool_max_conn_lifetime_jitter") {
		config.MaxConnLifetimeJitter = lifetimeJitter
	}
	config.ConnConfig.ConnectTimeout = connectTimeout
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "gatehouse " + service
	}
	return config, nil
}

// newPool returns a pool that closes unusable connections, and connects with one of the
// passwords.
func newPool(ctx context.Context, config *pgxpool.Config, known *passwords) (*pgxpool.Pool, error) {
	watch := &errorTracer{next: config.ConnConfig.Tracer, passwords: known}
	before := config.BeforeConnect
	config.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
		if before != nil {
			if err := before(ctx, config); err != nil {
				return err
			}
		}
		return known.use(ctx, config)
	}
	config.ConnConfig.Tracer = watch
	config.AfterRelease = func(conn *pgx.Conn) bool { return !isUnusable(conn) }
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	watch.pool.Store(pool)
	return pool, nil
}

// MaxConns returns how many connections the pool of a URL may open.
func MaxConns(url string) (int, error) {
	config, err := parsePoolConfig(url)
	if err != nil {
		return 0, err
	}
	if !strings.Contains(url, "pool_max_conns") {
		return maxConnections, nil
	}
	return int(config.MaxConns), nil
}

// probe checks the database over one connection, and reports whether a pooler such as
// PgBouncer is between this process and Postgres. With a pooler, the process ID of
// the backend differs from the one in the connection's startup messages. A pooler may
// run each transaction on a different backend, which lacks the statements that were
// prepared on another.
func probe(ctx context.Context, config *pgx.ConnConfig, known *passwords) (pooled bool, err error) {
	config = config.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := known.connect(ctx, config)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := CheckEncoding(ctx, conn); err != nil {
		return false, err
	}
	var process uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&process); err != nil {
		return false, err
	}
	return process != conn.PgConn().PID(), nil
}

// Writable returns ErrReadOnly and resets the pool if its connections accept no writes.
func Writable(ctx context.Context, pool *pgxpool.Pool) error {
	var readOnly bool
	if err := pool.QueryRow(ctx, "SELECT current_setting('transaction_read_only')::boolean").Scan(&readOnly); err != nil {
		return err
	}
	if readOnly {
		pool.Reset()
		return ErrReadOnly
	}
	return nil
}

// errorTracer inspects the errors of all statements, and marks unusable connections, which the
// pool then closes when they are released.
type errorTracer struct {
	pool      atomic.Pointer[pgxpool.Pool]
	next      pgx.QueryTracer
	passwords *passwords
}

// TraceConnectStart implements pgx.ConnectTracer.
func (w *errorTracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (w *errorTracer) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	w.passwords.switchIfWrong(data.Err)
}

// TraceQueryStart implements pgx.QueryTracer.
func (w *errorTracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if w.next != nil {
		return w.next.TraceQueryStart(ctx, conn, data)
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (w *errorTracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	if w.next != nil {
		w.next.TraceQueryEnd(ctx, conn, data)
	}
	w.inspect(conn, data.Err)
}

// TraceBatchStart implements pgx.BatchTracer.
func (w *errorTracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (w *errorTracer) TraceBatchQuery(_ context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	w.inspect(conn, data.Err)
}

// TraceBatchEnd implements pgx.BatchTracer.
func (w *errorTracer) TraceBatchEnd(_ context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	w.inspect(conn, data.Err)
}

func (w *errorTracer) inspect(conn *pgx.Conn, err error) {
	one, all := makesUnusable(err)
	if one {
		conn.PgConn().CustomData()[unusableKey] = true
	}
	if pool := w.pool.Load(); all && pool != nil {
		pool.Reset()
	}
}

func isUnusable(conn *pgx.Conn) bool {
	_, ok := conn.PgConn().CustomData()[unusableKey]
	return ok
}
