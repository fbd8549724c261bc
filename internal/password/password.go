// Package password hashes and checks passwords, and knows which are too common.
//
// New hashes are Argon2id of the password in NFKC. Hashes that come from other
// systems (stored.go) are checked as they are, and reported as outdated, so that a
// sign-in replaces them.
//
// The number of concurrent hashes is bounded. Further calls wait in a queue
// (queue.go) that is fair between classes of callers and between networks, and
// that refuses calls by their delay: it serves a burst, but not a flood.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"gatehouse/internal/fault"
	"runtime"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
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

// ErrTooManyChecks says that a password was not checked because the queue was too
// long.
var ErrTooManyChecks = fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_PASSWORD_CHECKS",
	"Too many people are signing in just now. Try again in a second."), time.Second)

// Hasher hashes and checks passwords, a bounded number at a time: each takes 19 MiB
// and a core for tens of milliseconds, and must not starve the rest of the process.
type Hasher struct {
	queue queue
	size  int64 // how many slots there are
	// dummy is checked when there is no account, so that the duration doesn't
	// reveal it.
	dummy stored
	count atomic.Int64
}

// NewHasher returns a hasher that leaves one core to other work.
func NewHasher() *Hasher {
	for class := range classes { // so that they are there before the first
		countRefusal(context.Background(), class, refusedDelay, 0)
	}
	size := int64(max(1, runtime.GOMAXPROCS(0)-1))
	dummy := argon2Stored(argon2.IDKey, live, make([]byte, saltLength), make([]byte, hashLength))
	dummy.live = true // it costs what one of ours does
	return &Hasher{queue: queue{free: size}, size: size, dummy: dummy}
}

// Count returns how many hashes were computed so far.
func (h *Hasher) Count() int64 { return h.count.Load() }

// Hash returns the password's hash in the PHC string format. Errors:
// [ErrTooManyChecks].
func (h *Hasher) Hash(ctx context.Context, caller Caller, password string) (hash string, err error) {
	err = h.run(ctx, caller, 1, true, func() {
		h.count.Add(1)
		salt := make([]byte, saltLength)
		_, _ = rand.Read(salt) // never fails: it would end the process
		p := live
		hash = encode(p, salt, argon2.IDKey([]byte(Normal(password)), salt, p.passes, p.memory, p.lanes, hashLength))
	})
	return hash, err
}

// Check reports whether the password matches the hash, and whether the hash is
// outdated. An empty hash never matches, and takes as long. An error means that the
// password was not checked. Errors: [ErrTooManyChecks].
func (h *Hasher) Check(ctx context.Context, caller Caller, password, hash string) (right, outdated bool, err error) {
	known := h.dummy
	if hash != "" {
		if known, err = parse(hash); err != nil {
			return false, false, fmt.Errorf("stored password hash: %w", err)
		}
	}
	err = h.run(ctx, caller, min(known.lanes, h.size), known.live, func() {
		normal := Normal(password)
		right = h.matches(known, normal)
		outdated = !known.live
		// Other systems may have hashed the password as typed. Our hashes are of the
		// normal form, so a second check would only double the cost of a guess.
		if !right && !known.live && normal != password {
			right = h.matches(known, password)
		}
	})
	right = right && hash != ""
	return right, right && outdated, err
}

func (h *Hasher) matches(known stored, password string) bool {
	h.count.Add(1)
	return known.matches(password)
}

// run does the work when the queue admits the caller. The queue learns the duration
// of a hash from typical work.
func (h *Hasher) run(ctx context.Context, caller Caller, weight int64, typical bool, work func()) error {
	if err := h.enter(ctx, caller, weight); err != nil {
		return err
	}
	var took time.Duration
	defer func() { h.queue.leave(weight, took) }()
	over := timeHash(ctx)
	defer func() {
		if lasted := over(); typical {
			took = lasted
		}
	}()
	work()
	return nil
}

// enter waits in the queue.
func (h *Hasher) enter(ctx context.Context, caller Caller, weight int64) error {
	start, class := time.Now(), classAttributes[caller.Class]
	queueLength.Add(ctx, 1, class)
	refusal, err := h.queue.enter(ctx, caller, weight)
	queueLength.Add(ctx, -1, class)
	queueDelay.Record(ctx, time.Since(start).Seconds(), class)
	if err == nil && refusal != "" {
		countRefusal(ctx, caller.Class, refusal, 1)
		err = ErrTooManyChecks
	}
	return err
}

// Normal converts a password to NFKC, so that it is the same on every keyboard
// (NIST SP 800-63B).
func Normal(password string) string { return norm.NFKC.String(password) }

func encode(p argon2Params, salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, p.memory, p.passes, p.lanes, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

func equal(got, want []byte) bool { return subtle.ConstantTimeCompare(got, want) == 1 }
