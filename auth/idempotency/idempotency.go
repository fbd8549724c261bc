// Package idempotency makes a repeated call with the same Idempotency-Key return
// the result of the first; see package once.
//
// Secrets are not stored: a repeated call that signs in must contain the account's
// password, and is throttled like a login. A key is scoped to the signed-in account,
// otherwise to the address. Only MACs of the key and of the request are stored.
package idempotency

import (
	"connectrpc.com/connect/v2"

	"gatehouse/auth/secretkey"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/once"
)

// ErrTargetGone refuses a key whose first call created an account that was deleted.
var ErrTargetGone = fault.New(connect.CodeFailedPrecondition, "IDEMPOTENCY_TARGET_GONE",
	"The account that the first call with this Idempotency-Key created has been deleted. Send a new key to create another.")

// Keys recognises keys.
type Keys struct{ keys *once.Keys }

// New derives the MAC keys from the secret keys, newest first.
func New(db *database.Pool, secrets [][]byte) (*Keys, error) {
	macs, err := secretkey.DeriveEach(secrets, "idempotency key v1")
	if err != nil {
		return nil, err
	}
	return &Keys{once.New(once.Config{DB: db, Table: "auth.idempotency_keys", Result: "account_id", MACKeys: macs})}, nil
}

// Call returns the call of a key; nil for none. secrets are parts of the request
// that its hash leaves out although they distinguish requests.
func (k *Keys) Call(key *authv1.IdempotencyKey, origin *authv1.Origin, secrets ...string) *once.Call {
	if key == nil {
		return nil
	}
	caller := "account " + origin.GetAccountId()
	if origin.GetAccountId() == "" {
		caller = "anon " + throttle.Network(origin.GetIpAddress())
	}
	return k.keys.Call(once.Request{Caller: caller, Procedure: key.GetProcedure(), Key: key.GetKey(), Hash: key.GetRequestHash(), Secrets: secrets})
}
