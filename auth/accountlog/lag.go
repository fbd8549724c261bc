package accountlog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// Lag is how far behind a reader is.
type Lag struct {
	Service string
	// Oldest is the age of the oldest change that the reader has not confirmed; 0
	// without one.
	Oldest time.Duration
}

// Rows are read in the order of their transactions, which is nearly that of their
// times, and only the first of them if a reader has many left to confirm.
const selectLags = `
	WITH expected AS (
		SELECT * FROM unnest(@services::text[], @deletions::boolean[]) AS e (service, deletions_only)
	), readers AS (
		SELECT service, coalesce(r.seen, '1:1:')::pg_snapshot AS seen, coalesce(r.deletions_only, e.deletions_only) AS deletions_only
		FROM expected e FULL JOIN auth.account_readers r USING (service)
	)
	SELECT r.service, coalesce((
		SELECT extract(epoch FROM now() - min(unread.change_time)) FROM (
			(SELECT l.change_time FROM pg_snapshot_xip(r.seen) AS since` + ofRunning + `
			WHERE l.deleted OR NOT r.deletions_only
			ORDER BY l.xid, l.account_id LIMIT 1000)
			UNION ALL
			(SELECT l.change_time FROM auth.account_log l
			WHERE l.xid >= pg_snapshot_xmax(r.seen) AND (l.deleted OR NOT r.deletions_only)
			ORDER BY l.xid, l.account_id LIMIT 1000)) AS unread), 0)::float8
	FROM readers r ORDER BY r.service`

// Lags returns the lag of each expected reader, and of any other that has read.
func (l *Log) Lags(ctx context.Context, expected []Reader) ([]Lag, error) {
	services, deletionsOnly := columns(expected)
	rows, err := l.db.Query(ctx, selectLags, pgx.NamedArgs{"services": services, "deletions": deletionsOnly})
	if err != nil {
		return nil, fmt.Errorf("read the lag of the readers: %w", err)
	}
	lags, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (lag Lag, err error) {
		var oldest float64
		err = row.Scan(&lag.Service, &oldest)
		lag.Oldest = max(0, database.Seconds(oldest))
		return lag, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the lag of the readers: %w", err)
	}
	return lags, nil
}

// columns returns the readers by column.
func columns(readers []Reader) (services []string, deletionsOnly []bool) {
	services, deletionsOnly = []string{}, []bool{}
	for _, reader := range readers {
		services, deletionsOnly = append(services, reader.Service), append(deletionsOnly, reader.DeletionsOnly)
	}
	return services, deletionsOnly
}
