package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/keyring"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
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
	deviceKeys  tokens.DeviceKeys
	mails       *outbox.Outbox
	idle, max   time.Duration // a session ends after idle without use, and after max
}

const (
	selectCredentials = `
		SELECT id, email, password_hash, status = 'active' FROM auth.accounts WHERE lower(email COLLATE "C") = lower(@email COLLATE "C")`
	// It matches only the account whose password was checked: not one that was
	// disabled, or whose password was changed, meanwhile.
	signInAccount = `
		UPDATE auth.accounts
		SET last_sign_in_time = clock_timestamp(), password_hash = @new_hash
		WHERE id = @id AND password_hash = @hash AND status = 'active'`
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
	var account *authv1.Account
	var begun newSession
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, signInAccount, pgx.NamedArgs{"id": id, "hash": hash, "new_hash": newHash})
		if err != nil {
			return fmt.Errorf("note the sign-in: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errCredentials
		}
		if account, err = accounts.ByID(ctx, tx, id); err != nil {
			return err
		}
		if begun, err = s.begin(ctx, tx, account, req.GetDeviceToken(), req.GetOrigin()); err != nil {
			return err
		}
		return audit.Write(ctx, tx, row)
	})
	if errors.Is(err, errCredentials) {
		return nil, s.log.Refuse(ctx, row, errCredentials)
	}
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	return &authv1.LoginResponse{Account: account, Tokens: begun.tokens, DeviceToken: begun.deviceToken}, nil
}

// The owner of an account without earlier sessions needs no mail about the first.
const insertSession = `
	INSERT INTO auth.sessions
		(id, account_id, token_hash, token_key, user_agent, ip_address, device_id, epoch, expire_time, max_expire_time)
	VALUES
		(@id, @account_id, @token_hash, @token_key, @user_agent, @ip_address, @device_id, ` + deployment.CurrentEpoch + `,
		 now() + least(@idle::interval, @max::interval), now() + @max::interval)
	RETURNING create_time, EXISTS (SELECT FROM auth.sessions earlier WHERE earlier.account_id = @account_id)`

// newSession is what the client of a new session gets.
type newSession struct {
	tokens      *authv1.Tokens
	deviceToken string
}

// begin writes a session of the account and returns its first tokens and a device
// token. If the shown device token is the account's, the new one is for the same
// device; otherwise the account's owner gets a mail about the new device.
func (s *sessions) begin(ctx context.Context, tx pgx.Tx, account *authv1.Account, shownDevice string, origin *authv1.Origin) (newSession, error) {
	at := s.keys.Now() // before the epoch is read; the account's row is locked
	id, err := uuid.NewV7()
	if err != nil {
		return newSession{}, fmt.Errorf("make an id: %w", err)
	}
	owner, err := uuid.Parse(account.GetId())
	if err != nil {
		return newSession{}, fmt.Errorf("read the account's id: %w", err)
	}
	device, known := s.deviceKeys.Verify(shownDevice, account.GetId())
	if !known {
		device = uuid.New()
	}
	token, key := s.refreshKeys.Issue(tokens.Refresh{Session: id, Generation: 1})
	hash := tokens.HashOf(token)
	var began time.Time
	var hadSessions bool
	err = tx.QueryRow(ctx, insertSession, pgx.NamedArgs{
		"id": id.String(), "account_id": account.GetId(), "token_hash": hash[:], "token_key": key,
		"user_agent": origin.GetUserAgent(), "ip_address": origin.GetIpAddress(), "device_id": device.String(),
		"idle": s.idle, "max": s.max,
	}).Scan(&began, &hadSessions)
	if err != nil {
		return newSession{}, fmt.Errorf("write the session: %w", err)
	}
	if !known && hadSessions && s.mails.Enabled() {
		err := s.mails.Enqueue(ctx, tx, outbox.Mail{Kind: outbox.NewSignIn, To: account.GetEmail(), Account: account.GetId(), Values: map[string]string{
			"ip_address": origin.GetIpAddress(), "user_agent": origin.GetUserAgent(), "time": began.UTC().Format(time.RFC3339),
		}})
		if err != nil {
			return newSession{}, err
		}
	}
	tokens, err := s.tokensAt(at, account, id, token, min(s.idle, s.max))
	return newSession{tokens: tokens, deviceToken: s.deviceKeys.Issue(device, owner)}, err
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
