package schema

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// Another transaction may hold a lock that a statement needs. While the statement waits,
// later callers of the table wait behind it, so it waits briefly and the whole transaction
// is repeated.
const (
	lockAttempts = 10
	lockPause    = 2 * time.Second // half of it is random
	buildPause   = time.Second
)

// Apply migrates the database to the state that schema.sql declares. It does not change a
// database with a larger number. Errors: *DestructiveError for changes that lose data,
// *LockingError for statements that block a large table, *ForeignError for a database of
// another program.
//
// The changes are made in one transaction, except for new indexes of large tables: they are
// built concurrently after it, and the number is stored after them. A call that fails
// between the two leaves the old number, and the next one builds what is missing.
func Apply(ctx context.Context, cfg Config) (Result, error) {
	var done, built []string
	for locked := 0; ; {
		result, indexes, err := applyOnce(ctx, cfg)
		switch {
		case errors.Is(err, errBuilding):
			built = nil // another process built them, and may fail
			if err := pause(ctx, buildPause); err != nil {
				return Result{}, fmt.Errorf("wait for an index that another process builds: %w", err)
			}
			continue
		case hasCode(err, lockNotAvailable, deadlockDetected):
			if locked++; locked == lockAttempts {
				return Result{}, err
			}
			if err := pause(ctx, lockPause/2+rand.N(lockPause/2)); err != nil {
				return Result{}, err
			}
			continue
		case err != nil:
			return Result{}, err
		}
		done = append(done, result.Statements...)
		if len(indexes) == 0 {
			result.Statements = done
			return result, nil
		}
		if slices.Equal(texts(indexes), built) {
			return Result{}, fmt.Errorf("the tables were changed, but these indexes are still missing after they were built: %s", strings.Join(built, "; "))
		}
		if err := buildIndexes(ctx, cfg, indexes); err != nil {
			return Result{}, err
		}
		built = texts(indexes)
		done = append(done, built...)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// applyOnce makes all changes except for the indexes that it returns.
func applyOnce(ctx context.Context, cfg Config) (Result, []statement, error) {
	t, err := open(ctx, cfg)
	if err != nil {
		return Result{}, nil, err
	}
	defer t.close()
	result := Result{Own: map[string]Result{}}
	for _, s := range t.sources {
		one := Result{Number: max(s.stored, s.number), Newer: s.newer()}
		if s.own == "" {
			result.Number, result.Newer = one.Number, one.Newer
		} else {
			result.Own[s.own] = one
		}
	}
	if t.skipNewer(); len(t.sources) > 0 {
		result.Statements, err = t.apply(ctx)
	}
	if err != nil {
		return Result{}, nil, err
	}
	return result, t.indexes, nil
}

// buildIndexes creates indexes concurrently, which Postgres does outside of transactions.
// The wait for older transactions blocks nobody, so it has no limit but that of ctx.
func buildIndexes(ctx context.Context, cfg Config, indexes []statement) error {
	conn, err := parseURL(cfg.DatabaseURL)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	db := stdlib.OpenDB(*conn)
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, setting := range []string{"SET statement_timeout = 0", "SET lock_timeout = 0"} {
		if _, err := db.ExecContext(ctx, setting); err != nil {
			return connectError(err)
		}
	}
	for _, index := range indexes {
		_, err := db.ExecContext(ctx, index.sql)
		// Another process that applies the same schema may have been faster.
		if err != nil && !hasCode(err, duplicateTable) {
			return fmt.Errorf("the tables were changed; build the index (run it again after the cause is gone): execute %q: %w", index.text, err)
		}
	}
	return nil
}
