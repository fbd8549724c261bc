package database

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Execer runs a statement: a pool or a transaction.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Missing reports whether a query found no row.
func Missing(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// Violates reports whether a statement failed because of a constraint.
func Violates(err error, constraint string) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.ConstraintName == constraint
}

// Optional maps the empty string to NULL.
func Optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// Seconds converts seconds, as extract(epoch FROM …) returns them, to a duration.
func Seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
