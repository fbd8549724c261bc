package passkeys

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/webauthn"
)

// Methods of sessions that rest on a passkey (RFC 8176).
var Methods = []string{"pop", "user", hardware, software}

const (
	hardware = "hwk"
	software = "swk"
)

// methodsOf are the methods of a passkey besides those of every passkey: one that can be
// backed up is a key in software.
func methodsOf(backupEligible bool) []string {
	if backupEligible {
		return []string{software}
	}
	return []string{hardware}
}

// Begin writes a challenge for a passkey of any account.
func (s *Store) Begin(ctx context.Context) (*authv1.Challenge, error) {
	if !s.On() {
		return nil, ErrOff
	}
	begun, err := s.Party.BeginSignIn()
	if err != nil {
		return nil, err
	}
	options, err := toStruct(begun.Options)
	if err != nil {
		return nil, err
	}
	token, err := s.Challenges.Issue(ctx, s.DB, challenge.Challenge{Purpose: challenge.SignIn}, begun.State)
	if err != nil {
		return nil, err
	}
	return &authv1.Challenge{
		Token: token, Methods: []string{string(admission.Passkey)}, ExpiresIn: int32(challenge.Life.Seconds()), PasskeyOptions: options,
	}, nil
}

// Options returns the options of a challenge of an account that was just written, and
// stores what the verification needs in the challenge; nil if the account has no passkey
// that it can use.
func (s *Store) Options(ctx context.Context, purpose challenge.Purpose, token, account string) (*structpb.Struct, error) {
	records, err := s.usable(ctx, s.DB, account)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	id, err := uuid.Parse(account)
	if err != nil {
		return nil, fmt.Errorf("read the account's id: %w", err)
	}
	begun, err := s.Party.BeginProof(id, records)
	if err != nil {
		return nil, err
	}
	if err := s.Challenges.SetState(ctx, s.DB, purpose, token, begun.State); err != nil {
		return nil, err
	}
	return toStruct(begun.Options)
}

// Verifier checks proofs by passkeys. A passkey that was copied is blocked.
func (s *Store) Verifier() admission.Verifier {
	return admission.Verifier{Kind: admission.Passkey, Field: "passkey", Identify: s.identify, Verify: s.verify}
}

// parse decodes a proof. Errors: failed_precondition PASSKEYS_OFF, invalid_argument
// PASSKEY_INVALID.
func (s *Store) parse(a admission.Attempt) (webauthn.Assertion, error) {
	if !s.On() {
		return webauthn.Assertion{}, ErrOff
	}
	encoded, err := toJSON(a.Proof.GetPasskey())
	if err != nil {
		return webauthn.Assertion{}, err
	}
	assertion, err := webauthn.ParseAssertion(encoded)
	if err != nil {
		return webauthn.Assertion{}, ErrInvalid.WithCause(err)
	}
	return assertion, nil
}

const selectOwner = `SELECT account_id::text FROM auth.passkeys WHERE credential_id = @credential_id`

// identify returns the account of the passkey that a proof names. Errors: those of
// parse, unauthenticated PASSKEY_UNKNOWN.
func (s *Store) identify(ctx context.Context, db database.Querier, a admission.Attempt) (account string, err error) {
	assertion, err := s.parse(a)
	if err != nil {
		return "", err
	}
	err = db.QueryRow(ctx, selectOwner, pgx.NamedArgs{"credential_id": assertion.CredentialID()}).Scan(&account)
	if database.Missing(err) {
		return "", ErrUnknown
	}
	if err != nil {
		return "", fmt.Errorf("look up the passkey: %w", err)
	}
	return account, nil
}

const (
	// A copy is found by times on Postgres' clock: assertions of two tabs may be verified
	// in the other order, and only one whose challenge is younger than the last use comes
	// after it for certain.
	lockPasskey = `
		SELECT p.id, p.account_id::text, p.record, p.rp_id = @rp_id, p.block_time IS NOT NULL, coalesce(p.last_used_time, p.create_time) < @begun, a.email_verified OR a.vouched, a.email
		FROM auth.passkeys p JOIN auth.accounts a ON a.id = p.account_id WHERE p.credential_id = @credential_id FOR UPDATE OF p`
	usePasskey = `
		UPDATE auth.passkeys
		SET record = @record, sign_count = @sign_count, backup_eligible = @backup_eligible, backed_up = @backed_up, last_used_time = clock_timestamp()
		WHERE id = @id`
	blockPasskey = `UPDATE auth.passkeys SET block_time = clock_timestamp() WHERE id = @id`
)

