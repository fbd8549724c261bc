package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	closeAudit = `SELECT coalesce(auth.close_audit(), '')`

	// A long statement on the audit log makes one attempt fail; a backup makes all of them
	// fail, and those of the next hour.
	closeAttempts = 5
	closePause    = time.Second // up to twice as long

	lockNotAvailable = "55P03"
)

// closeAudit closes the table of the audit log at the beginning of a month. A failure does
// not matter before the month is over again, because the open table takes all events.
func (j *Janitor) closeAudit(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		closed, err := j.closeAuditOnce(ctx)
		if closed != "" {
			j.logger.LogAttrs(ctx, slog.LevelInfo, "janitor: audit table closed", slog.String("table", closed))
		}
		if err == nil {
			return nil
		}
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != lockNotAvailable || attempt == closeAttempts {
			return fmt.Errorf("close the audit: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(closePause + rand.N(closePause)):
		}
	}
}

func (j *Janitor) closeAuditOnce(ctx context.Context) (closed string, err error) {
	err = j.db.Transact(ctx, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, tryPruneLock).Scan(&locked); err != nil || !locked {
			return err
		}
		return tx.QueryRow(ctx, closeAudit).Scan(&closed)
	})
	return closed, err
}
