// Package admission begins sessions. It alone decides what proofs are worth, and it
// alone writes a session's row: a way in that checked less than the others would be a
// way around their checks.
//
// [Desk.Admit] locks the account and reads whether it owes a second proof, its status
// and its password. It then begins a session, or writes a challenge for what is still
// owed, which [Desk.CompleteLogin] takes the proof for.
package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/deployment"
	"gatehouse/auth/devices"
	"gatehouse/auth/janitor"
	"gatehouse/auth/keyring"
	"gatehouse/auth/outbox"
	"gatehouse/auth/revocations"
	"gatehouse/auth/rotation"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
)

// ErrSecondFactor refuses a caller that cannot pass on a challenge, and a session whose
// level is too low.
var ErrSecondFactor = accounts.ErrSecondFactor

// Desk admits people.
type Desk struct {
	DB          *database.Pool
	Log         *audit.Log
	Keys        *keyring.Keyring
	RefreshKeys tokens.RefreshKeys
	DeviceKeys  tokens.DeviceKeys
	Rotator     rotation.Rotator
	Mails       *outbox.Outbox
	Revocations *revocations.Feed
	Challenges  *challenge.Store
	// Idle and Max end a session: after Idle without use, and after Max.
	Idle, Max time.Duration
	// RememberDevice is how long a remembered device needs no second proof; 0 remembers
	// none.
	RememberDevice time.Duration
	// Verifiers check proofs, one for each kind in authv1.Proof that can be given.
	Verifiers []Verifier
	// LinkPending links a challenge's pending identity to its account, which is locked and
	// has given all proofs; nil without other providers.
	LinkPending func(ctx context.Context, tx pgx.Tx, account *authv1.Account, pending []byte, origin *authv1.Origin) error
	// EmailCode mails a code to the account of the calling session, which may have a second
	// factor, and returns the challenge of a step-up that takes it.
	EmailCode func(ctx context.Context, origin *authv1.Origin, hasFactor bool) (*authv1.Challenge, error)
	// PasskeyOptions returns the options of a passkey for a challenge that was just
	// written, and stores what their verification needs in the challenge's state; nil
	// without passkeys. account is empty while nobody is identified.
	PasskeyOptions func(ctx context.Context, purpose challenge.Purpose, token, account string) (*structpb.Struct, error)
}

// Entry is somebody who gave a first proof.
type Entry struct {
	Account string // its id
	Email   string // for a mail about a sign-in from an unknown device; "" for none
	Proof   Proof
	// before are the methods of an earlier proof, and since is its time.
	before []string
	since  time.Time
	// pending is an identity to link once all proofs are given; nil for none.
	pending []byte
	// Since is when the first proof was given, if it was not now.
	Since time.Time
	// Identity is the id of the other provider's identity that is the proof; "" for
	// another proof.
	Identity string
	// Hash is the hash that the password matched, if the proof is a password: an
	// account that has another one meanwhile is not admitted. NewHash replaces it.
	Hash, NewHash string
	// DeviceToken is that of an earlier sign-in; it may be empty, or another
	// account's.
	DeviceToken string
	// RememberDevice gives the session a device of its own, to be remembered.
	RememberDevice bool
	// MayBeChallenged says that the account had a second factor a moment ago.
	MayBeChallenged bool
	// AcceptsChallenge says that the caller can pass on a challenge.
	AcceptsChallenge bool
	Origin           *authv1.Origin
	// Row is written if a session begins; nil for none.
	Row *audit.Row
}

// Outcome is what an entry leads to. Without an account it is refused: the password is
// no longer the account's, or the account is disabled or gone.
type Outcome struct {
	Account     *authv1.Account
	Tokens      *authv1.Tokens
	DeviceToken string
	// Challenge is set if a second proof is owed, instead of the tokens.
	Challenge *authv1.Challenge
	session   uuid.UUID
	device    uuid.UUID
	mailed    bool
}

