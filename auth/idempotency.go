package auth

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

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// Whoever doesn't know whether a call did its work makes it again with the same
// idempotency key. In the transaction that does the work it is noted which
// account it made; for a day, the call that comes again finds that and composes
// its answer anew. Secrets are not compared: one who signs in by a repetition
// has to give the account's password, and waits after failures as at a login.
//
// A key counts for one caller and one method: for a signed-in account, else for
// an address. Only MACs of them and of the request are kept.
const idempotencyLife = 24 * time.Hour

var (
	errKeyReused  = fault.Invalid("IDEMPOTENCY_KEY_REUSED", "Idempotency-Key", "was sent with another request before: repeat that one, or send a new key")
	errInProgress = fault.WithRetry(fault.New(connect.CodeAborted, "REQUEST_IN_PROGRESS",
		"A call with this Idempotency-Key is at work. Repeat it in a moment for its answer."), time.Second)
	errTargetGone = fault.New(connect.CodeFailedPrecondition, "IDEMPOTENCY_TARGET_GONE",
		"The account that the first call with this Idempotency-Key made is deleted. Send a new key to make another.")
)

// keyedCall is a call that came with a key; nil is one without.
type keyedCall struct {
	lock int64 // the same in every copy, whichever secret keys it has
	// Under each MAC key: of caller, method and key, and of the request.
	names, payloads [][]byte
}

// keyed reads a call's key; nil for none. secrets are parts of the request that
// its hash leaves out, and that make another request of it all the same.
func (s *Service) keyed(key *authv1.IdempotencyKey, origin *authv1.Origin, secrets ...string) *keyedCall {
	if key == nil {
		return nil
	}
	caller := "account " + origin.GetAccountId()
	if origin.GetAccountId() == "" {
		caller = "anon " + networkOf(origin.GetIpAddress())
	}
	name := listed(caller, key.GetProcedure(), key.GetKey())
	payload := listed(append([]string{string(key.GetRequestHash())}, secrets...)...)
	sum := sha256.Sum256(name)
	call := &keyedCall{lock: int64(binary.BigEndian.Uint64(sum[:]))}
	for _, mac := range s.idempotencyKeys {
		call.names = append(call.names, macOf(mac, append([]byte("name:"), name...)))
		call.payloads = append(call.payloads, macOf(mac, append([]byte("payload:"), payload...)))
	}
	return call
}

// listed joins texts so that no two lists look the same.
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

// once does a call's work, or, if that was done before with the same key,
// answers again for the account that it made. Errors, beside those of both:
// invalid_argument IDEMPOTENCY_KEY_REUSED, aborted REQUEST_IN_PROGRESS.
func once[Response any](ctx context.Context, s *Service, call *keyedCall, row audited,
	work func() (Response, error), again func(account string) (Response, error),
) (Response, error) {
	// Before the work is begun, for it may hash a password; claim looks again.
	err := call.unmade(ctx, s.db)
	if err == nil {
		var response Response
		if response, err = work(); err == nil {
			return response, nil
		}
	} else {
		err = s.refuse(ctx, row, err)
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
func (c *keyedCall) unmade(ctx context.Context, db querier) error {
	if c == nil {
		return nil
	}
	var name, payload []byte
	var before madeBefore
	err := db.QueryRow(ctx, selectMade, pgx.NamedArgs{"names": c.names, "life": idempotencyLife}).Scan(&name, &payload, &before.account)
	if missing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the idempotency key: %w", err)
	}
	for i := range c.names {
		if hmac.Equal(name, c.names[i]) && hmac.Equal(payload, c.payloads[i]) {
			return before
		}
	}
	return errKeyReused
}

const tryIdempotencyLock = `SELECT pg_try_advisory_xact_lock(@lock)`

// claim keeps others with the same key from doing the work while the transaction
// lasts. Errors: madeBefore, aborted REQUEST_IN_PROGRESS, invalid_argument
// IDEMPOTENCY_KEY_REUSED.
func (c *keyedCall) claim(ctx context.Context, tx pgx.Tx) error {
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
	return c.unmade(ctx, tx)
}

// One that is there already is older than it counts.
const insertMade = `
	INSERT INTO auth.idempotency_keys (name, payload, account_id, create_time)
	VALUES (@name, @payload, @account_id, clock_timestamp())
	ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
	SET payload = excluded.payload, account_id = excluded.account_id, create_time = excluded.create_time`

// made notes that the work is done, and which account it made; "" for none.
func (c *keyedCall) made(ctx context.Context, tx pgx.Tx, account string) error {
	if c == nil {
		return nil
	}
	_, err := tx.Exec(ctx, insertMade, pgx.NamedArgs{"name": c.names[0], "payload": c.payloads[0], "account_id": optional(account)})
	if err != nil {
		return fmt.Errorf("note the idempotency key: %w", err)
	}
	return nil
}

// createdAgain answers a CreateAccount that made the account before.
func (s *Service) createdAgain(ctx context.Context, req *authv1.CreateAccountRequest, made string, row audited) (*authv1.CreateAccountResponse, error) {
	if made == "" {
		return &authv1.CreateAccountResponse{VerificationSent: true}, nil
	}
	if req.GetSignIn() {
		login, err := s.signInAgain(ctx, made, req.GetPassword(), row)
		return &authv1.CreateAccountResponse{Account: login.GetAccount(), Tokens: login.GetTokens(), DeviceToken: login.GetDeviceToken()}, err
	}
	account, err := scanAccount(s.db.QueryRow(ctx, selectAccount, pgx.NamedArgs{"id": made}))
	if missing(err) {
		return nil, s.refuse(ctx, row, errTargetGone)
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	return &authv1.CreateAccountResponse{Account: account}, nil
}

const selectCredentialsByID = `SELECT id, email, password_hash, status = 'active' FROM auth.accounts WHERE id = @id`

// signInAgain signs in to the account that a call made before, as Login does.
// Errors: those of Login, failed_precondition IDEMPOTENCY_TARGET_GONE.
func (s *Service) signInAgain(ctx context.Context, made, password string, row audited) (*authv1.LoginResponse, error) {
	found, err := readCredentials(ctx, s.db, selectCredentialsByID, pgx.NamedArgs{"id": made})
	if err != nil {
		return nil, err
	}
	if found.id == "" {
		return nil, s.refuse(ctx, row, errTargetGone)
	}
	return s.signIn(ctx, &authv1.LoginRequest{Email: found.email, Password: password, Origin: row.origin}, found)
}
