package database

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// TransactBatch sends the statements that queue adds in one round trip. They run in
// order, as one transaction, each with a snapshot of its own: when one fails, none
// has an effect. The transaction is committed once TransactBatch returns nil, and
// not when a statement's callback runs: a callback can't undo it. Like the work of
// Transact, queue runs again when Postgres undid the transaction before.
func (p *Pool) TransactBatch(ctx context.Context, queue func(*pgx.Batch) error) error {
	return retry(ctx, func() error {
		var batch pgx.Batch
		if err := queue(&batch); err != nil {
			return err
		}
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		return p.heed(conn.SendBatch(ctx, &batch).Close())
	})
}
