package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/telemetry"
)

// An event that cannot be applied must not keep those of other accounts from being
// applied, and must not be lost or confirmed. So the cursor stays before it, the reader
// goes on from a position of its own, applies each event in a transaction of its own,
// and retries those that failed. When all are applied, the cursor catches up. A copy
// that is killed in between begins at the cursor again: events that are not newer are
// ignored.

const (
	// stuckTries is how often a batch may fail before its events are applied apart.
	stuckTries = 3
	// maxStuck bounds the events that wait. With more, the fault is hardly that of an
	// account, and the reader stays where it is.
	maxStuck = 100
	// aheadPause is the pause between reads ahead. An auth older than the field position
	// returns the same events each time.
	aheadPause      = time.Second
	minStuckBackoff = time.Second
	maxStuckBackoff = time.Minute
)

// advance is how far a reader is ahead of its cursor.
type advance struct {
	cursor   string // that the service has committed
	position string // up to which all but the stuck events are applied
	stuck    map[string]*stuckEvent
}

// stuckEvent is the latest event of an account that cannot be applied.
type stuckEvent struct {
	event   *authv1.AccountEvent
	backoff time.Duration
	next    time.Time
}

var errManyStuck = errors.New("too many accounts have events that cannot be applied")

var stuckAccounts, _ = otel.Meter(telemetry.Scope).Int64Gauge("gatehouse.lifecycle.stuck", metric.WithUnit("{account}"),
	metric.WithDescription("Accounts whose latest change the service cannot apply; it retries, and continues with the others."))

// measure reports how many accounts are stuck.
func (r *Reader) measure(ctx context.Context) {
	n := 0
	if r.ahead != nil {
		n = len(r.ahead.stuck)
	}
	stuckAccounts.Record(ctx, int64(n), metric.WithAttributes(attribute.String("service", r.Service)))
}

func (r *Reader) setAhead(ctx context.Context, ahead *advance) {
	r.ahead, r.failed = ahead, 0
	r.measure(ctx)
}

// isStuck reports whether a batch that failed is to be applied event by event: not while
// the database is unreachable.
func (r *Reader) isStuck(err error) bool {
	if database.IsUnavailable(err) {
		return false
	}
	r.failed++
	return r.failed >= stuckTries
}

// applyApart applies each event in a transaction of its own, and moves the position.
func (r *Reader) applyApart(ctx context.Context, response *authv1.WatchAccountsResponse) error {
	defer r.measure(ctx)
	for _, event := range response.GetEvents() {
		if err := r.applyOne(ctx, event); err != nil {
			return err
		}
	}
	r.ahead.position = response.GetCursor()
	return nil
}

// applyOne applies one event, or notes that it is stuck. Its error stops the reader.
func (r *Reader) applyOne(ctx context.Context, event *authv1.AccountEvent) error {
	id := event.GetAccountId()
	err := r.DB.Transact(ctx, func(tx pgx.Tx) error { return r.Apply(ctx, tx, event) })
	known := r.ahead.stuck[id]
	switch {
	case err == nil && known != nil:
		delete(r.ahead.stuck, id)
		r.Logger.LogAttrs(ctx, slog.LevelInfo, "lifecycle: stuck account event applied", slog.String("account_id", id))
		return nil
	case err == nil:
		return nil
	case ctx.Err() != nil, database.IsUnavailable(err):
		return fmt.Errorf("apply the event of account %s: %w", id, err)
	case known == nil && len(r.ahead.stuck) >= maxStuck:
		return fmt.Errorf("%w, the latest of account %s: %w", errManyStuck, id, err)
	case known == nil:
		known = &stuckEvent{}
		r.ahead.stuck[id] = known
		r.Logger.LogAttrs(ctx, slog.LevelError, "lifecycle: account event stuck, continuing with other accounts", slog.String("account_id", id), slog.String("cause", err.Error()))
	}
	known.event, known.backoff = event, min(max(2*known.backoff, minStuckBackoff), maxStuckBackoff)
	known.next = time.Now().Add(known.backoff)
	return nil
}

// retry tries the stuck events that are due again. Without any left, it commits the
// position as the cursor.
func (r *Reader) retry(ctx context.Context) error {
	defer r.measure(ctx)
	for _, stuck := range r.ahead.stuck {
		if time.Now().Before(stuck.next) {
			continue
		}
		if err := r.applyOne(ctx, stuck.event); err != nil {
			return err
		}
	}
	if len(r.ahead.stuck) > 0 || r.ahead.position == "" {
		return nil
	}
	err := r.apply(ctx, r.ahead.cursor, &authv1.WatchAccountsResponse{Cursor: r.ahead.position})
	if err != nil && !errors.Is(err, errOvertaken) {
		return err
	}
	r.setAhead(ctx, nil)
	return nil
}
