package accountlog

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// ErrNoErasure is the error for an account without a deletion in the log.
var ErrNoErasure = fault.New(connect.CodeNotFound, "ERASURE_NOT_FOUND", "There is no record of a deletion of this user. Check the ID; records are kept for a year.")

// Erasure says which readers have confirmed a deletion.
type Erasure struct {
	DeleteTime time.Time
	Readers    []Confirmation // sorted by name
}

// Confirmation says whether a reader has confirmed a deletion.
type Confirmation struct {
	Service   string
	Confirmed bool
}

const (
	selectDeletion = `SELECT change_time, xid::text FROM auth.account_log WHERE account_id = @account_id AND deleted`
	selectConfirms = `
		SELECT service, coalesce(pg_visible_in_snapshot(@xid::text::xid8, r.seen::pg_snapshot), false)
		FROM unnest(@services::text[]) AS e (service) FULL JOIN auth.account_readers r USING (service)
		ORDER BY service`
)

// Erasure returns which of the expected readers, and of any others that have read,
// have confirmed a deletion. Errors: not_found ERASURE_NOT_FOUND.
func (l *Log) Erasure(ctx context.Context, account string, expected []Reader) (Erasure, error) {
	var erasure Erasure
	var xid string
	err := l.db.QueryRow(ctx, selectDeletion, pgx.NamedArgs{"account_id": account}).Scan(&erasure.DeleteTime, &xid)
	if database.Missing(err) {
		return Erasure{}, ErrNoErasure
	}
	if err != nil {
		return Erasure{}, fmt.Errorf("look for the deletion: %w", err)
	}
	services, _ := columns(expected)
	rows, err := l.db.Query(ctx, selectConfirms, pgx.NamedArgs{"xid": xid, "services": services})
	if err != nil {
		return Erasure{}, fmt.Errorf("read the confirmations: %w", err)
	}
	if erasure.Readers, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Confirmation]); err != nil {
		return Erasure{}, fmt.Errorf("read the confirmations: %w", err)
	}
	return erasure, nil
}
