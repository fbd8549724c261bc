// Package challenge owns challenges: what is still owed before a session begins or
// changes its level, and what an enrolment waits for.
//
// A challenge's token is "ghc_" and base64url of 32 random bytes; only its hash is
// stored. It is valid for 10 minutes and five answers, and each statement names its
// purpose, so that a challenge of one purpose is none of another. Lock the account's
// row first, then its challenges.
package challenge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
	"gatehouse/auth/tokens"
	"gatehouse/internal/database"
	"gatehouse/internal/opaque"
)

const (
	prefix = "ghc_"
	secret = 32
	// Life is how long a challenge works.
	Life = 10 * time.Minute
	// maxTries is how many answers are checked.
	maxTries = 5
	// RepeatLife is how long a repeated answer gets the same result.
	RepeatLife = 2 * time.Minute
	// Retention is how long a challenge is kept after its end, so that its holder
	// gets the reason why it no longer works.
	Retention = time.Hour
	sealing   = "challenge v1"
)

// Purpose is what a challenge is for.
type Purpose string

const (
	SignIn Purpose = "sign_in" // a session begins
	StepUp Purpose = "step_up" // a session gets to level 2, or signs in recently
	// EmailCode waits for a mailed code, with which a session begins.
	EmailCode Purpose = "email_code"
	// EnrolTOTP waits for a code of an authenticator app that is being enrolled.
	EnrolTOTP Purpose = "enrol_totp"
	// Federation waits for the answer of another provider.
	Federation Purpose = "federation"
)

// Challenge is a row of auth.challenges.
type Challenge struct {
	hash    tokens.Hash
	Purpose Purpose
	// Account is empty while nobody is identified, Session unless one is to change,
	// Device unless the account's device token was sent with the first proof.
	Account, Session, Device string
	// AMR are the methods of the proofs that were given.
	AMR []string
	// Identity is the id of the other provider's identity that was the first proof; ""
	// for another proof.
	Identity string
	// Pending is an identity to link once all proofs are given; nil for none.
	Pending []byte
	// CreateTime is on Postgres' clock.
	CreateTime time.Time
	// Left is how long the challenge still worked when it was read.
	Left time.Duration
	// FirstProof is when the first proof was given. Leave it zero to write a challenge
	// that is made at that moment.
	FirstProof  time.Time
	sealedState []byte
	made        Made
}

// Made is the session that an answer made or changed, and its generation then.
type Made struct {
	Session    string
	Generation int32
	// Further says that the challenge goes on: another proof is owed.
	Further bool
	// Again says that the same answer was given before.
	Again bool
}

// Store seals the states of challenges.
type Store struct {
	// Secrets are the secret keys, newest first.
	Secrets [][]byte
}

// NewToken returns a random token.
func NewToken() string {
	raw := make([]byte, secret)
	_, _ = rand.Read(raw) // never fails
	return opaque.Encode(prefix, raw)
}

const insertChallenge = `
	INSERT INTO auth.challenges (token_hash, purpose, account_id, session_id, device_id, amr, sealed_state, identity_id, pending_identity, first_proof_time, create_time, expire_time)
	SELECT @challenge, @purpose, @account_id, @session_id, @device_id, @amr, @sealed_state, @identity_id, @pending_identity, @first_proof_time, clock_timestamp(), clock_timestamp() + @challenge_life::interval
	WHERE `

// Exists is the condition that a statement of Queue with the token has written its
// row, with the arguments of Args.
const Exists = `EXISTS (SELECT FROM auth.challenges WHERE token_hash = @challenge)`

// Args are the arguments of Exists.
func Args(token string) pgx.NamedArgs {
	hash := tokens.HashOf(token)
	return pgx.NamedArgs{"challenge": hash[:]}
}

// Queue adds the statement that writes a challenge to a batch. It writes it only if the
// condition holds, in SQL with the arguments args.
func Queue(batch *pgx.Batch, c Challenge, token, condition string, args pgx.NamedArgs) {
	all := c.args(token, nil)
	for name, value := range args {
		if _, ours := all[name]; !ours {
			all[name] = value
		}
	}
	batch.Queue(insertChallenge+condition, all)
}

// Issue writes a challenge with a state, and returns its token.
func (s *Store) Issue(ctx context.Context, db database.Execer, c Challenge, state []byte) (string, error) {
	token := NewToken()
	return token, s.Write(ctx, db, c, token, state)
}

