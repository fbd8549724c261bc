// Package password makes and checks password hashes, and knows which passwords
// are too common to be any good.
//
// New hashes are Argon2id of the password in NFKC. Hashes that come from other
// systems (stored.go) are checked as they are, and reported as outdated, for
// whoever signs in to get a new one. However many want to, only so many hashes
// are computed at a time.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"

	"gatehouse/internal/rpc"
)

// argon2Params are Argon2's costs (RFC 9106): memory in KiB, passes, lanes.
type argon2Params struct {
	memory, passes uint32
	lanes          uint8
}

var live = argon2Params{memory: 19 * 1024, passes: 2, lanes: 1}

const (
	saltLength = 16
	hashLength = 32
)

// queue is how long a check waits for its turn.
const queue = 250 * time.Millisecond

// ErrTooManyChecks says that a password was not looked at, for others were first.
var ErrTooManyChecks = rpc.WithRetry(rpc.NewError(connect.CodeResourceExhausted, "TOO_MANY_PASSWORD_CHECKS",
	"Too many people are signing in just now. Try again in a second."), time.Second)

// Hasher makes and checks password hashes, a bounded number at a time: each
// takes 19 MiB and a core for tens of milliseconds, and what else the process
// does must go on meanwhile.
type Hasher struct {
	slots *semaphore.Weighted
	size  int64 // how many slots there are
	// dummy is checked when there is no account, so that the time taken
	// doesn't tell.
	dummy stored
	count atomic.Int64
}

// NewHasher returns a hasher that leaves one core to others.
func NewHasher() *Hasher {
	hashesRefused.Add(context.Background(), 0) // so that it is there before the first
	size := int64(max(1, runtime.GOMAXPROCS(0)-1))
	return &Hasher{
		slots: semaphore.NewWeighted(size), size: size,
		dummy: argon2Stored(argon2.IDKey, live, make([]byte, saltLength), make([]byte, hashLength)),
	}
}

// Count returns how many hashes were computed so far.
func (h *Hasher) Count() int64 { return h.count.Load() }

// Hash returns the password's hash in the PHC string format. Errors:
// [ErrTooManyChecks].
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx, 1); err != nil {
		return "", err
	}
	defer h.slots.Release(1)
	defer timeHash(ctx)()
	h.count.Add(1)
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // never fails: it would end the process
	p := live
	return encode(p, salt, argon2.IDKey([]byte(Normal(password)), salt, p.passes, p.memory, p.lanes, hashLength)), nil
}

// Check reports whether the password is the hash's, and whether the hash should
// be made anew. An empty hash is never right, and takes as long. Errors:
// [ErrTooManyChecks].
func (h *Hasher) Check(ctx context.Context, password, hash string) (right, outdated bool, err error) {
	known := h.dummy
	if hash != "" {
		if known, err = parse(hash); err != nil {
			return false, false, fmt.Errorf("stored password hash: %w", err)
		}
	}
	weight := min(known.lanes, h.size)
	if err := h.enter(ctx, weight); err != nil {
		return false, false, err
	}
	defer h.slots.Release(weight)
	defer timeHash(ctx)()
	normal := Normal(password)
	right = h.matches(known, normal)
	outdated = !known.live
	// Other systems may have hashed it as it was typed.
	if !right && normal != password {
		right, outdated = h.matches(known, password), true
	}
	right = right && hash != ""
	return right, right && outdated, nil
}

func (h *Hasher) matches(known stored, password string) bool {
	h.count.Add(1)
	return known.matches(password)
}

// enter waits for slots, for no longer than the queue allows.
func (h *Hasher) enter(ctx context.Context, weight int64) error {
	waiting, cancel := context.WithTimeout(ctx, queue)
	defer cancel()
	if err := h.slots.Acquire(waiting, weight); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		hashesRefused.Add(ctx, 1)
		return ErrTooManyChecks
	}
	return nil
}

// Normal brings a password to NFKC, so that it is the same on every keyboard
// (NIST SP 800-63B).
func Normal(password string) string { return norm.NFKC.String(password) }

func encode(p argon2Params, salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, p.memory, p.passes, p.lanes, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

func equal(got, want []byte) bool { return subtle.ConstantTimeCompare(got, want) == 1 }
