package accountlog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	"gatehouse/internal/fault"
)

// Retention is how long a deletion is kept, and how long a cursor is valid.
const Retention = 365 * 24 * time.Hour

// ErrExpired refuses a cursor that is no longer valid.
var ErrExpired = fault.New(connect.CodeFailedPrecondition, "CURSOR_EXPIRED", "The cursor is too old, or belongs to another database. Read from the beginning, and erase the accounts that FindMissingAccounts returns.")

// nothing is a snapshot in which nothing is visible.
const nothing = "1:1:"

// Position is a place in the log: everything that was visible in the snapshot seen
// has been read. While a read takes several batches, it is also the snapshot that the
// read will reach, and the row after which it continues.
type Position struct {
	database string // the server, its timeline and the database on it
	clock    int64  // of Postgres, in seconds, when target was taken
	seen     string
	target   string // "" between reads
	afterXID string
	afterID  string
}

// moment is the state of Postgres at the start of a read.
type moment struct {
	database string
	clock    int64
	snapshot string
	xmax     uint64
}

// Another database's transactions have other numbers. So have those of a server that
// was restored to an earlier time or that replaced another one, from the start of its
// timeline.
const selectMoment = `
	SELECT c.system_identifier::text || '-' || k.timeline_id::text || '-' || d.oid::text,
		extract(epoch FROM clock_timestamp())::bigint, s::text, pg_snapshot_xmax(s)::text
	FROM pg_control_system() c, pg_control_checkpoint() k, pg_catalog.pg_database d, pg_current_snapshot() s
	WHERE d.datname = current_database()`

func (l *Log) now(ctx context.Context) (m moment, err error) {
	var xmax string
	if err := l.db.QueryRow(ctx, selectMoment).Scan(&m.database, &m.clock, &m.snapshot, &xmax); err != nil {
		return moment{}, fmt.Errorf("read the snapshot: %w", err)
	}
	m.xmax, err = strconv.ParseUint(xmax, 10, 64)
	return m, err
}

// cursorVersion begins every cursor.
const cursorVersion = "1"

// Cursor encodes the position.
func (p Position) Cursor() string {
	if p.database == "" {
		return ""
	}
	return strings.Join([]string{cursorVersion, p.database, strconv.FormatInt(p.clock, 10), p.seen, p.target, p.afterXID, p.afterID}, "/")
}

// Open decodes a cursor; "" is the beginning of the log. Errors:
// failed_precondition CURSOR_EXPIRED.
func (l *Log) Open(ctx context.Context, cursor string) (Position, error) {
	if cursor == "" {
		return Position{seen: nothing}, nil
	}
	fields := strings.Split(cursor, "/")
	if len(fields) != 7 || fields[0] != cursorVersion {
		return Position{}, ErrExpired
	}
	p := Position{database: fields[1], seen: fields[3], target: fields[4], afterXID: fields[5], afterID: fields[6]}
	var err error
	if p.clock, err = strconv.ParseInt(fields[2], 10, 64); err != nil || !p.wellFormed() {
		return Position{}, ErrExpired
	}
	now, err := l.now(ctx)
	if err != nil {
		return Position{}, err
	}
	if p.database != now.database || now.clock-p.clock > int64(Retention/time.Second) || xmaxOf(p.seen) > now.xmax || xmaxOf(p.target) > now.xmax {
		return Position{}, ErrExpired
	}
	return p, nil
}

// wellFormed reports whether Postgres can read the position's snapshots and row.
func (p Position) wellFormed() bool {
	if !isSnapshot(p.seen) {
		return false
	}
	if p.target == "" {
		return p.afterXID == "" && p.afterID == ""
	}
	_, err1 := strconv.ParseUint(p.afterXID, 10, 64)
	_, err2 := uuid.Parse(p.afterID)
	return isSnapshot(p.target) && err1 == nil && err2 == nil
}

// isSnapshot reports whether a text is a pg_snapshot: xmin:xmax:xip,… in order.
func isSnapshot(text string) bool {
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return false
	}
	xmin, err1 := strconv.ParseUint(fields[0], 10, 63)
	xmax, err2 := strconv.ParseUint(fields[1], 10, 63)
	if err1 != nil || err2 != nil || xmin == 0 || xmin > xmax {
		return false
	}
	if fields[2] == "" {
		return true
	}
	last := xmin
	for i, field := range strings.Split(fields[2], ",") {
		xid, err := strconv.ParseUint(field, 10, 63)
		if err != nil || xid < last || xid >= xmax || i > 0 && xid == last {
			return false
		}
		last = xid
	}
	return true
}

// xmaxOf returns the first transaction that had not begun in a snapshot.
func xmaxOf(snapshot string) uint64 {
	_, rest, _ := strings.Cut(snapshot, ":")
	text, _, _ := strings.Cut(rest, ":")
	xmax, _ := strconv.ParseUint(text, 10, 64)
	return xmax
}

// until returns the position of a read up to now, or of one that has begun.
func (p Position) until(now moment) Position {
	if p.target != "" {
		return p
	}
	xmin, _, _ := strings.Cut(p.seen, ":")
	return Position{
		database: now.database, clock: now.clock, seen: p.seen, target: now.snapshot,
		afterXID: xmin, afterID: uuid.Nil.String(),
	}
}

// reached returns the position at the end of a read.
func (p Position) reached() Position {
	return Position{database: p.database, clock: p.clock, seen: p.target}
}

// AtRest reports whether no read is in progress.
func (p Position) AtRest() bool { return p.target == "" }

// Age returns how much later the position is than another one, by Postgres' clock.
func (p Position) Age(earlier Position) time.Duration {
	return time.Duration(p.clock-earlier.clock) * time.Second
}