// Write writes a challenge with the token and a state.
func (s *Store) Write(ctx context.Context, db database.Execer, c Challenge, token string, state []byte) error {
	sealed, err := s.seal(tokens.HashOf(token), state)
	if err != nil {
		return err
	}
	if _, err := db.Exec(ctx, insertChallenge+"true", c.args(token, sealed)); err != nil {
		return fmt.Errorf("write the challenge: %w", err)
	}
	return nil
}

func (c Challenge) args(token string, sealed []byte) pgx.NamedArgs {
	all := Args(token)
	amr := c.AMR
	if amr == nil {
		amr = []string{}
	}
	all["purpose"], all["amr"], all["sealed_state"], all["challenge_life"] = string(c.Purpose), amr, sealed, Life
	all["account_id"], all["session_id"], all["device_id"] = database.Optional(c.Account), database.Optional(c.Session), database.Optional(c.Device)
	all["identity_id"], all["pending_identity"] = database.Optional(c.Identity), json.RawMessage(c.Pending)
	if all["first_proof_time"] = any(nil); !c.FirstProof.IsZero() {
		all["first_proof_time"] = c.FirstProof
	}
	return all
}

const updateState = `UPDATE auth.challenges SET sealed_state = @sealed_state WHERE token_hash = @challenge AND purpose = @purpose`

// SetState replaces the state of the token's challenge.
func (s *Store) SetState(ctx context.Context, db database.Execer, purpose Purpose, token string, state []byte) error {
	sealed, err := s.seal(tokens.HashOf(token), state)
	if err != nil {
		return err
	}
	args := Args(token)
	args["purpose"], args["sealed_state"] = string(purpose), sealed
	if _, err := db.Exec(ctx, updateState, args); err != nil {
		return fmt.Errorf("write the challenge's state: %w", err)
	}
	return nil
}

func (s *Store) seal(hash tokens.Hash, state []byte) ([]byte, error) {
	if state == nil {
		return nil, nil
	}
	sealed, err := secretkey.Seal(s.Secrets[0], sealing, hex.EncodeToString(hash[:]), state)
	if err != nil {
		return nil, fmt.Errorf("seal the challenge's state: %w", err)
	}
	return sealed, nil
}

// State returns what Issue or SetState stored; nil for nothing.
func (s *Store) State(c Challenge) ([]byte, error) {
	if c.sealedState == nil {
		return nil, nil
	}
	state, err := secretkey.Open(s.Secrets, sealing, hex.EncodeToString(c.hash[:]), c.sealedState)
	if err != nil {
		return nil, fmt.Errorf("open the challenge's state: %w", err)
	}
	return state, nil
}

const (
	// By the clock, not by the transaction's beginning: it may have waited.
	selectChallenge = `
		SELECT coalesce(account_id::text, ''), coalesce(session_id::text, ''), coalesce(device_id::text, ''), amr, coalesce(identity_id::text, ''), pending_identity, sealed_state, tries, create_time, coalesce(first_proof_time, create_time),
			extract(epoch FROM expire_time - clock_timestamp())::float8, coalesce(end_reason, ''), expire_time <= clock_timestamp(),
			coalesce(end_time > clock_timestamp() - @repeat::interval, false), idempotency_key_hash,
			coalesce(made_session_id::text, ''), coalesce(made_generation, 0)
		FROM auth.challenges WHERE token_hash = @challenge AND purpose = @purpose`
	lockChallenge = selectChallenge + ` FOR UPDATE`
)

// Answer identifies an answer: the hash of its Idempotency-Key and its request; nil
// without a key.
type Answer []byte

// Read returns the token's challenge if it can be answered, or repeats the answer: then
// Repeated reports true. Errors: invalid_argument CHALLENGE_INVALID, failed_precondition
// CHALLENGE_USED, CHALLENGE_SUPERSEDED, CHALLENGE_EXHAUSTED or CHALLENGE_EXPIRED; with
// the last four comes the challenge.
func Read(ctx context.Context, db database.Querier, purpose Purpose, token string, answer Answer) (Challenge, error) {
	return read(ctx, db, selectChallenge, purpose, token, answer)
}

// Lock is Read, and locks the row.
func Lock(ctx context.Context, tx pgx.Tx, purpose Purpose, token string, answer Answer) (Challenge, error) {
	return read(ctx, tx, lockChallenge, purpose, token, answer)
}

