package feed

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tagCursorLifetime is how long a cursor of tags is valid. Polls read rows for twice as long,
// and the rows are deleted a minute after that, so that a watcher that resumes misses
// none.
const tagCursorLifetime = time.Minute

// idleInterval is the interval of polls without a watcher. It keeps few rows unread for the
// first watcher.
const idleInterval = 5 * time.Second

// Tags is a feed of the tags of changed data, each a kind and an ID, such as
// "profile/01890a5d-…". A tag is live for two minutes. Tags are stored in a table of
// the service's schema with the columns id uuid, xid xid8, tag text and
// create_time timestamptz.
type Tags struct {
	*Feed[string]
	query string
}

// TagNews is the message that a watcher of tags receives after a poll.
type TagNews struct {
	// Complete reports that the changes since the cursor are unknown: anything may have
	// changed, and Tags is empty.
	Complete   bool
	Tags       []string
	Cursor     string
	Position   string // in the write-ahead log; see [Tags.TellPositions]
	AskedAfter time.Duration
}

// NewTags returns the feed of a table of tags, such as "users.changes".
func NewTags(db *pgxpool.Pool, table string, logger *slog.Logger) *Tags {
	columns := `id::text, xid::text, tag, extract(epoch FROM create_time + interval '2 minutes' - clock_timestamp())::float8`
	// One transaction may have written most of the table. The pair of comparisons is an
	// equality for which Postgres uses the index anyway; OFFSET keeps it apart.
	selectTags := `
		SELECT ` + columns + ` FROM ` + table + `
		WHERE xid >= pg_snapshot_xmax(@seen::text::pg_snapshot) AND create_time > clock_timestamp() - interval '2 minutes'
		UNION ALL
		SELECT ` + columns + ` FROM unnest(ARRAY(SELECT pg_snapshot_xip(@seen::text::pg_snapshot))) AS running (since)
		CROSS JOIN LATERAL (SELECT * FROM ` + table + ` WHERE xid >= since AND xid <= since OFFSET 0) AS unseen
		WHERE create_time > clock_timestamp() - interval '2 minutes'`
	return &Tags{
		query: selectTags,
		Feed: New(Config[string]{
			DB: db, Name: "changes", Reach: tagCursorLifetime, Idle: idleInterval, Logger: logger,
			Prune: `DELETE FROM ` + table + ` WHERE create_time < clock_timestamp() - interval '3 minutes'`,
			Queue: func(batch *pgx.Batch, seen string, found map[string]Item[string]) {
				batch.Queue(selectTags, pgx.NamedArgs{"seen": seen}).Query(func(rows pgx.Rows) error { return readTags(rows, found) })
			},
		}),
	}
}

// TellPositions adds the position of the database in its write-ahead log to each message, so
// that reads may go to a standby that has replayed it. query returns the position. Call it
// before Run.
func (t *Tags) TellPositions(query string) { t.config.Position = query }

// WatchTags is [Feed.Watch] for tags.
func (t *Tags) WatchTags(ctx context.Context, cursor string, send func(TagNews) error) error {
	return t.Watch(ctx, cursor, func(news News[string]) error {
		message := TagNews{Complete: news.Complete, Cursor: news.Cursor, Position: news.Position, AskedAfter: news.AskedAfter}
		if news.Complete {
			return send(message)
		}
		for _, item := range news.Items {
			message.Tags = append(message.Tags, item.Value)
		}
		slices.Sort(message.Tags)
		message.Tags = slices.Compact(message.Tags)
		return send(message)
	})
}

func readTags(rows pgx.Rows, found map[string]Item[string]) error {
	now := time.Now()
	var id, number, tag string
	var left float64
	_, err := pgx.ForEachRow(rows, []any{&id, &number, &tag, &left}, func() error {
		xid, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return err
		}
		found[id] = Item[string]{XID: xid, Value: tag, Expire: now.Add(time.Duration(left * float64(time.Second)))}
		return nil
	})
	return err
}

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Note inserts the tags of changed data into a table of tags. Call it in the transaction
// of the change. A tag must not contain a space.
func Note(ctx context.Context, db execer, table string, tags ...string) error {
	_, err := db.Exec(ctx, `INSERT INTO `+table+` (tag) SELECT unnest(string_to_array(@tags, ' '))`, pgx.NamedArgs{"tags": strings.Join(tags, " ")})
	if err != nil {
		return fmt.Errorf("insert the tags of changed data: %w", err)
	}
	return nil
}
