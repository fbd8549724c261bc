package auth

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/passwords"
	"gatehouse/auth/revocations"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/standby"
)

var (
	errPasswordWrong   = passwords.ErrWrong
	errSessionNotFound = fault.New(connect.CodeNotFound, "SESSION_NOT_FOUND", "There is no such session.")
)

// sessionService implements authv1.SessionServiceHandler.
type sessionService struct {
	db          *database.Pool
	reads       standby.Reads
	sessions    *sessions
	passwords   *passwords.Checker
	log         *audit.Log
	revocations *revocations.Feed
}

// Login implements authv1.SessionServiceHandler.
func (s *sessionService) Login(ctx context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	found, err := readCredentials(ctx, s.db, selectCredentials, pgx.NamedArgs{"email": req.GetEmail()})
	if err != nil {
		return nil, err
	}
	return s.sessions.signIn(ctx, req, found)
}

const selectSessionAccount = `SELECT account_id FROM auth.sessions WHERE id = @id`

// CompleteLogin implements authv1.SessionServiceHandler.
func (s *sessionService) CompleteLogin(ctx context.Context, req *authv1.CompleteLoginRequest) (*authv1.CompleteLoginResponse, error) {
	return s.sessions.CompleteLogin(ctx, req)
}

// CompleteReauthentication implements authv1.SessionServiceHandler.
func (s *sessionService) CompleteReauthentication(ctx context.Context, req *authv1.CompleteReauthenticationRequest) (*authv1.CompleteReauthenticationResponse, error) {
	return s.sessions.CompleteReauthentication(ctx, req)
}