func read(ctx context.Context, db database.Querier, statement string, purpose Purpose, token string, answer Answer) (Challenge, error) {
	raw, ok := opaque.Decode(prefix, token)
	if !ok || len(raw) != secret {
		return Challenge{}, ErrInvalid
	}
	found := Challenge{hash: tokens.HashOf(token), Purpose: purpose}
	var tries int
	var left float64
	var ended string
	var expired, repeatable bool
	var answered []byte
	var made Made
	args := Args(token)
	args["purpose"], args["repeat"] = string(purpose), RepeatLife
	err := db.QueryRow(ctx, statement, args).Scan(&found.Account, &found.Session, &found.Device, &found.AMR, &found.Identity, &found.Pending, &found.sealedState, &tries,
		&found.CreateTime, &found.FirstProof, &left, &ended, &expired, &repeatable, &answered, &made.Session, &made.Generation)
	found.Left = database.Seconds(left)
	switch {
	case database.Missing(err):
		return Challenge{}, ErrInvalid
	case err != nil:
		return Challenge{}, fmt.Errorf("look up the challenge: %w", err)
	case ended == endUsed && repeatable && answer != nil && bytes.Equal(answer, answered):
		made.Again = true
		found.made = made
		return found, nil
	case ended == endUsed:
		return found, errUsed
	case ended == endExhausted:
		return found, errExhausted
	case ended != "":
		return found, errSuperseded
	case expired:
		return found, ErrExpired
	case tries >= maxTries:
		return found, errExhausted
	}
	return found, nil
}

// Repeated reports whether the same answer was given before, and returns the session
// that it made, which has to be at that generation still. It made none if a further
// proof is owed: then the state is the token of the challenge for that.
func (c Challenge) Repeated() (Made, bool) { return c.made, c.made.Again }

// Hash returns the hash of the challenge's token.
func (c Challenge) Hash() tokens.Hash { return c.hash }

// Used is the refusal of a challenge that was answered.
func Used() error { return errUsed }

// Superseded is the refusal of a challenge whose earlier proof counts no longer.
func Superseded() error { return errSuperseded }

const (
	endUsed      = "used"
	endExhausted = "exhausted"
	countTry     = `
		UPDATE auth.challenges SET tries = tries + 1,
			end_time = CASE WHEN tries + 1 >= @most THEN clock_timestamp() END,
			end_reason = CASE WHEN tries + 1 >= @most THEN 'exhausted' END
		WHERE token_hash = @challenge AND purpose = @purpose AND end_time IS NULL`
	spend = `
		UPDATE auth.challenges SET end_time = clock_timestamp(), end_reason = 'used',
			idempotency_key_hash = @answer, made_session_id = @made, made_generation = @generation
		WHERE token_hash = @challenge AND purpose = @purpose AND end_time IS NULL`
	supersede = `
		UPDATE auth.challenges SET end_time = clock_timestamp(), end_reason = 'superseded'
		WHERE account_id = @account_id AND end_time IS NULL`
)

// CountWrong counts a wrong answer of a locked challenge. The last one ends it.
func (c Challenge) CountWrong(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, countTry, pgx.NamedArgs{"challenge": c.hash[:], "purpose": string(c.Purpose), "most": maxTries})
	if err != nil {
		return fmt.Errorf("count a wrong answer: %w", err)
	}
	return nil
}

// Spend ends a locked challenge by an answer that made or changed a session.
func (c Challenge) Spend(ctx context.Context, tx pgx.Tx, answer Answer, made Made) error {
	tag, err := tx.Exec(ctx, spend, pgx.NamedArgs{
		"challenge": c.hash[:], "purpose": string(c.Purpose), "answer": []byte(answer), "made": database.Optional(made.Session), "generation": made.Generation,
	})
	if err != nil {
		return fmt.Errorf("end the challenge: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errUsed
	}
	return nil
}

// Supersede ends an account's open challenges: a proof that they rest on counts no
// longer. The account is locked.
func Supersede(ctx context.Context, tx pgx.Tx, account string) error {
	if _, err := tx.Exec(ctx, supersede, pgx.NamedArgs{"account_id": account}); err != nil {
		return fmt.Errorf("end the open challenges: %w", err)
	}
	return nil
}
