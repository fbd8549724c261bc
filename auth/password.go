package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"

	"gatehouse/internal/rpc"
)

// argon2Params are Argon2id's costs (RFC 9106): memory in KiB, passes, lanes.
type argon2Params struct {
	memory, passes uint32
	lanes          uint8
}

var currentParams = argon2Params{memory: 19 * 1024, passes: 2, lanes: 1}

// Bounds on the parameters of a stored hash, so that a row can't make one check
// take the machine.
const (
	maxArgon2Memory = 256 * 1024
	maxArgon2Passes = 16
	saltLength      = 16
	hashLength      = 32
)

// maxPassword is how many characters a password may have (NIST SP 800-63B asks
// for 64 at least).
const maxPassword = 128

// hashQueue is how long a password check waits for its turn.
const hashQueue = 250 * time.Millisecond

var errTooManyChecks = rpc.WithRetry(rpc.NewError(connect.CodeResourceExhausted, "TOO_MANY_PASSWORD_CHECKS",
	"Too many people are signing in just now. Try again in a second."), time.Second)

// hasher makes and checks password hashes, a bounded number at a time: each
// takes 19 MiB and a core for tens of milliseconds, and what else the process
// does must go on meanwhile.
type hasher struct {
	slots *semaphore.Weighted
	// dummy is checked when there is no account, so that the time taken
	// doesn't tell.
	dummy string
}

func newHasher() *hasher {
	h := &hasher{slots: semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)-1)))}
	h.dummy = encodeHash(currentParams, make([]byte, saltLength), make([]byte, hashLength))
	return h
}

// hash returns the password's hash in the PHC string format. Errors:
// resource_exhausted TOO_MANY_PASSWORD_CHECKS.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.slots.Release(1)
	defer timeHash(ctx)()
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // never fails: it would end the process
	p := currentParams
	return encodeHash(p, salt, argon2.IDKey(normal(password), salt, p.passes, p.memory, p.lanes, hashLength)), nil
}

// check reports whether the password is the hash's, and whether the hash should
// be made anew with the current parameters. An empty hash is never right, and
// takes as long. Errors: resource_exhausted TOO_MANY_PASSWORD_CHECKS.
func (h *hasher) check(ctx context.Context, password, hash string) (right, outdated bool, err error) {
	exists := hash != ""
	if !exists {
		hash = h.dummy
	}
	params, salt, want, err := decodeHash(hash)
	if err != nil {
		return false, false, err
	}
	if err := h.enter(ctx); err != nil {
		return false, false, err
	}
	defer h.slots.Release(1)
	defer timeHash(ctx)()
	got := argon2.IDKey(normal(password), salt, params.passes, params.memory, params.lanes, uint32(len(want)))
	right = subtle.ConstantTimeCompare(got, want) == 1 && exists
	return right, right && params != currentParams, nil
}

// checkNewPassword says whether an account with the email may have the password,
// which the request's field holds. Errors: invalid_argument PASSWORD_TOO_SHORT,
// PASSWORD_TOO_LONG, PASSWORD_COMMON or PASSWORD_CONTAINS_EMAIL.
func (s *Service) checkNewPassword(field, password, email string) error {
	length := utf8.RuneCount(normal(password))
	switch {
	case length < s.passwordMin:
		return rpc.Invalid("PASSWORD_TOO_SHORT", field, fmt.Sprintf("give it at least %d characters", s.passwordMin))
	case length > maxPassword:
		return rpc.Invalid("PASSWORD_TOO_LONG", field, fmt.Sprintf("give it at most %d characters", maxPassword))
	}
	return nil
}

// enter waits for a slot, for no longer than the queue allows.
func (h *hasher) enter(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, hashQueue)
	defer cancel()
	if err := h.slots.Acquire(waiting, 1); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		hashesRefused.Add(ctx, 1)
		return errTooManyChecks
	}
	return nil
}

// normal brings a password to NFKC, so that it is the same on every keyboard
// (NIST SP 800-63B).
func normal(password string) []byte { return norm.NFKC.Bytes([]byte(password)) }

func encodeHash(p argon2Params, salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, p.memory, p.passes, p.lanes, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

var errStoredHash = errors.New("stored password hash is not one that we know")

func decodeHash(text string) (p argon2Params, salt, hash []byte, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, errStoredHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return p, nil, nil, errStoredHash
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(parts[4])
	hash, hashErr := base64.RawStdEncoding.DecodeString(parts[5])
	if saltErr != nil || hashErr != nil || len(hash) < 16 || len(hash) > 64 ||
		p.memory < 8 || p.memory > maxArgon2Memory || p.passes < 1 || p.passes > maxArgon2Passes || p.lanes < 1 {
		return p, nil, nil, errStoredHash
	}
	return p, salt, hash, nil
}
