// Package once makes a repeated call with the same Idempotency-Key return the result of
// the first.
//
// The transaction that does the work records the key with the id of the thing that it made; for a
// day, a repeated call finds it, and its service composes the answer again. A key is
// scoped to one caller and one method. Only digests of the key and of the request are
// stored, in a table of the service's schema with the columns name bytea, the primary
// key, payload bytea, create_time timestamptz, and the id of the thing that was made.
package once

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

	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// Life is how long a key is remembered.
const Life = 24 * time.Hour

var (
	errKeyReused  = fault.Invalid("IDEMPOTENCY_KEY_REUSED", "Idempotency-Key", "was sent with another request before: repeat that one, or send a new key")
	errInProgress = fault.WithRetry(fault.New(connect.CodeAborted, "REQUEST_IN_PROGRESS",
		"A call with this Idempotency-Key is at work. Repeat it in a moment for its answer."), time.Second)
)

// Config says where keys are recorded.
type Config struct {
	DB *database.Pool
	// Table is the table of keys, such as "orders.idempotency_keys".
	Table string
	// Result is its column for the id of the thing that was made, of type uuid, such as "order_id".
	Result string
	// MACKeys turn the digests into message authentication codes (HMAC-SHA-256), the
	// newest first, for a service whose requests hold secrets. Without one, digests are
	// SHA-256.
	MACKeys [][]byte
}

// Keys recognises keys.
type Keys struct {
	db      *database.Pool
	macKeys [][]byte // one nil key for plain digests

	selectMade, insertMade, prune string
}

// New returns the keys of a table.
func New(config Config) *Keys {
	table, result := config.Table, pgx.Identifier{config.Result}.Sanitize()
	keys := &Keys{db: config.DB, macKeys: config.MACKeys}
	if len(keys.macKeys) == 0 {
		keys.macKeys = [][]byte{nil}
	}
	keys.selectMade = `
		SELECT name, payload, coalesce(` + result + `::text, '') FROM ` + table + `
		WHERE name = ANY (@names) AND create_time > clock_timestamp() - @life::interval
		ORDER BY create_time DESC LIMIT 1`
	// An existing row has expired.
	keys.insertMade = `
		INSERT INTO ` + table + ` (name, payload, ` + result + `, create_time)
		VALUES (@name, @payload, @result, clock_timestamp())
		ON CONFLICT (name) DO UPDATE
		SET payload = excluded.payload, ` + result + ` = excluded.` + result + `, create_time = excluded.create_time`
	keys.prune = `
		DELETE FROM ` + table + ` WHERE name IN (
			SELECT name FROM ` + table + ` WHERE create_time < clock_timestamp() - @life::interval ORDER BY create_time LIMIT @most)`
	return keys
}

// Prune deletes at most so many keys that have expired, and returns how many it deleted.
func (k *Keys) Prune(ctx context.Context, most int) (int, error) {
	tag, err := k.db.Exec(ctx, k.prune, pgx.NamedArgs{"life": Life, "most": most})
	if err != nil {
		return 0, fmt.Errorf("prune the idempotency keys: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// Request is a call with a key.
type Request struct {
	// Caller is who calls, Procedure the public method, Key the value of the header.
	Caller, Procedure, Key string
	// Hash is a hash of the request.
	Hash []byte
	// Secrets are parts of the request that its hash leaves out although they
	// distinguish requests.
	Secrets []string
}

// Call is a call with a key; nil is one without.
type Call struct {
	keys *Keys
	lock int64 // the same in every copy, whichever MAC keys it has
	// Under each MAC key: of caller, method and key, and of the request.
	names, payloads [][]byte
}

// Call returns the call of a request.
func (k *Keys) Call(request Request) *Call {
	name := listed(request.Caller, request.Procedure, request.Key)
	payload := listed(append([]string{string(request.Hash)}, request.Secrets...)...)
	sum := sha256.Sum256(name)
	call := &Call{keys: k, lock: int64(binary.BigEndian.Uint64(sum[:]))}
	for _, key := range k.macKeys {
		call.names = append(call.names, digest(key, append([]byte("name:"), name...)))
		call.payloads = append(call.payloads, digest(key, append([]byte("payload:"), payload...)))
	}
	return call
}

func digest(macKey, data []byte) []byte {
	if macKey == nil {
		sum := sha256.Sum256(data)
		return sum[:]
	}
	mac := hmac.New(sha256.New, macKey)
	mac.Write(data)
	return mac.Sum(nil)
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
	result string // the id of the thing that it made; "" when it made nothing
}

func (madeBefore) Error() string { return "the call was made before" }

// Do does a call's work, or, if that was done before with the same key, answers again
// for what it made. refuse records a refusal and returns it; nil returns it alone.
// Errors, in addition to those of all three: invalid_argument IDEMPOTENCY_KEY_REUSED,
// aborted REQUEST_IN_PROGRESS.
func Do[Response any](ctx context.Context, call *Call, refuse func(error) error,
	work func() (Response, error), again func(result string) (Response, error),
) (Response, error) {
	// Checked before the work, which may be expensive; Claim checks again.
	err := call.unmade(ctx)
	if err == nil {
		var response Response
		if response, err = work(); err == nil {
			return response, nil
		}
	} else if refuse != nil {
		err = refuse(err)
	}
	before, ok := errors.AsType[madeBefore](err)
	if !ok {
		var none Response
		return none, err
	}
	return again(before.result)
}

// unmade returns madeBefore for a call whose work is done. Errors:
// invalid_argument IDEMPOTENCY_KEY_REUSED.
func (c *Call) unmade(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return c.lookUp(ctx, c.keys.db)
}

func (c *Call) lookUp(ctx context.Context, db database.Querier) error {
	var name, payload []byte
	var before madeBefore
	err := db.QueryRow(ctx, c.keys.selectMade, pgx.NamedArgs{"names": c.names, "life": Life}).Scan(&name, &payload, &before.result)
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

const tryLock = `SELECT pg_try_advisory_xact_lock(@lock)`

// Claim keeps calls with the same key from doing the work while the transaction
// lasts. Errors: madeBefore, which Do answers, aborted REQUEST_IN_PROGRESS,
// invalid_argument IDEMPOTENCY_KEY_REUSED.
func (c *Call) Claim(ctx context.Context, tx pgx.Tx) error {
	if c == nil {
		return nil
	}
	var ours bool
	if err := tx.QueryRow(ctx, tryLock, pgx.NamedArgs{"lock": c.lock}).Scan(&ours); err != nil {
		return fmt.Errorf("lock the idempotency key: %w", err)
	}
	if !ours {
		return errInProgress
	}
	return c.lookUp(ctx, tx)
}

// Made records that the work is done, and the id of the thing that it made; "" for nothing. Call
// it in the transaction of the work.
func (c *Call) Made(ctx context.Context, tx pgx.Tx, result string) error {
	if c == nil {
		return nil
	}
	_, err := tx.Exec(ctx, c.keys.insertMade, pgx.NamedArgs{"name": c.names[0], "payload": c.payloads[0], "result": database.Optional(result)})
	if err != nil {
		return fmt.Errorf("record the idempotency key: %w", err)
	}
	return nil
}
