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
	"gatehouse/auth/janitor"
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
	moved          bool // the caller's address or user agent is another one
	sinceRotation  time.Duration
	expiresIn      time.Duration
	account        *authv1.Account
}

const (
	sessionEnded = `(s.revoke_time IS NOT NULL OR s.epoch < ` + deployment.CurrentEpoch + ` OR s.expire_time <= clock_timestamp() OR a.status <> 'active')`

	lockSession = `SELECT FROM auth.sessions WHERE id = @id FOR UPDATE`
	// Read after the lock is held, so that the clock and the account are current
	// and not from before the wait.
	selectSessionNow = `
		SELECT ` + accounts.Columns + `, s.generation, s.token_hash, s.token_key, s.idempotency_key_hash, ` + sessionEnded + `,
			(s.user_agent, s.ip_address) <> (@user_agent, @ip_address),
			extract(epoch FROM clock_timestamp() - s.rotate_time)::float8, ` + secondsLeft + `
		FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id`

	// It changes no indexed column, except that after the idle time was shortened the
	// session is pruned sooner.
	setRotated = `
		generation = @next_generation, token_hash = @next_hash, token_key = @token_key,
		rotate_time = clock_timestamp(), idempotency_key_hash = @idempotency_key_hash,
		last_used_time = clock_timestamp(), user_agent = @user_agent, ip_address = @ip_address,
		expire_time = least(clock_timestamp() + @idle::interval, s.max_expire_time),
		prune_date = least(s.prune_date, (clock_timestamp() + @idle::interval + @kept::interval)::date)`
	secondsLeft = `extract(epoch FROM s.expire_time - clock_timestamp())::float8`

	// rotateCurrent rotates the session if the token is its current one. When it
	// waits for the row's lock, it compares with the row as it is then; the account
	// may be from before the wait, as a token's account may always be: see Refresh.
	rotateCurrent = `
		UPDATE auth.sessions s SET ` + setRotated + `
		FROM auth.accounts a
		WHERE s.id = @id AND s.generation = @generation AND s.token_hash = @token_hash AND a.id = s.account_id AND NOT ` + sessionEnded
	// Gateways cache the address and the user agent until a change is recorded, and
	// last_used_time and expire_time for some seconds only: see maxSessionsTTL in bff.
	rotateUnmoved = rotateCurrent + ` AND s.user_agent = @user_agent AND s.ip_address = @ip_address
		RETURNING ` + accounts.Columns + `, ` + secondsLeft
	rotateMoved = `
		WITH a AS (` + rotateCurrent + ` RETURNING ` + accounts.Columns + `, ` + secondsLeft + ` AS expires_in
		), noted AS (` + changes.InsertSessions + `a)
		SELECT ` + accounts.Columns + `, a.expires_in FROM a`
	rotateSession = `UPDATE auth.sessions s SET ` + setRotated + ` WHERE s.id = @id RETURNING ` + secondsLeft
)

// Refresh implements authv1.SessionServiceHandler.
//
// Refreshes are most of auth's writes. The usual one, with the current token from
// the known address, is one statement. After that, one round trip decides whether
// the caller has moved or the refresh is repeated. Everything else is decided again
// in a transaction that holds the session's lock.
func (s *sessionService) Refresh(ctx context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
	token, ok := s.sessions.refreshKeys.Verify(req.GetRefreshToken())
	if !ok {
		return nil, errRefreshInvalid
	}
	// The account isn't locked, so its roles may change before the token is signed.
	// With this time, the token expires before its revocation is pruned.
	at := s.sessions.keys.Now()
	found, next, err := s.refresh(ctx, token, req)
	if err != nil {
		return nil, err
	}
	tokens, err := s.sessions.tokensAt(at, found.account, found.id, next, found.expiresIn)
	if err != nil {
		return nil, err
	}
	return &authv1.RefreshResponse{Tokens: tokens}, nil
}

// refresh returns the session and its refresh token after the call.
func (s *sessionService) refresh(ctx context.Context, token tokens.Refresh, req *authv1.RefreshRequest) (*session, string, error) {
	next, args := s.rotation(token.Session, token.Generation, req)
	rotated, err := scanRotated(s.db.QueryRow(ctx, rotateUnmoved, args), token.Session)
	if err != nil {
		return nil, "", fmt.Errorf("refresh: %w", err)
	}
	if rotated != nil {
		return rotated, next, nil
	}
	var found *session
	err = s.db.TransactBatch(ctx, func(batch *pgx.Batch) error {
		batch.Queue(rotateMoved, args).QueryRow(func(row pgx.Row) (err error) {
			rotated, err = scanRotated(row, token.Session)
			return err
		})
		queueLocked(batch, token.Session, req, &found)
		return nil
	})
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("refresh: %w", err)
	case rotated != nil:
		return rotated, next, nil
	case found != nil && !found.ended && s.mayRepeat(token, found, req.GetIdempotencyKey()):
		if again, ok := s.reissue(found); ok {
			return found, again, nil
		}
	}
	return s.refreshLocked(ctx, token, req)
}

