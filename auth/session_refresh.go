package auth

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/changes"
	"gatehouse/auth/deployment"
	"gatehouse/auth/revocations"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// A refresh whose answer was lost may be repeated: for repeatFreely with the
// previous token (two tabs, a flaky network), and for repeatWithKey with the same
// Idempotency-Key. Any other use of an old token means that two parties hold it, and
// ends the session (RFC 9700, 4.14). A token newer than the session's row is not
// reuse: see session_recover.go.
const (
	repeatFreely  = 10 * time.Second
	repeatWithKey = 30 * time.Minute
)

var (
	errRefreshInvalid = fault.New(connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID", "This is not a refresh token of ours. Sign in.")
	errRefreshReused  = fault.New(connect.CodeUnauthenticated, "REFRESH_TOKEN_REUSED", "This refresh token was used before, so its session has been ended for safety. Sign in again.")
	errSessionEnded   = fault.New(connect.CodeUnauthenticated, "SESSION_ENDED", "This session has ended. Sign in again.")
)

// session is a session's row, with times as ages on Postgres' clock.
type session struct {
	id             uuid.UUID
	generation     int32
	tokenHash      []byte
	tokenKey       string
	idempotencyKey []byte
	ended          bool
	sinceRotation  time.Duration
	expiresIn      time.Duration
	account        *authv1.Account
}

const (
	lockSession = `
		SELECT account_id, generation, token_hash, token_key, idempotency_key_hash
		FROM auth.sessions WHERE id = @id FOR UPDATE`
	// Read after the lock is held, so that the clock and the account are current
	// and not from before the wait.
	selectSessionNow = `
		SELECT s.revoke_time IS NOT NULL OR s.epoch < ` + deployment.CurrentEpoch + ` OR s.expire_time <= clock_timestamp() OR a.status <> 'active',
			extract(epoch FROM clock_timestamp() - s.rotate_time)::float8,
			extract(epoch FROM s.expire_time - clock_timestamp())::float8
		FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id`
	rotateSession = `
		UPDATE auth.sessions
		SET generation = @generation, token_hash = @token_hash, token_key = @token_key,
			rotate_time = clock_timestamp(), idempotency_key_hash = @idempotency_key_hash,
			last_used_time = clock_timestamp(), user_agent = @user_agent, ip_address = @ip_address,
			expire_time = least(clock_timestamp() + @idle, max_expire_time)
		WHERE id = @id
		RETURNING extract(epoch FROM expire_time - clock_timestamp())::float8`
)

// Refresh implements authv1.SessionServiceHandler.
func (s *sessionService) Refresh(ctx context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
	token, ok := s.sessions.refreshKeys.Verify(req.GetRefreshToken())
	if !ok {
		return nil, errRefreshInvalid
	}
	// The account isn't locked, so its roles may change before the token is signed.
	// With this time, the token expires before its revocation is pruned.
	at := s.sessions.keys.Now()
	var next string
	var found *session
	var refusal error // whose transaction is committed, unlike an error's
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		next, refusal = "", nil
		found, err = s.lockedSession(ctx, tx, token.Session)
		if err != nil {
			return err
		}
		switch {
		case found == nil, found.ended:
			refusal = errSessionEnded
			return s.auditEnded(ctx, tx, token, found, req.GetOrigin())
		case token.Generation == found.generation && sameHash(found.tokenHash, req.GetRefreshToken()):
			next, err = s.rotate(ctx, tx, found, req)
			return err
		case s.mayRepeat(token, found, req.GetIdempotencyKey()):
			next, ok = s.sessions.refreshKeys.Reissue(tokens.Refresh{Session: found.id, Generation: found.generation}, found.tokenKey)
			if !ok || !sameHash(found.tokenHash, next) {
				refusal = errSessionEnded // its key has been retired
			}
			return nil
		case token.Generation > found.generation && canRecover(s.sessions.refreshKeys, token, found):
			next, err = s.recover(ctx, tx, token, found, req)
			return err
		case token.Generation > found.generation:
			refusal = errRefreshInvalid
			return refuseNewer(ctx, tx, found, req.GetOrigin())
		}
		refusal = errRefreshReused
		if err := revocations.RevokeSession(ctx, tx, found.id, "reuse"); err != nil {
			return err
		}
		if err := changes.NoteSessions(ctx, tx, found.account.GetId()); err != nil {
			return err
		}
		return audit.Write(ctx, tx, audit.Row{Event: audit.RefreshReuse, Outcome: audit.Refused, Reason: fault.Reason(errRefreshReused), Account: found.account.GetId(), Session: found.id.String(), Origin: req.GetOrigin()})
	})
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	if refusal != nil {
		s.revocations.Soon() // a reuse revokes the session
		return nil, refusal
	}
	tokens, err := s.sessions.tokensAt(at, found.account, found.id, next, found.expiresIn)
	if err != nil {
		return nil, err
	}
	return &authv1.RefreshResponse{Tokens: tokens}, nil
}