// Logout implements authv1.SessionServiceHandler.
func (s *sessionService) Logout(ctx context.Context, req *authv1.LogoutRequest) (*authv1.LogoutResponse, error) {
	token, ok := s.sessions.RefreshKeys.Verify(req.GetRefreshToken())
	if !ok {
		return nil, errRefreshInvalid
	}
	var account string
	err := s.db.QueryRow(ctx, selectSessionAccount, pgx.NamedArgs{"id": token.Session.String()}).Scan(&account)
	if database.Missing(err) {
		return &authv1.LogoutResponse{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("log out: look up the session: %w", err)
	}
	row := audit.Row{Event: audit.Logout, Outcome: audit.Succeeded, Account: account, Session: token.Session.String(), Origin: req.GetOrigin()}
	err = s.db.TransactBatch(ctx, func(batch *pgx.Batch) error {
		revocations.QueueRevokeSession(batch, token.Session, "logout")
		return audit.Queue(ctx, batch, row, "true", nil)
	})
	if err != nil {
		return nil, fmt.Errorf("log out: %w", err)
	}
	s.revocations.Soon()
	return &authv1.LogoutResponse{}, nil
}

const selectSessions = `
	SELECT id, create_time, last_used_time, expire_time, user_agent, ip_address
	FROM auth.sessions
	WHERE account_id = @account_id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch + ` AND expire_time > now()
	ORDER BY last_used_time DESC LIMIT 100`

// ListSessions implements authv1.SessionServiceHandler.
func (s *sessionService) ListSessions(ctx context.Context, req *authv1.ListSessionsRequest) (*authv1.ListSessionsResponse, error) {
	rows, err := s.reads.Of(ctx).Query(ctx, selectSessions, pgx.NamedArgs{"account_id": req.GetAccountId()})
	if err != nil {
		return nil, fmt.Errorf("list the sessions: %w", err)
	}
	sessions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Session, error) {
		var found authv1.Session
		var created, used, expires time.Time
		err := row.Scan(&found.Id, &created, &used, &expires, &found.UserAgent, &found.IpAddress)
		found.CreateTime, found.LastUsedTime, found.ExpireTime = timestamppb.New(created), timestamppb.New(used), timestamppb.New(expires)
		return &found, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the sessions: %w", err)
	}
	return &authv1.ListSessionsResponse{Sessions: sessions}, nil
}

const revokeOwned = `
	WITH ended AS (
		UPDATE auth.sessions SET revoke_time = clock_timestamp(), revoke_reason = 'revoked'
		WHERE id = @id AND account_id = @account_id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch + ` AND expire_time > now() RETURNING id)
	INSERT INTO auth.revocations (session_id, expire_time) SELECT id, now() + @life::interval FROM ended`

// RevokeSession implements authv1.SessionServiceHandler.
func (s *sessionService) RevokeSession(ctx context.Context, req *authv1.RevokeSessionRequest) (*authv1.RevokeSessionResponse, error) {
	row := audit.Row{Event: audit.SessionRevoke, Outcome: audit.Succeeded, Account: req.GetAccountId(), Session: req.GetSessionId(), Origin: req.GetOrigin()}
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, revokeOwned, pgx.NamedArgs{"id": req.GetSessionId(), "account_id": req.GetAccountId(), "life": revocations.Life})
		if err != nil {
			return fmt.Errorf("revoke: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errSessionNotFound
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("revoke a session: %w", s.log.Refuse(ctx, row, err))
	}
	s.revocations.Soon()
	return &authv1.RevokeSessionResponse{}, nil
}

// RevokeSessions implements authv1.SessionServiceHandler.
func (s *sessionService) RevokeSessions(ctx context.Context, req *authv1.RevokeSessionsRequest) (*authv1.RevokeSessionsResponse, error) {
	var revoked int32
	row := audit.Row{Event: audit.SessionRevoke, Outcome: audit.Succeeded, Account: req.GetAccountId(), Origin: req.GetOrigin()}
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if _, err := accounts.Lock(ctx, tx, req.GetAccountId()); err != nil {
			return err
		}
		if revoked, err = revocations.RevokeSessions(ctx, tx, req.GetAccountId(), req.GetExceptSessionId(), "revoked"); err != nil {
			return err
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("revoke sessions: %w", s.log.Refuse(ctx, row, err))
	}
	s.revocations.Soon()
	return &authv1.RevokeSessionsResponse{Revoked: revoked}, nil
}

const (
	selectSessionCredentials = `
		SELECT a.email, ` + accounts.PasswordHash + `, coalesce(s.device_id, s.id), a.second_factor
		FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND s.expire_time > now() AND a.status = 'active'`
	// A session without methods signed in by a passkey that was removed since.
	touchAuthentication = `
		UPDATE auth.sessions SET authenticate_time = clock_timestamp(), amr = CASE WHEN amr = '{}' THEN '{pwd}' ELSE amr END WHERE id = @id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch
)

// sessionCredentials are those of a session's account. Failures count for the
// session's device, or, without one, for the session.
type sessionCredentials struct {
	email, hash, device string
	secondFactor        bool
}

// credentialsOf returns those of the calling session. Errors: unauthenticated
// SESSION_ENDED.
func credentialsOf(ctx context.Context, db database.Querier, origin *authv1.Origin) (found sessionCredentials, err error) {
	err = db.QueryRow(ctx, selectSessionCredentials, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": database.Optional(origin.GetAccountId()),
	}).Scan(&found.email, &found.hash, &found.device, &found.secondFactor)
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
	if req.GetPassword() == "" {
		return s.challenge(ctx, req, row, nil)
	}
	_, err = s.passwords.Try(ctx, passwords.Attempt{
		Client: throttle.Client{Email: accounts.FoldEmail(known.email), DeviceID: known.device, Address: origin.GetIpAddress()},
		Caller: passwords.SignedIn(origin.GetAccountId()), Password: req.GetPassword(), Hash: known.hash, Wrong: errPasswordWrong, Row: row,
	})
	if err != nil {
		return nil, err
	}
	if known.secondFactor {
		return s.challenge(ctx, req, row, []string{"pwd"})
	}
	err = s.db.TransactBatch(ctx, func(batch *pgx.Batch) error {
		batch.Queue(touchAuthentication, pgx.NamedArgs{"id": origin.GetSessionId()})
		return audit.Queue(ctx, batch, row, "true", nil)
	})
	if err != nil {
		return nil, fmt.Errorf("reauthenticate: %w", err)
	}
	return &authv1.ReauthenticateResponse{}, nil
}

// challenge returns the challenge of a step-up whose session gave the methods before.
func (s *sessionService) challenge(ctx context.Context, req *authv1.ReauthenticateRequest, row audit.Row, before []string) (*authv1.ReauthenticateResponse, error) {
	if !req.GetAcceptsChallenge() {
		return nil, s.log.Refuse(ctx, row, accounts.ErrSecondFactor)
	}
	owed, err := s.sessions.Challenge(ctx, req.GetOrigin(), before)
	if err != nil {
		return nil, fmt.Errorf("reauthenticate: %w", s.log.Refuse(ctx, row, err))
	}
	return &authv1.ReauthenticateResponse{Challenge: owed}, nil
}
