// Package once makes a repeated call with the same Idempotency-Key return the result of
// the first.
//
// The transaction that does the work records the key with the ID of its result. For a day, a
// repeated call finds the ID, and the service builds the response from it. A key is scoped
// to one caller and one method. Only digests of the key and of the request are stored, in a
// table of the service's schema with the columns name bytea (the primary key), payload bytea,
// create_time timestamptz, and the ID of the result.
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

// Life is how long a key is valid.
const Life = 24 * time.Hour

var (
	errKeyReused  = fault.Invalid("IDEMPOTENCY_KEY_REUSED", "Idempotency-Key", "was sent with another request before: repeat that one, or send a new key")
	errInProgress = fault.WithRetry(fault.New(connect.CodeAborted, "REQUEST_IN_PROGRESS",
		"A call with this Idempotency-Key is at work. Repeat it in a moment for its answer."), time.Second)
)

// Config configures the table of keys.
type Config struct {
	DB *database.Pool
	// Table is the table of keys, such as "orders.idempotency_keys".
	Table string
	// Result is its column for the ID of the result, of type uuid, such as "order_id".
	Result string
	// MACKeys are keys for HMAC-SHA-256 digests, the newest first, for a service whose
	// requests contain secrets. Without keys, digests are SHA-256.
	MACKeys [][]byte
}

// Keys records and recognizes idempotency keys.
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

// Prune deletes at most that many expired keys, and returns how many it deleted.
func (k *Keys) Prune(ctx context.Context, most int) (int, error) {
	tag, err := k.db.Exec(ctx, k.prune, pgx.NamedArgs{"life": Life, "most": most})
	if err != nil {
		return 0, fmt.Errorf("prune the idempotency keys: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// Request is a call with a key.
type Request struct {
	// Caller identifies the caller, Procedure the public method; Key is the value of the
	// header.
	Caller, Procedure, Key string
	// Hash is a hash of the request.
	Hash []byte
	// Secrets are parts of the request that its hash omits, but that distinguish requests.
	Secrets []string
}

// Call is a call with a key, or nil for a call without one.
type Call struct {
	keys *Keys
	lock int64 // independent of the MAC keys, which may differ between processes
	// The digests under each MAC key: of caller, method and key; and of the request.
	names, payloads [][]byte
}

// Call returns the call of a request.
func (k *Keys) Call(request Request) *Call {
	name := encodeList(request.Caller, request.Procedure, request.Key)
	payload := encodeList(append([]string{string(request.Hash)}, request.Secrets...)...)
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

// encodeList encodes texts so that no two lists have the same encoding.
func encodeList(texts ...string) []byte {
	var all []byte
	for _, text := range texts {
		all = binary.BigEndian.AppendUint32(all, uint32(len(text)))
		all = append(all, text...)
	}
	return all
}

// completedError ends a call whose work was done before.
type completedError struct {
	result string // its ID; "" for none
}

func (completedError) Error() string { return "the call was completed before" }

// Do calls work or, if the work was done before with the same key, again with the ID of its
// result. refuse, unless nil, records a refusal and returns it. Errors, in addition to those
// of the functions: invalid_argument IDEMPOTENCY_KEY_REUSED, aborted REQUEST_IN_PROGRESS.
func Do[Response any](ctx context.Context, call *Call, refuse func(error) error,
	work func() (Response, error), again func(result string) (Response, error),
) (Response, error) {
	// The work may be expensive, so this checks before it. Claim checks again.
	err := call.checkUnused(ctx)
	if err == nil {
		var response Response
		if response, err = work(); err == nil {
			return response, nil
		}
	} else if refuse != nil {
		err = refuse(err)
	}
	completed, ok := errors.AsType[completedError](err)
	if !ok {
		var none Response
		return none, err
	}
	return again(completed.result)
}

// checkUnused returns a completedError for a call whose work was done before. Errors:
// invalid_argument IDEMPOTENCY_KEY_REUSED.
func (c *Call) checkUnused(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return c.lookUp(ctx, c.keys.db)
}

func (c *Call) lookUp(ctx context.Context, db database.Querier) error {
	var name, payload []byte
	var completed completedError
	err := db.QueryRow(ctx, c.keys.selectMade, pgx.NamedArgs{"names": c.names, "life": Life}).Scan(&name, &payload, &completed.result)
	if database.Missing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up the idempotency key: %w", err)
	}
	for i := range c.names {
		if hmac.Equal(name, c.names[i]) && hmac.Equal(payload, c.payloads[i]) {
			return completed
		}
	}
	return errKeyReused
}

const tryLock = `SELECT pg_try_advisory_xact_lock(@lock)`

// Claim locks the key until the end of the transaction, so that no other call with the key
// does the work. Errors: completedError, which Do handles; aborted REQUEST_IN_PROGRESS;
// invalid_argument IDEMPOTENCY_KEY_REUSED.
func (c *Call) Claim(ctx context.Context, tx pgx.Tx) error {
	if c == nil {
		return nil
	}
	var locked bool
	if err := tx.QueryRow(ctx, tryLock, pgx.NamedArgs{"lock": c.lock}).Scan(&locked); err != nil {
		return fmt.Errorf("lock the idempotency key: %w", err)
	}
	if !locked {
		return errInProgress
	}
	return c.lookUp(ctx, tx)
}

// Made records the key with the ID of the result, or "" for none. Call it in the transaction
// of the work.
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
