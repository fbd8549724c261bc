package auth

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/janitor"
	"gatehouse/auth/keyring"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/rotation"
	"gatehouse/auth/throttle"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

var (
	errCredentials = fault.New(connect.CodeUnauthenticated, "CREDENTIALS_INVALID", "The email or the password is wrong.")
)

// sessions signs in: it checks credentials, and issues a session's tokens.
type sessions struct {
	db          *database.Pool
	log         *audit.Log
	passwords   *passwords.Checker
	keys        *keyring.Keyring
	refreshKeys tokens.RefreshKeys
	rotator     rotation.Rotator
	deviceKeys  tokens.DeviceKeys
	mails       *outbox.Outbox
	idle, max   time.Duration // a session ends after idle without use, and after max
}

const (
	selectCredentials = `
		SELECT id, email, password_hash, status = 'active' FROM auth.accounts WHERE lower(email COLLATE "C") = lower(@email COLLATE "C")`
	// Before signInAccount, so that it reads the account, its sessions and the epoch
	// as they are after the wait for the lock.
	lockAccount = `SELECT FROM auth.accounts WHERE id = @account_id FOR NO KEY UPDATE`
	// It matches only the account whose password was checked: not one that was
	// disabled, or whose password was changed, meanwhile.
	signInAccount = `
		WITH a AS (
			UPDATE auth.accounts a
			SET last_sign_in_time = clock_timestamp(), password_hash = @new_hash
			WHERE a.id = @account_id AND a.password_hash = @hash AND a.status = 'active'
			RETURNING ` + accounts.Columns + `
		), begun AS (
			INSERT INTO auth.sessions ` + sessionColumns + ` SELECT ` + sessionValues + ` FROM a)
		SELECT ` + accounts.Columns + ` FROM a`
	// Conditions of the statements that follow it.
	sessionBegun   = `EXISTS (SELECT FROM auth.sessions WHERE id = @begun)`
	anotherSession = sessionBegun + ` AND EXISTS (SELECT FROM auth.sessions WHERE account_id = @account_id AND id <> @begun)`
)

// credentials of an account; the zero value is for no account.
type credentials struct {
	id, email, hash string
	active          bool
}

func readCredentials(ctx context.Context, db database.Querier, query string, args pgx.NamedArgs) (credentials, error) {
	var found credentials
	err := db.QueryRow(ctx, query, args).Scan(&found.id, &found.email, &found.hash, &found.active)
	if err != nil && !database.Missing(err) {
		return credentials{}, fmt.Errorf("look up the account: %w", err)
	}
	return found, nil
}

// signIn begins a session of the account if the password is right.
func (s *sessions) signIn(ctx context.Context, req *authv1.LoginRequest, found credentials) (*authv1.LoginResponse, error) {
	id, hash := found.id, found.hash
	client := throttle.Client{Email: accounts.FoldEmail(req.GetEmail()), Address: req.GetOrigin().GetIpAddress()}
	row := audit.Row{Event: audit.Login, Outcome: audit.Succeeded, Account: id, Origin: req.GetOrigin(), Subject: "email:" + strings.ToLower(req.GetEmail())}
	caller := passwords.Stranger(req.GetOrigin())
	if device, known := s.deviceKeys.Verify(req.GetDeviceToken(), id); known {
		client.DeviceID, caller = device.String(), passwords.KnownDevice(id)
	}
	outdated, err := s.passwords.Try(ctx, passwords.Attempt{Client: client, Caller: caller, Password: req.GetPassword(), Hash: hash, Wrong: errCredentials, Row: row})
	if err != nil {
		return nil, err
	}
	if !found.active {
		return nil, s.log.Refuse(ctx, row, accounts.ErrDisabled)
	}
	newHash := hash
	if outdated {
		if newHash, err = s.passwords.Hasher.Hash(ctx, caller, req.GetPassword()); err != nil {
			return nil, err
		}
	}
	begun, err := s.newSession(id, req.GetDeviceToken(), req.GetOrigin())
	if err != nil {
		return nil, err
	}
	if err := s.keys.CheckSigning(begun.at); err != nil {
		return nil, err
	}
	account, err := s.beginChecked(ctx, begun, hash, newHash, found.email, row)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	if account == nil {
		return nil, s.log.Refuse(ctx, row, errCredentials)
	}
	tokens, err := s.tokensAt(begun.at, account, begun.id, begun.token, min(s.idle, s.max))
	if err != nil {
		return nil, err
	}
	return &authv1.LoginResponse{Account: account, Tokens: tokens, DeviceToken: begun.deviceToken}, nil
}

// beginChecked writes a session of the account whose password hash was checked, with
// its audit row, in one round trip. It returns the account; nil if the hash is no
// longer the account's, or the account is disabled.
func (s *sessions) beginChecked(ctx context.Context, begun newSession, hash, newHash, email string, row audit.Row) (*authv1.Account, error) {
	var account *authv1.Account
	err := s.db.TransactBatch(ctx, func(batch *pgx.Batch) error {
		args := maps.Clone(begun.args)
		args["hash"], args["new_hash"] = hash, newHash
		batch.Queue(lockAccount, args)
		batch.Queue(signInAccount, args).QueryRow(func(row pgx.Row) (err error) {
			account, err = accounts.Scan(row)
			if database.Missing(err) {
				account, err = nil, nil
			}
			return err
		})
		condition := pgx.NamedArgs{"begun": begun.id.String(), "account_id": row.Account}
		if !begun.knownDevice {
			if err := s.mails.Queue(batch, s.newSignIn(row.Account, email, begun.at, row.Origin), anotherSession, condition); err != nil {
				return err
			}
		}
		return audit.Queue(ctx, batch, row, sessionBegun, condition)
	})
	if err == nil && account != nil && !begun.knownDevice {
		s.mails.Wake()
	}
	return account, err
}