// auditEnded audits a token of a session that has ended. If its account was
// deleted, found is nil and only the session's id is known.
func (s *sessionService) auditEnded(ctx context.Context, tx pgx.Tx, token tokens.Refresh, found *session, origin *authv1.Origin) error {
	row := audit.Row{Event: audit.Refresh, Outcome: audit.Refused, Reason: fault.Reason(errSessionEnded), Session: token.Session.String(), Origin: origin}
	if found != nil {
		row.Account = found.account.GetId()
	}
	return s.log.WriteRefusal(ctx, tx, row)
}

// lockedSession locks a session's row and reads it; nil when there is none.
func (s *sessionService) lockedSession(ctx context.Context, tx pgx.Tx, id uuid.UUID) (*session, error) {
	found := &session{id: id}
	var account string
	err := tx.QueryRow(ctx, lockSession, pgx.NamedArgs{"id": id.String()}).
		Scan(&account, &found.generation, &found.tokenHash, &found.tokenKey, &found.idempotencyKey)
	if database.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock the session: %w", err)
	}
	var sinceRotation, expiresIn float64
	err = tx.QueryRow(ctx, selectSessionNow, pgx.NamedArgs{"id": id.String()}).Scan(&found.ended, &sinceRotation, &expiresIn)
	if err != nil {
		return nil, fmt.Errorf("read the session: %w", err)
	}
	found.sinceRotation, found.expiresIn = database.Seconds(sinceRotation), database.Seconds(expiresIn)
	found.account, err = accounts.ByID(ctx, tx, account)
	return found, err
}

func (s *sessionService) rotate(ctx context.Context, tx pgx.Tx, found *session, req *authv1.RefreshRequest) (string, error) {
	next, key := s.sessions.refreshKeys.Issue(tokens.Refresh{Session: found.id, Generation: found.generation + 1})
	hash := tokens.HashOf(next)
	var expiresIn float64
	err := tx.QueryRow(ctx, rotateSession, pgx.NamedArgs{
		"id": found.id.String(), "generation": found.generation + 1, "token_hash": hash[:], "token_key": key,
		"idempotency_key_hash": idempotencyHash(req.GetIdempotencyKey()), "idle": s.sessions.idle,
		"user_agent": req.GetOrigin().GetUserAgent(), "ip_address": req.GetOrigin().GetIpAddress(),
	}).Scan(&expiresIn)
	if err != nil {
		return "", fmt.Errorf("rotate: %w", err)
	}
	found.expiresIn = database.Seconds(expiresIn)
	return next, changes.NoteSessions(ctx, tx, found.account.GetId())
}

// mayRepeat distinguishes a repeated refresh from a stolen token.
func (s *sessionService) mayRepeat(token tokens.Refresh, found *session, idempotencyKey string) bool {
	if token.Generation != found.generation-1 {
		return false
	}
	if found.sinceRotation <= repeatFreely {
		return true
	}
	key := idempotencyHash(idempotencyKey)
	return found.sinceRotation <= repeatWithKey && key != nil && bytes.Equal(key, found.idempotencyKey)
}

// idempotencyHash returns nil without a key.
func idempotencyHash(key string) []byte {
	if key == "" {
		return nil
	}
	hash := tokens.HashOf(key)
	return hash[:]
}

func sameHash(hash []byte, text string) bool {
	want := tokens.HashOf(text)
	return bytes.Equal(hash, want[:])
}
