// Package devices remembers devices on which a sign-in by password is not asked for the
// second factor.
//
// There is no token of its own: a row names the id in a device token. Each sign-in moves
// the row to another id, which the answer's token names, so that a copied token works
// until its owner signs in. A token alone never makes a row.
package devices

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
)

// DefaultLife is how long a remembered device skips the second factor by default.
const DefaultLife = 30 * 24 * time.Hour

// live is the condition of a device, aliased d, of an account, aliased a. One that was
// attached while the email was unverified is void once it is verified, even if a binary
// older than schema number 8 verified it.
const live = `d.account_id = a.id AND d.expire_time > clock_timestamp() AND NOT (d.attached_unverified AND a.email_verified)`

const (
	// Move moves a row from @known_device to @next_device, and returns it. The condition
	// on the account, aliased a, is to be added.
	Move = `
		UPDATE auth.remembered_devices d
		SET device_id = @next_device, last_used_time = clock_timestamp(), user_agent = @user_agent, ip_address = @ip_address
		FROM auth.accounts a
		WHERE d.device_id = @known_device AND ` + live + ` AND `
	remember = `
		INSERT INTO auth.remembered_devices (device_id, account_id, attached_unverified, expire_time, user_agent, ip_address)
		SELECT @device_id, id, NOT (email_verified OR vouched), clock_timestamp() + @life::interval, @user_agent, @ip_address
		FROM auth.accounts WHERE id = @account_id`
)

// Remember makes a device of the account one that skips the second factor.
func Remember(ctx context.Context, tx pgx.Tx, account string, device uuid.UUID, life time.Duration, origin *authv1.Origin) error {
	_, err := tx.Exec(ctx, remember, pgx.NamedArgs{
		"device_id": device.String(), "account_id": account, "life": life,
		"user_agent": origin.GetUserAgent(), "ip_address": origin.GetIpAddress(),
	})
	if err != nil {
		return fmt.Errorf("remember the device: %w", err)
	}
	return nil
}

// The sessions that began on a device have its present id.
const forget = `
	WITH gone AS (
		DELETE FROM auth.remembered_devices
		WHERE account_id = @account_id AND (@device_id::uuid IS NULL OR device_id = @device_id::uuid)
		RETURNING device_id
	), stripped AS (
		UPDATE auth.sessions SET amr = array_remove(amr, 'rba')
		WHERE account_id = @account_id AND revoke_time IS NULL AND 'rba' = ANY (amr)
			AND (@device_id::uuid IS NULL OR device_id IN (SELECT device_id FROM gone))
		RETURNING id)
	SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM stripped)`

// Forget forgets a remembered device of the account, or all if device is nil, and takes
// from the account's sessions what they have from it. It returns how many devices it
// forgot. The account is locked.
func Forget(ctx context.Context, tx pgx.Tx, account string, device *string) (forgotten int, err error) {
	var stripped int
	err = tx.QueryRow(ctx, forget, pgx.NamedArgs{"account_id": account, "device_id": device}).Scan(&forgotten, &stripped)
	if err != nil {
		return 0, fmt.Errorf("forget remembered devices: %w", err)
	}
	if stripped > 0 { // their access tokens say more than that
		return forgotten, revocations.RaiseVersion(ctx, tx, account)
	}
	return forgotten, nil
}

// Select lists the live devices of @account_id, the last used first. An account has a
// handful; the bound is for a client that never sends its token.
const Select = `
	SELECT d.device_id::text, d.create_time, d.last_used_time, d.expire_time, d.user_agent, d.ip_address
	FROM auth.remembered_devices d JOIN auth.accounts a ON a.id = d.account_id
	WHERE a.id = @account_id AND ` + live + `
	ORDER BY d.last_used_time DESC LIMIT 100`

// Scan reads a row of Select.
func Scan(row pgx.CollectableRow) (*authv1.RememberedDevice, error) {
	var found authv1.RememberedDevice
	var created, used, expires time.Time
	err := row.Scan(&found.DeviceId, &created, &used, &expires, &found.UserAgent, &found.IpAddress)
	found.CreateTime, found.LastUsedTime, found.ExpireTime = timestamppb.New(created), timestamppb.New(used), timestamppb.New(expires)
	return &found, err
}