// stored is the row of a passkey.
type stored struct {
	id, account   string
	email         string // of the account
	record        []byte
	ours, blocked bool
	usedBefore    bool // the challenge is younger than the last use
	verified      bool // the account's email is its owner's
}

// verify verifies a proof of the attempt's account. Errors: those of parse,
// unauthenticated PASSKEY_UNKNOWN or PASSKEY_CLONED, failed_precondition
// EMAIL_UNVERIFIED.
func (s *Store) verify(ctx context.Context, tx pgx.Tx, a admission.Attempt) (admission.Proof, error) {
	assertion, err := s.parse(a)
	if err != nil {
		return admission.Proof{}, err
	}
	found, err := s.lock(ctx, tx, assertion, a)
	if err != nil {
		return admission.Proof{}, err
	}
	state, err := s.Challenges.State(a.Challenge)
	if err != nil {
		return admission.Proof{}, err
	}
	if state == nil {
		return admission.Proof{}, ErrInvalid.WithCause(fmt.Errorf("the challenge offered no passkey"))
	}
	account, err := uuid.Parse(found.account)
	if err != nil {
		return admission.Proof{}, fmt.Errorf("read the account's id: %w", err)
	}
	verified, err := s.Party.Verify(assertion, account, state, found.record)
	if err != nil {
		return admission.Proof{}, ErrInvalid.WithCause(err)
	}
	// After the verification: these refusals tell that the passkey exists.
	switch {
	case s.Mails.Enabled() && !found.verified:
		return admission.Proof{}, accounts.ErrUnverified // somebody else may have registered the address
	case found.blocked:
		return admission.Proof{}, ErrCloned
	case verified.CounterRegressed && found.usedBefore:
		return admission.Proof{}, s.block(ctx, tx, found, a.Origin)
	}
	return admission.Proof{Kind: admission.Passkey, AMR: methodsOf(verified.BackupEligible)}, s.use(ctx, tx, found, verified, a.Origin)
}

func (s *Store) lock(ctx context.Context, tx pgx.Tx, assertion webauthn.Assertion, a admission.Attempt) (found stored, err error) {
	err = tx.QueryRow(ctx, lockPasskey, pgx.NamedArgs{
		"credential_id": assertion.CredentialID(), "rp_id": s.Party.ID(), "begun": a.Challenge.CreateTime,
	}).Scan(&found.id, &found.account, &found.record, &found.ours, &found.blocked, &found.usedBefore, &found.verified, &found.email)
	switch {
	case database.Missing(err):
		return found, ErrUnknown
	case err != nil:
		return found, fmt.Errorf("look up the passkey: %w", err)
	case found.account != a.Account:
		return found, ErrInvalid.WithCause(fmt.Errorf("the passkey %s is another account's", found.id))
	case !found.ours:
		return found, ErrInvalid.WithCause(fmt.Errorf("the passkey %s is for another RP ID", found.id))
	}
	return found, nil
}

// use stores the use of a passkey.
func (s *Store) use(ctx context.Context, tx pgx.Tx, found stored, verified webauthn.Verified, origin *authv1.Origin) error {
	_, err := tx.Exec(ctx, usePasskey, pgx.NamedArgs{
		"id": found.id, "record": json.RawMessage(verified.Record), "sign_count": verified.SignCount,
		"backup_eligible": verified.BackupEligible, "backed_up": verified.BackedUp,
	})
	if err != nil {
		return fmt.Errorf("store the use of the passkey: %w", err)
	}
	if !verified.BackupEligibilityChanged {
		return nil
	}
	return audit.Write(ctx, tx, audit.Row{Event: audit.PasskeyBackupChange, Outcome: audit.Succeeded, Account: found.account, Origin: origin})
}

// block blocks a passkey that was copied, and tells its owner. It returns the refusal,
// whose transaction is committed.
func (s *Store) block(ctx context.Context, tx pgx.Tx, found stored, origin *authv1.Origin) error {
	if _, err := tx.Exec(ctx, blockPasskey, pgx.NamedArgs{"id": found.id}); err != nil {
		return fmt.Errorf("block the passkey: %w", err)
	}
	if err := noteSignIn(ctx, tx, found.account); err != nil {
		return err
	}
	err := s.Mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: outbox.PasskeyBlocked, To: found.email, Account: found.account, Locale: origin.GetLocale(), Values: outbox.Circumstances(origin),
	})
	if err != nil {
		return err
	}
	row := audit.Row{Event: audit.PasskeyBlock, Outcome: audit.Succeeded, Account: found.account, Origin: origin}
	if err := audit.Write(ctx, tx, row); err != nil {
		return err
	}
	return ErrCloned
}
