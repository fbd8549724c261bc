package database

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const invalidPassword = "28P01"

// passwords are those that a role may have just now: while a secret is rotated, the
// role has the old password until the schema is applied, and the new one afterwards.
// Connections use the one that was accepted last.
type passwords struct {
	known   []string
	current atomic.Int64
}

// newPasswords returns the URL's password, first, and the others.
func newPasswords(first string, others []string) *passwords {
	p := &passwords{known: []string{first}}
	for _, one := range others {
		if !slices.Contains(p.known, one) {
			p.known = append(p.known, one)
		}
	}
	return p
}

// use gives a connection its password before it is made.
func (p *passwords) use(_ context.Context, config *pgx.ConnConfig) error {
	config.Password = p.known[p.current.Load()]
	return nil
}

// refused moves on from a password with which a connection was refused. It reports
// whether err is such a refusal, after which another try may succeed.
func (p *passwords) refused(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	failed, connecting := errors.AsType[*pgconn.ConnectError](err)
	if !ok || refusal.Code != invalidPassword || !connecting || len(p.known) == 1 {
		return false
	}
	at := int64(slices.Index(p.known, failed.Config.Password))
	p.current.CompareAndSwap(at, (at+1)%int64(len(p.known)))
	return true
}

// connect makes a connection with the first password that is accepted.
func (p *passwords) connect(ctx context.Context, config *pgx.ConnConfig) (conn *pgx.Conn, err error) {
	for range p.known {
		config.Password = p.known[p.current.Load()]
		if conn, err = pgx.ConnectConfig(ctx, config); err == nil || !p.refused(err) {
			return conn, err
		}
	}
	return nil, err
}

// otherPasswords is how many passwords a pool's role may have besides one.
func otherPasswords(pool *pgxpool.Pool) int {
	watch, ok := pool.Config().ConnConfig.Tracer.(*watcher)
	if !ok {
		return 0
	}
	return len(watch.passwords.known) - 1
}

func wrongPassword(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.Code == invalidPassword
}
