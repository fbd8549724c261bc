package database

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// TransactBatch sends the statements that queue adds in one round trip. They run in order, in
// one transaction, each with its own snapshot. The error of a statement rolls back the
// transaction; the error of a callback does not. The transaction is committed if
// TransactBatch returns nil, not yet when the callbacks run. Like the work of Transact, queue
// runs again if Postgres aborted the transaction with a retryable error.
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
		return p.resetIfUnusable(conn.SendBatch(ctx, &batch).Close())
	})
}
