package database

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs (Postgres, appendix A) that are handled specially.
const (
	readOnlyTransaction = "25006"
	tooManyConnections  = "53300"
	featureNotSupported = "0A000"
)

// AsksForRetry reports whether Postgres aborted a statement and its transaction with a
// retryable error: a serialization failure, a deadlock, or a prepared statement that a
// schema change or a pooler has invalidated.
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

// statementIsStale reports whether a prepared statement is invalid. "cached plan must not
// change result type" has no specific code; unlike the message, the name of the routine is
// not translated.
func statementIsStale(refusal *pgconn.PgError) bool {
	switch refusal.Code {
	case featureNotSupported:
		return refusal.Routine == "RevalidateCachedQuery"
	case "26000", "42P05": // the prepared statement does not exist; it already exists
		return true
	}
	return false
}

// makesUnusable reports whether an error shows that its connection is unusable, and whether the
// other connections of the pool probably are too.
func makesUnusable(err error) (one, all bool) {
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
	// maxRetryDelay limits the backoff, which doubles with each attempt.
	maxRetryDelay = 250 * time.Millisecond
)

// retry runs work again while its error is retryable and ctx has not ended.
func retry(ctx context.Context, work func() error) error {
	for n := 1; ; n++ {
		err := work()
		if err == nil || n == maxTries || !AsksForRetry(err) || !backOff(ctx, n) {
			return err
		}
	}
}

// backOff waits with exponential backoff and jitter, so that transactions that collided do not
// collide again. It reports false if ctx ends first.
func backOff(ctx context.Context, n int) bool {
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
