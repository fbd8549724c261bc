package lifecycle

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

// The changes of one account are applied one after the other. Without this lock, two
// concurrent ones would not see each other's rows: what is written late could miss the
// tombstone that the deletion is writing, and stay for good.
const lockAccount = `SELECT pg_advisory_xact_lock(hashtextextended(@service || '.account ' || @id::uuid::text, 0))`

// Lock locks an account within a service until the end of the transaction, which is
// read committed: each statement sees what was committed before the lock was granted.
func Lock(ctx context.Context, tx pgx.Tx, service, account string) error {
	if _, err := tx.Exec(ctx, lockAccount, pgx.NamedArgs{"service": service, "id": account}); err != nil {
		return fmt.Errorf("lock the account: %w", err)
	}
	return nil
}

// Eraser erases a service's data of deleted accounts, and remembers their ids, so that
// a late call does not write such data again. The service has the table tombstones in
// its schema:
//
//	CREATE TABLE orders.tombstones (
//	    id               uuid        NOT NULL,
//	    account_version  bigint      NOT NULL,
//	    delete_time      timestamptz NOT NULL DEFAULT now(),
//	    CONSTRAINT tombstones_pkey PRIMARY KEY (id)
//	);
//	CREATE INDEX tombstones_delete_time_idx ON orders.tombstones (delete_time);
type Eraser struct {
	service string
	erase   func(ctx context.Context, tx pgx.Tx, account string) error

	insert, prune, exists string
}

// NewEraser returns the eraser of a service, which deletes an account's rows with
// erase.
func NewEraser(service string, erase func(ctx context.Context, tx pgx.Tx, account string) error) *Eraser {
	table := pgx.Identifier{service, "tombstones"}.Sanitize()
	return &Eraser{
		service: service, erase: erase,
		insert: `
			INSERT INTO ` + table + ` (id, account_version) VALUES (@id, @version)
			ON CONFLICT ON CONSTRAINT tombstones_pkey DO NOTHING`,
		// Each deletion prunes more tombstones than it adds. A late call arrives within
		// seconds; a year covers restored backups.
		prune: `
			DELETE FROM ` + table + ` WHERE id IN (
				SELECT id FROM ` + table + ` WHERE delete_time < now() - interval '1 year'
				ORDER BY delete_time LIMIT 10 FOR UPDATE SKIP LOCKED)`,
		exists: `SELECT EXISTS (SELECT FROM ` + table + ` WHERE id = @id)`,
	}
}

// Apply is Apply of [Config]: it erases deleted accounts, and ignores other events.
func (e *Eraser) Apply(ctx context.Context, tx pgx.Tx, event *authv1.AccountEvent) error {
	if !event.GetDeleted() {
		return nil
	}
	if err := Lock(ctx, tx, e.service, event.GetAccountId()); err != nil {
		return err
	}
	args := pgx.NamedArgs{"id": event.GetAccountId(), "version": event.GetVersion()}
	if _, err := tx.Exec(ctx, e.insert, args); err != nil {
		return fmt.Errorf("write the tombstone: %w", err)
	}
	if err := e.erase(ctx, tx, event.GetAccountId()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, e.prune); err != nil {
		return fmt.Errorf("prune the tombstones: %w", err)
	}
	return nil
}

// Deleted locks an account, and reports whether it was deleted. Call it in each
// transaction that writes an account's data, before the first write.
func (e *Eraser) Deleted(ctx context.Context, tx pgx.Tx, account string) (deleted bool, err error) {
	if err := Lock(ctx, tx, e.service, account); err != nil {
		return false, err
	}
	if err := tx.QueryRow(ctx, e.exists, pgx.NamedArgs{"id": account}).Scan(&deleted); err != nil {
		return false, fmt.Errorf("look for the tombstone: %w", err)
	}
	return deleted, nil
}
