package database

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// A position is a place in the write-ahead log of one primary: the identifier of its
// database cluster, its timeline and the LSN. A standby that has replayed an LSN of
// another timeline may have other data: after a failover, the LSN of the new primary may
// be lower than what a standby of the old one has replayed.
type position struct{ text, system, timeline, lsn string }

var positionText = regexp.MustCompile(`^([0-9]{1,20})\.([0-9]{1,10})\.([0-9A-F]{1,8}/[0-9A-F]{1,8})$`)

// parsePosition reports false if the text is no position.
func parsePosition(text string) (position, bool) {
	found := positionText.FindStringSubmatch(text)
	if found == nil {
		return position{}, false
	}
	return position{text, found[1], found[2], found[3]}, true
}

// SelectPosition is the query of [Position].
//
// The position is that up to which records are inserted, not yet flushed: with
// synchronous_commit off, a transaction is visible before its record is flushed. The first
// eight digits of a WAL file's name are the timeline.
const SelectPosition = `
	SELECT s.system_identifier::text || '.' || ('x' || substr(pg_walfile_name(w.lsn), 1, 8))::bit(32)::bigint || '.' || w.lsn
	FROM pg_control_system() s, (SELECT pg_current_wal_insert_lsn() AS lsn) w`

// Position returns the position of the primary. A standby that has replayed it has
// everything that was committed before the call.
func Position(ctx context.Context, db Querier) (string, error) {
	var text string
	if err := db.QueryRow(ctx, SelectPosition).Scan(&text); err != nil {
		return "", fmt.Errorf("read the position in the write-ahead log: %w", err)
	}
	return text, nil
}

// SystemAndLSN returns the identifier of the primary's cluster, and its LSN.
func SystemAndLSN(ctx context.Context, db Querier) (system, lsn string, err error) {
	text, err := Position(ctx, db)
	if err != nil {
		return "", "", err
	}
	at, ok := parsePosition(text)
	if !ok {
		return "", "", errors.New("the database returned no position")
	}
	return at.system, at.lsn, nil
}
