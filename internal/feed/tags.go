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

// tagReach is for how long one may go on from a cursor of tags. Rows are read
// for twice as long, and stay a while after that, so that none that such a reader
// needs is gone.
const tagReach = time.Minute

// Tags tells what has changed: tags of a kind and whose, such as
// "profile/01890a5d-…", each for a few minutes. They are kept in a table of their
// schema that holds id uuid, xid xid8, tag text and create_time timestamptz.
type Tags struct {
	*Feed[string]
	query string
}

// TagNews is what a watcher of tags is told after a poll.
type TagNews struct {
	// Complete tells that it isn't known what came since: anything may have
	// changed, and no tags are given.
	Complete   bool
	Tags       []string
	Cursor     string
	AskedAfter time.Duration
}

// NewTags returns the feed of a table of tags, such as "users.changes".
func NewTags(db *pgxpool.Pool, table string, logger *slog.Logger) *Tags {
	selectTags := `
		SELECT id::text, xid::text, tag, extract(epoch FROM create_time + interval '2 minutes' - clock_timestamp())::float8
		FROM ` + table + `
		WHERE xid >= pg_snapshot_xmin(@seen::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, @seen::text::pg_snapshot)
			AND create_time > clock_timestamp() - interval '2 minutes'`
	return &Tags{
		query: selectTags,
		Feed: New(Config[string]{
			DB: db, Name: "changes", Reach: tagReach, Logger: logger,
			Prune: `DELETE FROM ` + table + ` WHERE create_time < clock_timestamp() - interval '3 minutes'`,
			Queue: func(batch *pgx.Batch, seen string, found map[string]Item[string]) {
				batch.Queue(selectTags, pgx.NamedArgs{"seen": seen}).Query(func(rows pgx.Rows) error { return readTags(rows, found) })
			},
		}),
	}
}

// WatchTags is [Feed.Watch] of tags.
func (t *Tags) WatchTags(ctx context.Context, cursor string, send func(TagNews) error) error {
	return t.Watch(ctx, cursor, func(news News[string]) error {
		told := TagNews{Complete: news.Complete, Cursor: news.Cursor, AskedAfter: news.AskedAfter}
		if news.Complete {
			return send(told)
		}
		for _, item := range news.Items {
			told.Tags = append(told.Tags, item.Value)
		}
		slices.Sort(told.Tags)
		told.Tags = slices.Compact(told.Tags)
		return send(told)
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

// Note writes in a table of tags that something has changed. It belongs in the
// transaction of the change. No tag has a space in it.
func Note(ctx context.Context, db execer, table string, tags ...string) error {
	_, err := db.Exec(ctx, `INSERT INTO `+table+` (tag) SELECT unnest(string_to_array(@tags, ' '))`, pgx.NamedArgs{"tags": strings.Join(tags, " ")})
	if err != nil {
		return fmt.Errorf("note what changes: %w", err)
	}
	return nil
}
