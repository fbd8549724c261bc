// Package links owns the links that are sent by mail: their tokens, what ends them,
// whom they are addressed to, and how many may be requested.
//
// A link works once and for a short time, and proves that its holder reads the mail
// of an address. Its token is "ghl_" and base64url of 32 random bytes; only its hash
// is stored. An account's row is locked before those of its links. A change of email
// or password ends the account's other open links.
package links

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/outbox"
	"gatehouse/auth/throttle"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/opaque"
)

const (
	linkPrefix = "ghl_"
	linkSecret = 32
	// Life is how long a link works.
	Life = 30 * time.Minute
	// Retention is how long a link is kept after its end, so that its holder
	// gets the reason why it no longer works.
	Retention = 24 * time.Hour
)

// Sender sends mail with links, and limits how many.
type Sender struct {
	Log      *audit.Log
	Throttle *throttle.Throttle
	Mails    *outbox.Outbox
}

// Kind is the purpose of a link.
type Kind string

const (
	Register    Kind = "register" // creates the account, unless it exists
	Verify      Kind = "verify"
	Invite      Kind = "invite"
	Reset       Kind = "reset"
	EmailChange Kind = "email_change"
)

var (
	ErrInvalid    = fault.New(connect.CodeInvalidArgument, "LINK_INVALID", "This link is incomplete, or was not issued here. Open it exactly as it is in the mail, or ask for another.")
	errUsed       = fault.New(connect.CodeFailedPrecondition, "LINK_USED", "This link was used already, and works once. Ask for another if you need it.")
	errExpired    = fault.New(connect.CodeFailedPrecondition, "LINK_EXPIRED", "This link is too old. Ask for another, and use it within 30 minutes.")
	errSuperseded = fault.New(connect.CodeFailedPrecondition, "LINK_SUPERSEDED", "The account has changed since this link was sent. Ask for another if you need it.")
)

// Link is a row of auth.links.
type Link struct {
	hash    tokens.Hash
	Kind    Kind
	Email   string
	Account string // "" while unknown
	Profile []byte // the encoded registration
}

const insertLink = `
	INSERT INTO auth.links (token_hash, kind, email, account_id, profile, expire_time)
	VALUES (@token_hash, @kind, @email, @account_id, @profile, now() + @life::interval)`

// NewToken returns a random token.
func NewToken() string {
	secret := make([]byte, linkSecret)
	_, _ = rand.Read(secret) // never fails
	return opaque.Encode(linkPrefix, secret)
}

// Issue writes a link and returns its token.
func Issue(ctx context.Context, tx pgx.Tx, l Link) (string, error) {
	token := NewToken()
	return token, write(ctx, tx, l, token)
}

func write(ctx context.Context, tx pgx.Tx, l Link, token string) error {
	hash := tokens.HashOf(token)
	_, err := tx.Exec(ctx, insertLink, pgx.NamedArgs{
		"token_hash": hash[:], "kind": string(l.Kind), "email": l.Email, "account_id": database.Optional(l.Account),
		"profile": l.Profile, "life": Life,
	})
	if err != nil {
		return fmt.Errorf("write the link: %w", err)
	}
	return nil
}

const (
	// By the clock, not by the transaction's beginning: it may have waited.
	Select = `
		SELECT kind, email, account_id::text, profile, coalesce(end_reason, ''), expire_time <= clock_timestamp()
		FROM auth.links WHERE token_hash = @token_hash`
	selectLinkLock = Select + ` FOR UPDATE`
)

// Read returns the token's link if it is open and of one of the kinds.
// Errors: invalid_argument LINK_INVALID, failed_precondition LINK_USED,
// LINK_EXPIRED or LINK_SUPERSEDED. With the last three it also returns the link.
func Read(ctx context.Context, db database.Querier, query, token string, kinds ...Kind) (Link, error) {
	if !isLinkToken(token) {
		return Link{}, ErrInvalid
	}
	found := Link{hash: tokens.HashOf(token)}
	var account *string
	var ended string
	var expired bool
	err := db.QueryRow(ctx, query, pgx.NamedArgs{"token_hash": found.hash[:]}).
		Scan(&found.Kind, &found.Email, &account, &found.Profile, &ended, &expired)
	if database.Missing(err) {
		return Link{}, ErrInvalid
	}
	if err != nil {
		return Link{}, fmt.Errorf("look up the link: %w", err)
	}
	if account != nil {
		found.Account = *account
	}
	switch {
	case !slices.Contains(kinds, found.Kind):
		return Link{}, ErrInvalid
	case ended == endUsed:
		return found, errUsed
	case ended != "":
		return found, errSuperseded
	case expired:
		return found, errExpired
	}
	return found, nil
}

