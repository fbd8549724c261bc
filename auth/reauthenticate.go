package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

const (
	selectSessionCredentials = `
		SELECT a.email, a.password_hash, coalesce(s.device_id, s.id)
		FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + currentEpoch + ` AND s.expire_time > now() AND a.status = 'active'`
	touchAuthentication = `
		UPDATE auth.sessions SET authenticate_time = clock_timestamp() WHERE id = @id AND revoke_time IS NULL AND epoch >= ` + currentEpoch
)

// sessionCredentials is what the password of a session's account is tried
// against. Failures count for the session's device, or, where none was noted,
// for the session.
type sessionCredentials struct{ email, hash, device string }

// credentialsOf returns those of the session that asks. Errors: unauthenticated
// SESSION_ENDED.
func credentialsOf(ctx context.Context, db querier, origin *authv1.Origin) (found sessionCredentials, err error) {
	err = db.QueryRow(ctx, selectSessionCredentials, pgx.NamedArgs{
		"id": optional(origin.GetSessionId()), "account_id": optional(origin.GetAccountId()),
	}).Scan(&found.email, &found.hash, &found.device)
	if missing(err) {
		return found, errSessionEnded
	}
	if err != nil {
		return found, fmt.Errorf("look up the session: %w", err)
	}
	return found, nil
}

// Reauthenticate implements authv1.SessionServiceHandler.
func (s *Service) Reauthenticate(ctx context.Context, req *authv1.ReauthenticateRequest) (*authv1.ReauthenticateResponse, error) {
	origin := req.GetOrigin()
	known, err := credentialsOf(ctx, s.db, origin)
	if err != nil {
		return nil, err
	}
	row := audited{event: eventReauthenticate, outcome: succeeded, account: origin.GetAccountId(), origin: origin}
	_, err = s.tryPassword(ctx, passwordTry{
		guesser: guesser{email: known.email, device: known.device, address: origin.GetIpAddress()},
		caller:  signedIn(origin.GetAccountId()), password: req.GetPassword(), hash: known.hash, wrong: errPasswordWrong, row: row,
	})
	if err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, touchAuthentication, pgx.NamedArgs{"id": origin.GetSessionId()}); err != nil {
			return fmt.Errorf("note the time: %w", err)
		}
		return audit(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("reauthenticate: %w", err)
	}
	return &authv1.ReauthenticateResponse{}, nil
}
