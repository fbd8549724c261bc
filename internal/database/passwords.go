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

// passwords are the possible passwords of a role. While a secret is rotated, the role has
// the old password until the schema is applied, and then the new one. Connections use the
// password that was accepted last.
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

// use sets the password of a connection before it is opened.
func (p *passwords) use(_ context.Context, config *pgx.ConnConfig) error {
	config.Password = p.known[p.current.Load()]
	return nil
}

// switchIfWrong switches to the next password if err reports a wrong password. It reports whether
// it did, so that another attempt may succeed.
func (p *passwords) switchIfWrong(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	failed, connecting := errors.AsType[*pgconn.ConnectError](err)
	if !ok || refusal.Code != invalidPassword || !connecting || len(p.known) == 1 {
		return false
	}
	at := int64(slices.Index(p.known, failed.Config.Password))
	p.current.CompareAndSwap(at, (at+1)%int64(len(p.known)))
	return true
}

// connect opens a connection with the first password that is accepted.
func (p *passwords) connect(ctx context.Context, config *pgx.ConnConfig) (conn *pgx.Conn, err error) {
	for range p.known {
		config.Password = p.known[p.current.Load()]
		if conn, err = pgx.ConnectConfig(ctx, config); err == nil || !p.switchIfWrong(err) {
			return conn, err
		}
	}
	return nil, err
}

// otherPasswords is the number of alternative passwords of a pool's role.
func otherPasswords(pool *pgxpool.Pool) int {
	watch, ok := pool.Config().ConnConfig.Tracer.(*errorTracer)
	if !ok {
		return 0
	}
	return len(watch.passwords.known) - 1
}

func wrongPassword(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.Code == invalidPassword
}
