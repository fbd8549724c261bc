package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/passwords"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

const (
	selectSessionCredentials = `
		SELECT a.email, a.password_hash, coalesce(s.device_id, s.id)
		FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND s.expire_time > now() AND a.status = 'active'`
	touchAuthentication = `
		UPDATE auth.sessions SET authenticate_time = clock_timestamp() WHERE id = @id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch
)

// sessionCredentials is what the password of a session's account is tried
// against. Failures count for the session's device, or, where none was noted,
// for the session.
type sessionCredentials struct{ email, hash, device string }

// credentialsOf returns those of the session that asks. Errors: unauthenticated
// SESSION_ENDED.
func credentialsOf(ctx context.Context, db database.Querier, origin *authv1.Origin) (found sessionCredentials, err error) {
	err = db.QueryRow(ctx, selectSessionCredentials, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": database.Optional(origin.GetAccountId()),
	}).Scan(&found.email, &found.hash, &found.device)
	if database.Missing(err) {
		return found, errSessionEnded
	}
	if err != nil {
		return found, fmt.Errorf("look up the session: %w", err)
	}
	return found, nil
}

// Reauthenticate implements authv1.SessionServiceHandler.
func (s *sessionService) Reauthenticate(ctx context.Context, req *authv1.ReauthenticateRequest) (*authv1.ReauthenticateResponse, error) {
	origin := req.GetOrigin()
	known, err := credentialsOf(ctx, s.db, origin)
	if err != nil {
		return nil, err
	}
	row := audit.Row{Event: audit.Reauthenticate, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	_, err = s.passwords.Try(ctx, passwords.Attempt{
		Client: throttle.Client{Email: accounts.FoldEmail(known.email), DeviceID: known.device, Address: origin.GetIpAddress()},
		Caller: passwords.SignedIn(origin.GetAccountId()), Password: req.GetPassword(), Hash: known.hash, Wrong: errPasswordWrong, Row: row,
	})
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, touchAuthentication, pgx.NamedArgs{"id": origin.GetSessionId()}); err != nil {
			return fmt.Errorf("note the time: %w", err)
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("reauthenticate: %w", err)
	}
	return &authv1.ReauthenticateResponse{}, nil
}
