package database

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs (Postgres, appendix A) that have a meaning of their own here.
const (
	readOnlyTransaction = "25006"
	tooManyConnections  = "53300"
	featureNotSupported = "0A000"
)

// AsksForRetry reports whether Postgres undid a statement, with its transaction,
// for a reason that another try may not meet: a serialization failure, a
// deadlock, or a prepared statement that a change of the tables or a pooler has
// made useless.
func AsksForRetry(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch refusal.Code {
	case "40001", "40P01":
		return true
	}
	return statementIsStale(refusal)
}

// statementIsStale reports whether a prepared statement isn't what the client
// believes. "cached plan must not change result type" has no code of its own;
// the routine's name isn't translated, unlike the message.
func statementIsStale(refusal *pgconn.PgError) bool {
	switch refusal.Code {
	case featureNotSupported:
		return refusal.Routine == "RevalidateCachedQuery"
	case "26000", "42P05": // there is no such prepared statement; there is one already
		return true
	}
	return false
}

// condemns reports whether an error says that its connection is of no more use,
// and whether the pool's others are likely no better.
func condemns(err error) (one, all bool) {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false, false
	}
	switch {
	case refusal.Code == readOnlyTransaction || statementIsStale(refusal):
		return true, true
	case strings.HasPrefix(refusal.Code, "08"), refusal.Code == "57P01", refusal.Code == "57P02", refusal.Code == "57P03":
		return true, false
	}
	return false, false
}

const (
	maxTries   = 10
	retryDelay = 5 * time.Millisecond
	// maxRetryDelay bounds the wait before a try, which doubles each time.
	maxRetryDelay = 250 * time.Millisecond
)

// retry runs work again while its error asks for that and there is time.
func retry(ctx context.Context, work func() error) error {
	for n := 1; ; n++ {
		err := work()
		if err == nil || n == maxTries || !AsksForRetry(err) || !pause(ctx, n) {
			return err
		}
	}
}

// pause waits before the next try, each time longer and by chance, so that those
// who collided don't again; false when ctx ends first.
func pause(ctx context.Context, n int) bool {
	longest := min(retryDelay<<min(n, 10), maxRetryDelay)
	timer := time.NewTimer(retryDelay + rand.N(longest))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
