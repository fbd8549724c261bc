// Package rotation rotates the refresh token of a session's row.
//
// A rotation replaces the current token, of one generation, by that of the next. Of
// concurrent rotations with one token, one takes place; the others find the row
// already rotated, and may repeat the answer.
package rotation

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/changes"
	"gatehouse/auth/deployment"
	"gatehouse/auth/janitor"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
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

// Session is a session's row, with times as ages on Postgres' clock.
type Session struct {
	ID             uuid.UUID
	Generation     int32
	TokenKey       string
	Ended          bool
	ExpiresIn      time.Duration
	Account        *authv1.Account
	SignIn         accesstoken.SignIn
	tokenHash      []byte
	idempotencyKey []byte
	moved          bool // the client's IP address or user agent has changed
	sinceRotation  time.Duration
}

const (
	sessionEnded = `(s.revoke_time IS NOT NULL OR s.epoch < ` + deployment.CurrentEpoch + ` OR s.expire_time <= clock_timestamp() OR a.status <> 'active')`

	lockSession = `SELECT FROM auth.sessions WHERE id = @id FOR UPDATE`
	// Read after the lock is held, so that the clock and the account are current
	// and not from before the wait.
	selectSessionNow = `
		SELECT ` + accounts.Columns + `, s.generation, s.token_hash, s.token_key, s.idempotency_key_hash, ` + sessionEnded + `,
			(s.user_agent, s.ip_address) <> (@user_agent, @ip_address),
			extract(epoch FROM clock_timestamp() - s.rotate_time)::float8, ` + secondsLeft + `, ` + signIn + `
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
	signIn      = `s.level, s.amr, s.authenticate_time`

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
		RETURNING ` + accounts.Columns + `, ` + secondsLeft + `, ` + signIn
	rotateMoved = `
		WITH a AS (` + rotateCurrent + ` RETURNING ` + accounts.Columns + `, ` + secondsLeft + ` AS expires_in, ` + signIn + `
		), noted AS (` + changes.InsertSessions + `a)
		SELECT ` + accounts.Columns + `, a.expires_in, a.level, a.amr, a.authenticate_time FROM a`
	rotateSession = `UPDATE auth.sessions s SET ` + setRotated + ` WHERE s.id = @id RETURNING ` + secondsLeft
)

// Rotator rotates sessions.
type Rotator struct {
	DB   *database.Pool
	Keys tokens.RefreshKeys
	// Idle is how long a session lives without use.
	Idle time.Duration
}

// Current rotates the session if the token is its current one and the client's IP
// address and user agent are unchanged, in one round trip. It returns the session and its next token; nil if
// it did not rotate.
func (r Rotator) Current(ctx context.Context, token tokens.Refresh, req *authv1.RefreshRequest) (*Session, string, error) {
	next, args := r.rotation(token.Session, token.Generation, req)
	rotated, err := scanRotated(r.DB.QueryRow(ctx, rotateUnmoved, args), token.Session)
	return rotated, next, err
}

// Moved rotates the session if the token is its current one, whatever the client's IP
// address and user agent, in one round trip. It returns the session and its next token. If it did not rotate,
// it returns an empty token, and the session as it is; nil if there is none.
func (r Rotator) Moved(ctx context.Context, token tokens.Refresh, req *authv1.RefreshRequest) (*Session, string, error) {
	next, args := r.rotation(token.Session, token.Generation, req)
	var rotated, found *Session
	err := r.DB.TransactBatch(ctx, func(batch *pgx.Batch) error {
		batch.Queue(rotateMoved, args).QueryRow(func(row pgx.Row) (err error) {
			rotated, err = scanRotated(row, token.Session)
			return err
		})
		queueLocked(batch, token.Session, req, &found)
		return nil
	})
	switch {
	case err != nil:
		return nil, "", err
	case rotated != nil:
		return rotated, next, nil
	}
	return found, "", nil
}

