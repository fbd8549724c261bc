package factors

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/devices"
	"gatehouse/auth/passkeys"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

const selectTOTPTimes = `SELECT create_time, last_used_time FROM auth.totp_factors WHERE account_id = @account_id`

// list returns the account's second factors, in one round trip.
func (s *Store) list(ctx context.Context, account string) (*authv1.ListFactorsResponse, error) {
	found := &authv1.ListFactorsResponse{}
	args := pgx.NamedArgs{"account_id": account}
	err := s.DB.TransactBatch(ctx, func(batch *pgx.Batch) error {
		batch.Queue(selectTOTPTimes, args).QueryRow(func(row pgx.Row) error {
			var created time.Time
			var used *time.Time
			found.Totp = nil
			if err := row.Scan(&created, &used); database.Missing(err) {
				return nil
			} else if err != nil {
				return err
			}
			found.Totp = &authv1.TOTPFactor{CreateTime: timestamppb.New(created), LastUsedTime: timestamp(used)}
			return nil
		})
		passkeys.QueueList(batch, account, &found.Passkeys)
		batch.Queue(countRecoveryCodes, args).QueryRow(func(row pgx.Row) error { return row.Scan(&found.RecoveryCodesLeft) })
		batch.Queue(devices.Select, args).Query(func(rows pgx.Rows) (err error) {
			found.RememberedDevices, err = pgx.CollectRows(rows, devices.Scan)
			return err
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the factors: %w", err)
	}
	return found, nil
}

// timestamp returns nil without a time.
func timestamp(at *time.Time) *timestamppb.Timestamp {
	if at == nil {
		return nil
	}
	return timestamppb.New(*at)
}
