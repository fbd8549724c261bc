// Package idempotency makes a repeated call with the same Idempotency-Key return
// the result of the first.
//
// The transaction that does the work records the key with the account that it
// made; for a day, a repeated call finds it and composes its answer again. Secrets
// are not stored: who signs in by a repeated call has to give the account's
// password, and is throttled like a login.
//
// A key is scoped to one caller and one method: to the signed-in account,
// otherwise to the address. Only MACs of the key and of the request are stored.
package idempotency

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// Life is how long a key is remembered.
const Life = 24 * time.Hour

var (
	errKeyReused  = fault.Invalid("IDEMPOTENCY_KEY_REUSED", "Idempotency-Key", "was sent with another request before: repeat that one, or send a new key")
	errInProgress = fault.WithRetry(fault.New(connect.CodeAborted, "REQUEST_IN_PROGRESS",
		"A call with this Idempotency-Key is at work. Repeat it in a moment for its answer."), time.Second)
	// ErrTargetGone says that the account of the first call was deleted.
	ErrTargetGone = fault.New(connect.CodeFailedPrecondition, "IDEMPOTENCY_TARGET_GONE",
		"The account that the first call with this Idempotency-Key made is deleted. Send a new key to make another.")
)

// Keys recognises keys.
type Keys struct {
	db   *database.Pool
	macs [][]byte // newest first
}

// New derives the MAC keys from the secret keys, newest first.
func New(db *database.Pool, secrets [][]byte) (*Keys, error) {
	macs, err := secretkey.DeriveEach(secrets, "idempotency key v1")
	if err != nil {
		return nil, err
	}
	return &Keys{db: db, macs: macs}, nil
}

// Call is a call with a key; nil is one without.
type Call struct {
	db   *database.Pool
	lock int64 // the same in every replica, whichever secret keys it has
	// Under each MAC key: of caller, method and key, and of the request.
	names, payloads [][]byte
}

// Call returns the call of a key; nil for none. secrets are parts of the request
// that its hash leaves out although they distinguish requests.
func (k *Keys) Call(key *authv1.IdempotencyKey, origin *authv1.Origin, secrets ...string) *Call {
	if key == nil {
		return nil
	}
	caller := "account " + origin.GetAccountId()
	if origin.GetAccountId() == "" {
		caller = "anon " + throttle.Network(origin.GetIpAddress())
	}
	name := listed(caller, key.GetProcedure(), key.GetKey())
	payload := listed(append([]string{string(key.GetRequestHash())}, secrets...)...)
	sum := sha256.Sum256(name)
	call := &Call{db: k.db, lock: int64(binary.BigEndian.Uint64(sum[:]))}
	for _, mac := range k.macs {
		call.names = append(call.names, secretkey.MAC(mac, append([]byte("name:"), name...)))
		call.payloads = append(call.payloads, secretkey.MAC(mac, append([]byte("payload:"), payload...)))
	}
	return call
}

// listed encodes texts so that no two lists have the same encoding.
func listed(texts ...string) []byte {
	var all []byte
	for _, text := range texts {
		all = binary.BigEndian.AppendUint32(all, uint32(len(text)))
		all = append(all, text...)
	}
	return all
}

// madeBefore ends a call whose work is done already.
type madeBefore struct {
	account string // that it made; "" when it made none
}

func (madeBefore) Error() string { return "the call was made before" }

// Once does a call's work, or, if that was done before with the same key, answers
// again for the account that it made. refuse audits a refusal and returns it.
// Errors, in addition to those of both: invalid_argument IDEMPOTENCY_KEY_REUSED,
// aborted REQUEST_IN_PROGRESS.
func Once[Response any](ctx context.Context, call *Call, refuse func(error) error,
	work func() (Response, error), again func(account string) (Response, error),
) (Response, error) {
	// Checked before the work, which may hash a password; Claim checks again.
	err := call.unmade(ctx)
	if err == nil {
		var response Response
		if response, err = work(); err == nil {
			return response, nil
		}
	} else {
		err = refuse(err)
	}
	before, ok := errors.AsType[madeBefore](err)
	if !ok {
		var none Response
		return none, err
	}
	return again(before.account)
}

const selectMade = `
	SELECT name, payload, coalesce(account_id::text, '') FROM auth.idempotency_keys
	WHERE name = ANY (@names) AND create_time > clock_timestamp() - @life::interval
	ORDER BY create_time DESC LIMIT 1`

// unmade returns madeBefore for a call whose work is done. Errors:
// invalid_argument IDEMPOTENCY_KEY_REUSED.
func (c *Call) unmade(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return c.lookUp(ctx, c.db)
}

func (c *Call) lookUp(ctx context.Context, db database.Querier) error {
	var name, payload []byte
	var before madeBefore
	err := db.QueryRow(ctx, selectMade, pgx.NamedArgs{"names": c.names, "life": Life}).Scan(&name, &payload, &before.account)
	if database.Missing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up the idempotency key: %w", err)
	}
	for i := range c.names {
		if hmac.Equal(name, c.names[i]) && hmac.Equal(payload, c.payloads[i]) {
			return before
		}
	}
	return errKeyReused
}

const tryIdempotencyLock = `SELECT pg_try_advisory_xact_lock(@lock)`

// Claim keeps calls with the same key from doing the work while the transaction
// lasts. Errors: madeBefore, aborted REQUEST_IN_PROGRESS, invalid_argument
// IDEMPOTENCY_KEY_REUSED.
func (c *Call) Claim(ctx context.Context, tx pgx.Tx) error {
	if c == nil {
		return nil
	}
	var ours bool
	if err := tx.QueryRow(ctx, tryIdempotencyLock, pgx.NamedArgs{"lock": c.lock}).Scan(&ours); err != nil {
		return fmt.Errorf("lock the idempotency key: %w", err)
	}
	if !ours {
		return errInProgress
	}
	return c.lookUp(ctx, tx)
}

// An existing row has expired.
const insertMade = `
	INSERT INTO auth.idempotency_keys (name, payload, account_id, create_time)
	VALUES (@name, @payload, @account_id, clock_timestamp())
	ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
	SET payload = excluded.payload, account_id = excluded.account_id, create_time = excluded.create_time`

// Made records that the work is done, and the account that it made; "" for none.
func (c *Call) Made(ctx context.Context, tx pgx.Tx, account string) error {
	if c == nil {
		return nil
	}
	_, err := tx.Exec(ctx, insertMade, pgx.NamedArgs{"name": c.names[0], "payload": c.payloads[0], "account_id": database.Optional(account)})
	if err != nil {
		return fmt.Errorf("record the idempotency key: %w", err)
	}
	return nil
}
