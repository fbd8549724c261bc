package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/outbox"
	"gatehouse/auth/throttle"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/opaque"
)

// A link is sent by mail, works once and for a short time, and shows that its
// holder reads the mail of an address. Its token is "ghl_" and base64url of 32
// random bytes, of which only the hash is kept.
//
// An account's row is locked before those of its links. What ends a link stands
// or falls with what it was for; a change of email or password ends the
// account's other open links.
const (
	linkPrefix = "ghl_"
	linkSecret = 32
	linkLife   = 30 * time.Minute
	// linkRetention is how long a link is kept after its end, so that its holder
	// gets the reason why it no longer works.
	linkRetention = 24 * time.Hour
)

// links sends mail with links, and limits how much.
type links struct {
	log      *audit.Log
	throttle *throttle.Throttle
	mails    *outbox.Outbox
}

// linkKind is what a link is for.
type linkKind string

const (
	linkRegister    linkKind = "register" // of an account that may not be there yet
	linkVerify      linkKind = "verify"
	linkInvite      linkKind = "invite"
	linkReset       linkKind = "reset"
	linkEmailChange linkKind = "email_change"
)

var (
	errLinkInvalid    = fault.New(connect.CodeInvalidArgument, "LINK_INVALID", "This link is not complete, or not one of ours. Open it as it stands in the mail, or ask for another.")
	errLinkUsed       = fault.New(connect.CodeFailedPrecondition, "LINK_USED", "This link was used already, and works once. Ask for another if you need it.")
	errLinkExpired    = fault.New(connect.CodeFailedPrecondition, "LINK_EXPIRED", "This link is too old. Ask for another, and use it within 30 minutes.")
	errLinkSuperseded = fault.New(connect.CodeFailedPrecondition, "LINK_SUPERSEDED", "The account has changed since this link was sent. Ask for another if you need it.")
)

// link is one row of auth.links.
type link struct {
	hash    tokens.Hash
	kind    linkKind
	email   string
	account string // "" while it isn't known whose it is
	profile []byte // what is kept of the registration, once the link is written
}

const insertLink = `
	INSERT INTO auth.links (token_hash, kind, email, account_id, profile, expire_time)
	VALUES (@token_hash, @kind, @email, @account_id, @profile, now() + @life::interval)`

func newLinkToken() string {
	secret := make([]byte, linkSecret)
	_, _ = rand.Read(secret) // never fails: it would end the process
	return opaque.Encode(linkPrefix, secret)
}

// issueLink writes a link and returns its token.
func issueLink(ctx context.Context, tx pgx.Tx, l link) (string, error) {
	token := newLinkToken()
	return token, writeLink(ctx, tx, l, token)
}

func writeLink(ctx context.Context, tx pgx.Tx, l link, token string) error {
	hash := tokens.HashOf(token)
	_, err := tx.Exec(ctx, insertLink, pgx.NamedArgs{
		"token_hash": hash[:], "kind": string(l.kind), "email": l.email, "account_id": database.Optional(l.account),
		"profile": l.profile, "life": linkLife,
	})
	if err != nil {
		return fmt.Errorf("write the link: %w", err)
	}
	return nil
}

const (
	// By the clock, not by the transaction's beginning: it may have waited.
	selectLink = `
		SELECT kind, email, account_id::text, profile, coalesce(end_reason, ''), expire_time <= clock_timestamp()
		FROM auth.links WHERE token_hash = @token_hash`
	selectLinkLock = selectLink + ` FOR UPDATE`
)

// readLink returns the token's link if it is open and of one of the kinds.
// Errors: invalid_argument LINK_INVALID, failed_precondition LINK_USED,
// LINK_EXPIRED or LINK_SUPERSEDED. With the last three comes the link.
func readLink(ctx context.Context, db database.Querier, query, token string, kinds ...linkKind) (link, error) {
	if !isLinkToken(token) {
		return link{}, errLinkInvalid
	}
	found := link{hash: tokens.HashOf(token)}
	var account *string
	var ended string
	var expired bool
	err := db.QueryRow(ctx, query, pgx.NamedArgs{"token_hash": found.hash[:]}).
		Scan(&found.kind, &found.email, &account, &found.profile, &ended, &expired)
	if database.Missing(err) {
		return link{}, errLinkInvalid
	}
	if err != nil {
		return link{}, fmt.Errorf("look up the link: %w", err)
	}
	if account != nil {
		found.account = *account
	}
	switch {
	case !slices.Contains(kinds, found.kind):
		return link{}, errLinkInvalid
	case ended == endUsed:
		return found, errLinkUsed
	case ended != "":
		return found, errLinkSuperseded
	case expired:
		return found, errLinkExpired
	}
	return found, nil
}