// queueLocked adds the statements that lock a session's row and read it into found,
// which becomes nil when there is none.
func queueLocked(batch *pgx.Batch, id uuid.UUID, req *authv1.RefreshRequest, found **Session) {
	args := pgx.NamedArgs{"id": id.String(), "user_agent": req.GetOrigin().GetUserAgent(), "ip_address": req.GetOrigin().GetIpAddress()}
	batch.Queue(lockSession, args)
	batch.Queue(selectSessionNow, args).QueryRow(func(row pgx.Row) (err error) {
		one := &Session{ID: id}
		var sinceRotation, expiresIn float64
		one.Account, err = accounts.Scan(row, &one.Generation, &one.tokenHash, &one.TokenKey, &one.idempotencyKey,
			&one.Ended, &one.moved, &sinceRotation, &expiresIn, &one.SignIn.Level, &one.SignIn.AMR, &one.SignIn.AuthTime)
		one.sinceRotation, one.ExpiresIn = database.Seconds(sinceRotation), database.Seconds(expiresIn)
		*found = one
		if database.Missing(err) {
			*found, err = nil, nil
		}
		return err
	})
}

// Locked locks a session's row and reads it; nil when there is none.
func Locked(ctx context.Context, tx pgx.Tx, id uuid.UUID, req *authv1.RefreshRequest) (found *Session, err error) {
	var batch pgx.Batch
	queueLocked(&batch, id, req, &found)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("lock the session: %w", err)
	}
	return found, nil
}

// rotation returns the token after a generation, and the arguments of the statements
// that rotate the session to it.
func (r Rotator) rotation(id uuid.UUID, generation int32, req *authv1.RefreshRequest) (next string, args pgx.NamedArgs) {
	next, key := r.Keys.Issue(tokens.Refresh{Session: id, Generation: generation + 1})
	hash, nextHash := tokens.HashOf(req.GetRefreshToken()), tokens.HashOf(next)
	return next, pgx.NamedArgs{
		"id": id.String(), "generation": generation, "token_hash": hash[:],
		"next_generation": generation + 1, "next_hash": nextHash[:], "token_key": key,
		"idempotency_key_hash": idempotencyHash(req.GetIdempotencyKey()), "idle": r.Idle, "kept": janitor.SessionRetention,
		"user_agent": req.GetOrigin().GetUserAgent(), "ip_address": req.GetOrigin().GetIpAddress(),
	}
}

// scanRotated reads the row of rotateUnmoved or rotateMoved; nil when there is none.
func scanRotated(row pgx.Row, id uuid.UUID) (*Session, error) {
	var expiresIn float64
	rotated := &Session{ID: id}
	account, err := accounts.Scan(row, &expiresIn, &rotated.SignIn.Level, &rotated.SignIn.AMR, &rotated.SignIn.AuthTime)
	if database.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rotate: %w", err)
	}
	rotated.Account, rotated.ExpiresIn = account, database.Seconds(expiresIn)
	return rotated, nil
}

// Rotate rotates a locked session.
func (r Rotator) Rotate(ctx context.Context, tx pgx.Tx, found *Session, req *authv1.RefreshRequest) (string, error) {
	next, args := r.rotation(found.ID, found.Generation, req)
	var expiresIn float64
	if err := tx.QueryRow(ctx, rotateSession, args).Scan(&expiresIn); err != nil {
		return "", fmt.Errorf("rotate: %w", err)
	}
	found.ExpiresIn = database.Seconds(expiresIn)
	if !found.moved {
		return next, nil
	}
	return next, changes.NoteSessions(ctx, tx, found.Account.GetId())
}

// Reissue returns a session's current token, and whether the key that it was made
// with is still configured.
func (r Rotator) Reissue(found *Session) (string, bool) {
	again, ok := r.Keys.Reissue(tokens.Refresh{Session: found.ID, Generation: found.Generation}, found.TokenKey)
	return again, ok && sameHash(found.tokenHash, again)
}

// MayRepeat distinguishes a repeated refresh from a stolen token.
func (found *Session) MayRepeat(token tokens.Refresh, idempotencyKey string) bool {
	if token.Generation != found.Generation-1 {
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

// IsCurrent reports whether a verified token, with this text, is the session's current
// one.
func (found *Session) IsCurrent(token tokens.Refresh, text string) bool {
	return token.Generation == found.Generation && sameHash(found.tokenHash, text)
}

func sameHash(hash []byte, text string) bool {
	want := tokens.HashOf(text)
	return bytes.Equal(hash, want[:])
}