const (
	// Before admitAccount, so that it reads the account, its sessions and the epoch
	// as they are after the wait for the lock.
	lockAccount = `SELECT FROM auth.accounts WHERE id = @account_id FOR NO KEY UPDATE`
	// admissible matches only the account whose password was checked: not one that
	// was disabled, or whose password was changed, meanwhile.
	admissible = `
		a.id = @account_id AND a.status = 'active' AND (@hash::text = '' OR ` + accounts.PasswordHash + ` = @hash)`
	owes = `a.second_factor AND @level::integer < 2`
	// noDevice and rememberedDevice begin admitAccount. The second one moves the row of
	// the device to another id if it is remembered and a second proof is owed.
	noDevice         = `WITH device AS (SELECT NULL::uuid AS device_id WHERE false)`
	rememberedDevice = `
		WITH device AS (` + devices.Move + admissible + ` AND ` + owes + ` RETURNING d.device_id
		), moved AS (
			UPDATE auth.sessions SET device_id = @next_device
			WHERE account_id = @account_id AND device_id = @known_device AND revoke_time IS NULL AND ` + recognised + `)`
	recognised = `EXISTS (SELECT FROM device)`
	// admitAccount begins a session unless a second proof is owed, and says which. A
	// remembered device needs none, and proves nothing: the level stays.
	admitAccount = `, a AS (
			UPDATE auth.accounts a
			SET last_sign_in_time = clock_timestamp(),
				password_hash = CASE WHEN @new_hash::text = '' OR a.second_factor THEN a.password_hash ELSE @new_hash END,
				factor_password_hash = CASE WHEN @new_hash = '' OR NOT a.second_factor THEN a.factor_password_hash ELSE @new_hash END
			WHERE ` + admissible + ` AND (NOT (` + owes + `) OR ` + recognised + `)
			RETURNING ` + accounts.Columns + `
		), begun AS (` + insertSession + ` FROM a)
		SELECT ` + accounts.Columns + `, false, ` + recognised + ` FROM a
		UNION ALL
		SELECT ` + accounts.Columns + `, true, false FROM auth.accounts a WHERE ` + admissible + ` AND ` + owes + ` AND NOT ` + recognised
	insertSession = `
		INSERT INTO auth.sessions
			(id, account_id, token_hash, token_key, user_agent, ip_address, device_id, epoch, expire_time, max_expire_time, prune_date,
			level, amr, authenticate_time, second_factor_time, identity_id)
		SELECT @id, @account_id, @token_hash, @token_key, @user_agent, @ip_address, coalesce((SELECT device_id FROM device), @device_id), ` + deployment.CurrentEpoch + `,
			now() + least(@idle::interval, @max::interval), now() + @max::interval,
			(now() + least(@idle::interval, @max::interval) + @kept::interval)::date,
			@level, CASE WHEN ` + recognised + ` THEN @amr::text[] || '{rba}' ELSE @amr END, coalesce(@since, now()), CASE WHEN @level::integer = 2 THEN now() END, @identity_id::uuid`
	// Conditions of the statements that follow.
	sessionBegun   = `EXISTS (SELECT FROM auth.sessions WHERE id = @begun)`
	anotherSession = sessionBegun + ` AND EXISTS (SELECT FROM auth.sessions WHERE account_id = @account_id AND id <> @begun)`
	challengeOwed  = `EXISTS (SELECT FROM auth.accounts a WHERE ` + admissible + ` AND ` + owes + `) AND NOT EXISTS (SELECT FROM auth.sessions WHERE id = @id)`
)

// session is a session to write, and what its client gets.
type session struct {
	id          uuid.UUID
	at          time.Time // of its first access token
	token       string    // the refresh token
	deviceToken string
	device      string // "" unless the shown device token is the account's
	// deviceID is the device's in deviceToken. nextToken is the device token if the
	// device is remembered.
	deviceID  uuid.UUID
	nextToken string
	signIn    accesstoken.SignIn
	args      pgx.NamedArgs // of admitAccount
}