// isLinkToken reports whether the text has a link token's form, and so may be
// looked up.
func isLinkToken(text string) bool {
	secret, ok := opaque.Decode(linkPrefix, text)
	return ok && len(secret) == linkSecret
}

// errMeanwhile has a transaction tried again: what it had found is no more so.
var errMeanwhile = errors.New("the link's account has changed meanwhile")

// lockLink locks the account that a link is about, then the link, and returns
// both; the account is nil when it is still to be made. Errors: as readLink,
// and LINK_SUPERSEDED for a link that was sent to an address that the account
// no longer has; permission_denied ACCOUNT_DISABLED, which leaves the link as
// it is.
func lockLink(ctx context.Context, tx pgx.Tx, token string, kinds ...linkKind) (link, *authv1.Account, error) {
	seen, err := readLink(ctx, tx, selectLink, token, kinds...)
	if err != nil {
		return seen, nil, err
	}
	account, err := lockOwner(ctx, tx, seen)
	if err != nil {
		return seen, nil, err
	}
	locked, err := readLink(ctx, tx, selectLinkLock, token, kinds...)
	switch {
	case err != nil:
		return locked, nil, err
	case locked.account != seen.account && locked.account != account.GetId():
		return locked, nil, errMeanwhile
	case account == nil:
		return locked, nil, nil
	case locked.kind != linkEmailChange && foldEmail(account.GetEmail()) != foldEmail(locked.email):
		return locked, nil, errLinkSuperseded
	case account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE:
		return locked, nil, errDisabled
	}
	return locked, account, nil
}

const (
	// Held to the end of the transaction, in place of the account that isn't
	// there yet: two registrations of one email would else each hold the link
	// that the other is to end.
	lockEmail = `SELECT pg_advisory_xact_lock(hashtextextended('gatehouse email ' || lower(@email COLLATE "C"), 0))`
)

// lockOwner locks the account that a link is about; nil when a registration has
// yet to make it.
func lockOwner(ctx context.Context, tx pgx.Tx, l link) (*authv1.Account, error) {
	if l.account != "" {
		account, err := lockedAccount(ctx, tx, l.account)
		if fault.Reason(err) == fault.Reason(errUserNotFound) {
			return nil, errLinkInvalid // the link is gone with it
		}
		return account, err
	}
	if l.kind != linkRegister {
		return nil, errLinkInvalid // nobody was sent it yet
	}
	if _, err := tx.Exec(ctx, lockEmail, pgx.NamedArgs{"email": l.email}); err != nil {
		return nil, fmt.Errorf("lock the email: %w", err)
	}
	return lockedAccountByEmail(ctx, tx, l.email)
}

const endUsed = "used"

const (
	useLink       = `UPDATE auth.links SET end_time = clock_timestamp(), end_reason = 'used' WHERE token_hash = @token_hash`
	supersedeOpen = `
		UPDATE auth.links SET end_time = clock_timestamp(), end_reason = 'superseded'
		WHERE end_time IS NULL AND (account_id = @account_id OR (account_id IS NULL AND lower(email COLLATE "C") = lower(@email COLLATE "C")))`
	supersedeKind = `
		UPDATE auth.links SET end_time = clock_timestamp(), end_reason = 'superseded'
		WHERE end_time IS NULL AND account_id = @account_id AND kind = @kind`
)

// redeem ends a link that was used, and the account's others with it.
func redeem(ctx context.Context, tx pgx.Tx, l link, account *authv1.Account) error {
	if _, err := tx.Exec(ctx, useLink, pgx.NamedArgs{"token_hash": l.hash[:]}); err != nil {
		return fmt.Errorf("end the link: %w", err)
	}
	return supersedeLinks(ctx, tx, account)
}

// supersedeLinks ends an account's open links, those that were asked for with
// its email and have yet to be sent among them: the account is as it was before
// the change, with its lock held.
func supersedeLinks(ctx context.Context, tx pgx.Tx, account *authv1.Account) error {
	_, err := tx.Exec(ctx, supersedeOpen, pgx.NamedArgs{"account_id": account.GetId(), "email": account.GetEmail()})
	if err != nil {
		return fmt.Errorf("end the open links: %w", err)
	}
	return nil
}
