// Package revocations writes and reads the revocations that invalidate access tokens
// before they expire.
//
// A revocation is written in the transaction that ends a session or raises an
// account's authorisation version. The feed sends it to the gateways, which verify
// access tokens on their own.
package revocations

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/deployment"
	"gatehouse/auth/keyring"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
)

// Life is how long a revocation is kept: as long as any token that it concerns,
// and a minute for clocks that differ.
const Life = keyring.AccessTokenLife + time.Minute

const (
	selected = `id::text, xid::text, session_id::text, account_id::text, least_version, extract(epoch FROM expire_time - now())::float8`
	// Select reads the revocations that a snapshot has not seen: of later transactions, and of
	// those that were running. The pair of comparisons is an equality for which Postgres uses
	// the index even if one transaction wrote most of the table; OFFSET keeps it apart.
	Select = `
		SELECT ` + selected + ` FROM auth.revocations
		WHERE xid >= pg_snapshot_xmax(@seen::text::pg_snapshot) AND expire_time > now()
		UNION ALL
		SELECT ` + selected + ` FROM unnest(ARRAY(SELECT pg_snapshot_xip(@seen::text::pg_snapshot))) AS running (since)
		CROSS JOIN LATERAL (SELECT * FROM auth.revocations WHERE xid >= since AND xid <= since OFFSET 0) AS unseen
		WHERE expire_time > now()`
	// Prune deletes expired revocations.
	Prune = `DELETE FROM auth.revocations WHERE expire_time < now() - interval '1 minute'`
)

// Feed sends revocations to gateways.
type Feed = feed.Feed[*authv1.Revocation]

// Read collects the rows of Select.
func Read(rows pgx.Rows, found map[string]feed.Item[*authv1.Revocation]) error {
	now := time.Now()
	var id, number string
	var session, account *string
	var version *int64
	var left float64
	_, err := pgx.ForEachRow(rows, []any{&id, &number, &session, &account, &version, &left}, func() error {
		xid, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return err
		}
		one := feed.Item[*authv1.Revocation]{XID: xid, Expire: now.Add(database.Seconds(left))}
		if session != nil {
			one.Value = &authv1.Revocation{Of: &authv1.Revocation_SessionId{SessionId: *session}}
		} else {
			one.Value = &authv1.Revocation{Of: &authv1.Revocation_LeastVersion{
				LeastVersion: &authv1.LeastVersion{AccountId: *account, Version: *version},
			}}
		}
		found[id] = one
		return nil
	})
	return err
}

const insertLeastVersion = `
	INSERT INTO auth.revocations (account_id, least_version, expire_time)
	VALUES (@account_id, @least_version, clock_timestamp() + @life::interval)`

// RevokeBelow revokes the account's tokens with a version below the given one.
func RevokeBelow(ctx context.Context, tx pgx.Tx, account string, version int64) error {
	_, err := tx.Exec(ctx, insertLeastVersion, pgx.NamedArgs{"account_id": account, "least_version": version, "life": Life})
	if err != nil {
		return fmt.Errorf("write the revocation: %w", err)
	}
	return nil
}

const raiseVersion = `
	WITH raised AS (
		UPDATE auth.accounts SET authz_version = authz_version + 1 WHERE id = @account_id RETURNING id, authz_version)
	INSERT INTO auth.revocations (account_id, least_version, expire_time)
	SELECT id, authz_version, clock_timestamp() + @life::interval FROM raised`

// RaiseVersion raises an account's authorisation version and revokes the tokens below
// it: its sessions continue, and their next tokens say what is true now.
func RaiseVersion(ctx context.Context, tx pgx.Tx, account string) error {
	if _, err := tx.Exec(ctx, raiseVersion, pgx.NamedArgs{"account_id": account, "life": Life}); err != nil {
		return fmt.Errorf("raise the version of the account: %w", err)
	}
	return nil
}

const revokeOne = `
	WITH ended AS (
		UPDATE auth.sessions SET revoke_time = clock_timestamp(), revoke_reason = @reason
		WHERE id = @id AND revoke_time IS NULL RETURNING id)
	INSERT INTO auth.revocations (session_id, expire_time) SELECT id, now() + @life::interval FROM ended`

// RevokeSession ends a session.
func RevokeSession(ctx context.Context, tx pgx.Tx, id uuid.UUID, reason string) error {
	if _, err := tx.Exec(ctx, revokeOne, pgx.NamedArgs{"id": id.String(), "reason": reason, "life": Life}); err != nil {
		return fmt.Errorf("revoke the session: %w", err)
	}
	return nil
}

// QueueRevokeSession adds the statement that ends a session to a batch.
func QueueRevokeSession(batch *pgx.Batch, id uuid.UUID, reason string) {
	batch.Queue(revokeOne, pgx.NamedArgs{"id": id.String(), "reason": reason, "life": Life})
}

const revokeAll = `
	WITH ended AS (
		UPDATE auth.sessions SET revoke_time = clock_timestamp(), revoke_reason = @reason
		WHERE account_id = @account_id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch + ` AND expire_time > now()
			AND (@except::uuid IS NULL OR id <> @except::uuid) RETURNING id
	), superseded AS (
		UPDATE auth.challenges SET end_time = clock_timestamp(), end_reason = 'superseded'
		WHERE account_id = @account_id AND end_time IS NULL AND (@except::uuid IS NULL OR session_id IS DISTINCT FROM @except::uuid)
	), forgotten AS (
		DELETE FROM auth.remembered_devices WHERE account_id = @account_id AND @except::uuid IS NULL)
	INSERT INTO auth.revocations (session_id, expire_time) SELECT id, now() + @life::interval FROM ended`

// RevokeSessions ends an account's sessions, all but one if except is set, and with
// them the challenges of sign-ins that are under way. With all sessions it also forgets
// the remembered devices: what ends them means that a device may be in other hands.
func RevokeSessions(ctx context.Context, tx pgx.Tx, account, except, reason string) (int32, error) {
	tag, err := tx.Exec(ctx, revokeAll, pgx.NamedArgs{"account_id": account, "except": database.Optional(except), "reason": reason, "life": Life})
	if err != nil {
		return 0, fmt.Errorf("revoke the sessions: %w", err)
	}
	return int32(tag.RowsAffected()), nil
}