// refreshLocked refreshes in a transaction that locks the session first.
func (s *sessionService) refreshLocked(ctx context.Context, token tokens.Refresh, req *authv1.RefreshRequest) (found *session, next string, err error) {
	var refusal error // whose transaction is committed, unlike an error's
	err = s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		next, refusal = "", nil
		found, err = lockedSession(ctx, tx, token.Session, req)
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
			var ok bool
			if next, ok = s.reissue(found); !ok {
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
		return revokeReused(ctx, tx, found, req.GetOrigin())
	})
	if err != nil {
		return nil, "", fmt.Errorf("refresh: %w", err)
	}
	if refusal != nil {
		s.revocations.Soon() // a reuse revokes the session
		return nil, "", refusal
	}
	return found, next, nil
}

// revokeReused ends the session of a reused token.
func revokeReused(ctx context.Context, tx pgx.Tx, found *session, origin *authv1.Origin) error {
	if err := revocations.RevokeSession(ctx, tx, found.id, "reuse"); err != nil {
		return err
	}
	if err := changes.NoteSessions(ctx, tx, found.account.GetId()); err != nil {
		return err
	}
	return audit.Write(ctx, tx, audit.Row{Event: audit.RefreshReuse, Outcome: audit.Refused, Reason: fault.Reason(errRefreshReused), Account: found.account.GetId(), Session: found.id.String(), Origin: origin})
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

// queueLocked adds the statements that lock a session's row and read it into found,
// which becomes nil when there is none.
func queueLocked(batch *pgx.Batch, id uuid.UUID, req *authv1.RefreshRequest, found **session) {
	args := pgx.NamedArgs{"id": id.String(), "user_agent": req.GetOrigin().GetUserAgent(), "ip_address": req.GetOrigin().GetIpAddress()}
	batch.Queue(lockSession, args)
	batch.Queue(selectSessionNow, args).QueryRow(func(row pgx.Row) (err error) {
		one := &session{id: id}
		var sinceRotation, expiresIn float64
		one.account, err = accounts.Scan(row, &one.generation, &one.tokenHash, &one.tokenKey, &one.idempotencyKey,
			&one.ended, &one.moved, &sinceRotation, &expiresIn)
		one.sinceRotation, one.expiresIn = database.Seconds(sinceRotation), database.Seconds(expiresIn)
		*found = one
		if database.Missing(err) {
			*found, err = nil, nil
		}
		return err
	})
}

// lockedSession locks a session's row and reads it; nil when there is none.
func lockedSession(ctx context.Context, tx pgx.Tx, id uuid.UUID, req *authv1.RefreshRequest) (found *session, err error) {
	var batch pgx.Batch
	queueLocked(&batch, id, req, &found)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("lock the session: %w", err)
	}
	return found, nil
}

// rotation returns the token after a generation, and the arguments of the statements
// that rotate the session to it.
func (s *sessionService) rotation(id uuid.UUID, generation int32, req *authv1.RefreshRequest) (next string, args pgx.NamedArgs) {
	next, key := s.sessions.refreshKeys.Issue(tokens.Refresh{Session: id, Generation: generation + 1})
	hash, nextHash := tokens.HashOf(req.GetRefreshToken()), tokens.HashOf(next)
	return next, pgx.NamedArgs{
		"id": id.String(), "generation": generation, "token_hash": hash[:],
		"next_generation": generation + 1, "next_hash": nextHash[:], "token_key": key,
		"idempotency_key_hash": idempotencyHash(req.GetIdempotencyKey()), "idle": s.sessions.idle, "kept": janitor.SessionRetention,
		"user_agent": req.GetOrigin().GetUserAgent(), "ip_address": req.GetOrigin().GetIpAddress(),
	}
}

// scanRotated reads the row of rotateUnmoved or rotateMoved; nil when there is none.
func scanRotated(row pgx.Row, id uuid.UUID) (*session, error) {
	var expiresIn float64
	account, err := accounts.Scan(row, &expiresIn)
	if database.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rotate: %w", err)
	}
	return &session{id: id, account: account, expiresIn: database.Seconds(expiresIn)}, nil
}

// rotate rotates a locked session.
func (s *sessionService) rotate(ctx context.Context, tx pgx.Tx, found *session, req *authv1.RefreshRequest) (string, error) {
	next, args := s.rotation(found.id, found.generation, req)
	var expiresIn float64
	if err := tx.QueryRow(ctx, rotateSession, args).Scan(&expiresIn); err != nil {
		return "", fmt.Errorf("rotate: %w", err)
	}
	found.expiresIn = database.Seconds(expiresIn)
	if !found.moved {
		return next, nil
	}
	return next, changes.NoteSessions(ctx, tx, found.account.GetId())
}

// reissue returns a session's current token, and whether the key that made it is
// still there.
func (s *sessionService) reissue(found *session) (string, bool) {
	again, ok := s.sessions.refreshKeys.Reissue(tokens.Refresh{Session: found.id, Generation: found.generation}, found.tokenKey)
	return again, ok && sameHash(found.tokenHash, again)
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