// isLinkToken reports whether the text has the form of a token.
func isLinkToken(text string) bool {
	secret, ok := opaque.Decode(linkPrefix, text)
	return ok && len(secret) == linkSecret
}

// ErrChanged is returned by a transaction that has to be retried, because the account
// has changed meanwhile.
var ErrChanged = errors.New("the link's account has changed meanwhile")

// Lock locks the account that a link is about, then the link, and returns
// both; the account is nil when it does not exist yet. Errors: as Read,
// and LINK_SUPERSEDED for a link that was sent to an address that the account
// no longer has; permission_denied ACCOUNT_DISABLED, which leaves the link as
// it is.
func Lock(ctx context.Context, tx pgx.Tx, token string, kinds ...Kind) (Link, *authv1.Account, error) {
	seen, err := Read(ctx, tx, Select, token, kinds...)
	if err != nil {
		return seen, nil, err
	}
	account, err := lockOwner(ctx, tx, seen)
	if err != nil {
		return seen, nil, err
	}
	locked, err := Read(ctx, tx, selectLinkLock, token, kinds...)
	switch {
	case err != nil:
		return locked, nil, err
	case locked.Account != seen.Account && locked.Account != account.GetId():
		return locked, nil, ErrChanged
	case account == nil:
		return locked, nil, nil
	case locked.Kind != EmailChange && accounts.FoldEmail(account.GetEmail()) != accounts.FoldEmail(locked.Email):
		return locked, nil, errSuperseded
	case account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE:
		return locked, nil, accounts.ErrDisabled
	}
	return locked, account, nil
}

const (
	// Held to the end of the transaction, instead of the account that doesn't
	// exist yet: otherwise two registrations of one email would each hold the link
	// that the other has to end.
	lockEmail = `SELECT pg_advisory_xact_lock(hashtextextended('gatehouse email ' || lower(@email COLLATE "C"), 0))`
)

// lockOwner locks the account that a link is about; nil when the account does not
// exist yet.
func lockOwner(ctx context.Context, tx pgx.Tx, l Link) (*authv1.Account, error) {
	if l.Account != "" {
		account, err := accounts.Lock(ctx, tx, l.Account)
		if fault.Reason(err) == fault.Reason(accounts.ErrNotFound) {
			return nil, ErrInvalid // the link was deleted with the account
		}
		return account, err
	}
	if l.Kind != Register {
		return nil, ErrInvalid // it has not been sent yet
	}
	return LockAddress(ctx, tx, l.Email)
}

// LockAddress locks the account of an email, and returns it; nil if there is none. It
// locks the email as well, so that nobody else creates an account of it meanwhile.
func LockAddress(ctx context.Context, tx pgx.Tx, email string) (*authv1.Account, error) {
	if _, err := tx.Exec(ctx, lockEmail, pgx.NamedArgs{"email": email}); err != nil {
		return nil, fmt.Errorf("lock the email: %w", err)
	}
	return accounts.LockByEmail(ctx, tx, email)
}

const endUsed = "used"

const (
	useLink       = `UPDATE auth.links SET end_time = clock_timestamp(), end_reason = 'used' WHERE token_hash = @token_hash`
	supersedeOpen = `
		UPDATE auth.links SET end_time = clock_timestamp(), end_reason = 'superseded'
		WHERE end_time IS NULL AND (account_id = @account_id OR (account_id IS NULL AND lower(email COLLATE "C") = lower(@email COLLATE "C")))`
	// SupersedeKind ends an account's open links of one kind.
	SupersedeKind = `
		UPDATE auth.links SET end_time = clock_timestamp(), end_reason = 'superseded'
		WHERE end_time IS NULL AND account_id = @account_id AND kind = @kind`
)

// Redeem ends a link that was used, and the account's others with it.
func Redeem(ctx context.Context, tx pgx.Tx, l Link, account *authv1.Account) error {
	if _, err := tx.Exec(ctx, useLink, pgx.NamedArgs{"token_hash": l.hash[:]}); err != nil {
		return fmt.Errorf("end the link: %w", err)
	}
	return Supersede(ctx, tx, account)
}

// Supersede ends an account's open links, including those that were requested with
// its email and not sent yet. The account is as it was before the change, and is
// locked.
func Supersede(ctx context.Context, tx pgx.Tx, account *authv1.Account) error {
	_, err := tx.Exec(ctx, supersedeOpen, pgx.NamedArgs{"account_id": account.GetId(), "email": account.GetEmail()})
	if err != nil {
		return fmt.Errorf("end the open links: %w", err)
	}
	return nil
}