// newSession makes a session. Call it before the account and the epoch are read.
func (d *Desk) newSession(e Entry) (session, error) {
	begun := session{at: d.Keys.Now()}
	owner, err := uuid.Parse(e.Account)
	if err != nil {
		return session{}, fmt.Errorf("read the account's id: %w", err)
	}
	if begun.id, err = uuid.NewV7(); err != nil {
		return session{}, fmt.Errorf("make an id: %w", err)
	}
	level, amr, ok := assess(e.before, e.Proof)
	if !ok {
		return session{}, fmt.Errorf("a proof of the kind %s after the methods %v", e.Proof.Kind, e.before)
	}
	device, known := d.DeviceKeys.Verify(e.DeviceToken, e.Account)
	if known {
		begun.device = device.String()
	}
	if !known || e.RememberDevice {
		device = uuid.New()
	}
	next := uuid.New()
	token, key := d.RefreshKeys.Issue(tokens.Refresh{Session: begun.id, Generation: 1})
	hash := tokens.HashOf(token)
	begun.token, begun.deviceID, begun.deviceToken, begun.nextToken = token, device, d.DeviceKeys.Issue(device, owner), d.DeviceKeys.Issue(next, owner)
	begun.signIn = accesstoken.SignIn{Level: level, AMR: amr, AuthTime: begun.at}
	var since *time.Time
	if e.since.IsZero() {
		e.since = e.Since
	}
	if !e.since.IsZero() {
		since, begun.signIn.AuthTime = &e.since, e.since
	}
	begun.args = pgx.NamedArgs{
		"id": begun.id.String(), "account_id": e.Account, "token_hash": hash[:], "token_key": key,
		"user_agent": e.Origin.GetUserAgent(), "ip_address": e.Origin.GetIpAddress(), "device_id": device.String(),
		"known_device": database.Optional(begun.device), "next_device": next.String(),
		"idle": d.Idle, "max": d.Max, "kept": janitor.SessionRetention,
		"hash": e.Hash, "new_hash": e.NewHash, "level": level, "amr": amr, "since": since, "identity_id": database.Optional(e.Identity),
	}
	return begun, nil
}

// Admit admits an entry in a transaction. Call Offer with the outcome once the
// transaction is committed. Errors: failed_precondition SECOND_FACTOR_REQUIRED.
func (d *Desk) Admit(ctx context.Context, tx pgx.Tx, e Entry) (Outcome, error) {
	// Whether it owes a second proof is not known before.
	e.MayBeChallenged = true
	return d.admit(ctx, e, func(queue func(*pgx.Batch) error) error {
		var batch pgx.Batch
		if err := queue(&batch); err != nil {
			return err
		}
		return tx.SendBatch(ctx, &batch).Close()
	})
}

// AdmitAlone admits an entry in a transaction of its own, of one round trip, and offers
// the challenge.
func (d *Desk) AdmitAlone(ctx context.Context, e Entry) (Outcome, error) {
	transact := func(queue func(*pgx.Batch) error) error { return d.DB.TransactBatch(ctx, queue) }
	outcome, err := d.admit(ctx, e, transact)
	if errors.Is(err, errChallengeMissing) { // enrolled meanwhile
		e.MayBeChallenged = true
		outcome, err = d.admit(ctx, e, transact)
	}
	if err != nil {
		return Outcome{}, err
	}
	return outcome, d.Offer(ctx, challenge.SignIn, &outcome)
}

var errChallengeMissing = errors.New("a second proof is owed, and no challenge was written")