const (
	sessionColumns = `
		(id, account_id, token_hash, token_key, user_agent, ip_address, device_id, epoch, expire_time, max_expire_time, prune_date)`
	sessionValues = `
		@id, @account_id, @token_hash, @token_key, @user_agent, @ip_address, @device_id, ` + deployment.CurrentEpoch + `,
		now() + least(@idle::interval, @max::interval), now() + @max::interval,
		(now() + least(@idle::interval, @max::interval) + @kept::interval)::date`
	// The owner of an account without earlier sessions needs no mail about the first.
	insertSession = `
		INSERT INTO auth.sessions ` + sessionColumns + ` SELECT ` + sessionValues + `
		RETURNING EXISTS (SELECT FROM auth.sessions earlier WHERE earlier.account_id = @account_id)`
)

// newSession is a session to write, and what its client gets.
type newSession struct {
	id          uuid.UUID
	at          time.Time // of its first access token
	token       string    // the refresh token
	deviceToken string
	// knownDevice says that the shown device token is the account's: the new one is
	// for the same device.
	knownDevice bool
	args        pgx.NamedArgs // of insertSession
}

// newSession makes a session of an account. Call it before the account and the epoch
// are read.
func (s *sessions) newSession(account, shownDevice string, origin *authv1.Origin) (newSession, error) {
	begun := newSession{at: s.keys.Now()}
	owner, err := uuid.Parse(account)
	if err != nil {
		return newSession{}, fmt.Errorf("read the account's id: %w", err)
	}
	if begun.id, err = uuid.NewV7(); err != nil {
		return newSession{}, fmt.Errorf("make an id: %w", err)
	}
	device, known := s.deviceKeys.Verify(shownDevice, account)
	if !known {
		device = uuid.New()
	}
	token, key := s.refreshKeys.Issue(tokens.Refresh{Session: begun.id, Generation: 1})
	hash := tokens.HashOf(token)
	begun.token, begun.deviceToken, begun.knownDevice = token, s.deviceKeys.Issue(device, owner), known
	begun.args = pgx.NamedArgs{
		"id": begun.id.String(), "account_id": account, "token_hash": hash[:], "token_key": key,
		"user_agent": origin.GetUserAgent(), "ip_address": origin.GetIpAddress(), "device_id": device.String(),
		"idle": s.idle, "max": s.max, "kept": janitor.SessionRetention,
	}
	return begun, nil
}

// newSignIn is the mail about a sign-in from an unknown device.
func (s *sessions) newSignIn(account, email string, at time.Time, origin *authv1.Origin) outbox.Mail {
	return outbox.Mail{Kind: outbox.NewSignIn, To: email, Account: account, Values: map[string]string{
		"ip_address": origin.GetIpAddress(), "user_agent": origin.GetUserAgent(), "time": at.UTC().Format(time.RFC3339),
	}}
}

// firstTokens are those of a new session.
type firstTokens struct {
	tokens      *authv1.Tokens
	deviceToken string
}

// begin writes a session of the account, whose row is locked, and returns its first
// tokens and a device token. If the shown device token isn't the account's, its owner
// gets a mail about the new device.
func (s *sessions) begin(ctx context.Context, tx pgx.Tx, account *authv1.Account, shownDevice string, origin *authv1.Origin) (firstTokens, error) {
	begun, err := s.newSession(account.GetId(), shownDevice, origin)
	if err != nil {
		return firstTokens{}, err
	}
	var hadSessions bool
	if err := tx.QueryRow(ctx, insertSession, begun.args).Scan(&hadSessions); err != nil {
		return firstTokens{}, fmt.Errorf("write the session: %w", err)
	}
	if !begun.knownDevice && hadSessions {
		if err := s.mails.Enqueue(ctx, tx, s.newSignIn(account.GetId(), account.GetEmail(), begun.at, origin)); err != nil {
			return firstTokens{}, err
		}
	}
	tokens, err := s.tokensAt(begun.at, account, begun.id, begun.token, min(s.idle, s.max))
	return firstTokens{tokens: tokens, deviceToken: begun.deviceToken}, err
}

// tokensAt returns tokens issued at a time that is not after the account was read.
func (s *sessions) tokensAt(at time.Time, account *authv1.Account, session uuid.UUID, refresh string, refreshLife time.Duration) (*authv1.Tokens, error) {
	access, err := s.keys.AccessToken(account, session, at)
	if err != nil {
		return nil, err
	}
	return &authv1.Tokens{
		AccessToken: access, RefreshToken: refresh,
		ExpiresIn: int32(keyring.AccessTokenLife.Seconds()), RefreshExpiresIn: int32(refreshLife.Seconds()),
	}, nil
}

const selectCredentialsByID = `SELECT id, email, password_hash, status = 'active' FROM auth.accounts WHERE id = @id`

// signInAgain signs in, as Login does, to the account that the first call with the
// same idempotency key created.
// Errors: those of Login, failed_precondition IDEMPOTENCY_TARGET_GONE.
func (s *sessions) signInAgain(ctx context.Context, made, password string, row audit.Row) (*authv1.LoginResponse, error) {
	found, err := readCredentials(ctx, s.db, selectCredentialsByID, pgx.NamedArgs{"id": made})
	if err != nil {
		return nil, err
	}
	if found.id == "" {
		return nil, s.log.Refuse(ctx, row, idempotency.ErrTargetGone)
	}
	return s.signIn(ctx, &authv1.LoginRequest{Email: found.email, Password: password, Origin: row.Origin}, found)
}