// admit begins a session of an entry, or writes the challenge that it owes. Nothing
// else begins a session.
func (d *Desk) admit(ctx context.Context, e Entry, transact func(queue func(*pgx.Batch) error) error) (Outcome, error) {
	begun, err := d.newSession(e)
	if err != nil {
		return Outcome{}, err
	}
	if err := d.Keys.CheckSigning(begun.at); err != nil {
		return Outcome{}, err
	}
	token := challenge.NewToken()
	challenged := e.MayBeChallenged && e.AcceptsChallenge && begun.signIn.Level < 2
	device := noDevice
	if e.MayBeChallenged && begun.device != "" && d.RememberDevice > 0 {
		device = rememberedDevice
	}
	var account *authv1.Account
	var owed, remembered bool
	err = transact(func(batch *pgx.Batch) error {
		account, owed, remembered = nil, false, false
		batch.Queue(lockAccount, begun.args)
		batch.Queue(device+admitAccount, begun.args).QueryRow(func(row pgx.Row) (err error) {
			account, err = accounts.Scan(row, &owed, &remembered)
			if database.Missing(err) {
				account, err = nil, nil
			}
			return err
		})
		if challenged {
			if err := d.queueChallenge(ctx, batch, e, begun, token); err != nil {
				return err
			}
		}
		return d.queueNotes(ctx, batch, e, begun)
	})
	switch {
	case err != nil:
		return Outcome{}, err
	case owed && !e.AcceptsChallenge:
		return Outcome{}, ErrSecondFactor
	case owed && !challenged:
		return Outcome{}, errChallengeMissing
	case owed:
		return Outcome{Account: account, Challenge: &authv1.Challenge{Token: token, ExpiresIn: int32(challenge.Life.Seconds())}}, nil
	case account == nil:
		return Outcome{}, nil
	}
	if remembered {
		begun.deviceToken, begun.signIn.AMR = begun.nextToken, append(begun.signIn.AMR, "rba")
	}
	issued, err := d.TokensAt(begun.at, account, begun.id, begun.signIn, begun.token, min(d.Idle, d.Max))
	return Outcome{
		Account: account, Tokens: issued, DeviceToken: begun.deviceToken,
		session: begun.id, device: begun.deviceID, mailed: d.mailsAbout(e, begun),
	}, err
}

// queueChallenge adds the challenge of an entry that owes a second proof, and its audit
// row.
func (d *Desk) queueChallenge(ctx context.Context, batch *pgx.Batch, e Entry, begun session, token string) error {
	owed := challenge.Challenge{Purpose: challenge.SignIn, Account: e.Account, Device: begun.device, AMR: begun.signIn.AMR, Identity: e.Identity, Pending: e.pending, FirstProof: e.Since}
	challenge.Queue(batch, owed, token, challengeOwed, begun.args)
	row := audit.Row{Event: audit.Challenge, Outcome: audit.Succeeded, Account: e.Account, Origin: e.Origin}
	return audit.Queue(ctx, batch, row, challenge.Exists, challenge.Args(token))
}

// queueNotes adds the mail about a sign-in from an unknown device, and the audit row.
// The owner of an account without earlier sessions needs no mail about the first.
func (d *Desk) queueNotes(ctx context.Context, batch *pgx.Batch, e Entry, begun session) error {
	condition := pgx.NamedArgs{"begun": begun.id.String(), "account_id": e.Account}
	if d.mailsAbout(e, begun) {
		if err := d.Mails.Queue(batch, newSignIn(e, begun.at), anotherSession, condition); err != nil {
			return err
		}
	}
	if e.Row == nil {
		return nil
	}
	return audit.Queue(ctx, batch, *e.Row, sessionBegun, maps.Clone(condition))
}

func (d *Desk) mailsAbout(e Entry, begun session) bool { return begun.device == "" && e.Email != "" }

// newSignIn is the mail about a sign-in from an unknown device.
func newSignIn(e Entry, at time.Time) outbox.Mail {
	return outbox.Mail{Kind: outbox.NewSignIn, To: e.Email, Account: e.Account, Values: map[string]string{
		"ip_address": e.Origin.GetIpAddress(), "user_agent": e.Origin.GetUserAgent(), "time": at.UTC().Format(time.RFC3339),
	}}
}

// TokensAt returns tokens issued at a time that is not after the account was read.
func (d *Desk) TokensAt(at time.Time, account *authv1.Account, session uuid.UUID, signIn accesstoken.SignIn, refresh string, refreshLife time.Duration) (*authv1.Tokens, error) {
	access, err := d.Keys.AccessToken(account, session, signIn, at)
	if err != nil {
		return nil, err
	}
	return &authv1.Tokens{
		AccessToken: access, RefreshToken: refresh,
		ExpiresIn: int32(keyring.AccessTokenLife.Seconds()), RefreshExpiresIn: int32(refreshLife.Seconds()),
	}, nil
}
