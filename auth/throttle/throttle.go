// Package throttle slows down repeated failures.
//
// The delay grows with each failure, up to a bound. An attempt is counted as a
// failure before it is checked, on Postgres' clock, and reverted if it succeeds:
// concurrent attempts, on any number of replicas, get no more checks than
// sequential ones would. Attempts beyond that queue for those in flight (queue.go).
// While a block lasts, attempts are refused without a check, even with the right
// password.
package throttle

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
)

const (
	// freeFailures cause no delay. The next failure causes one of a second, and each
	// further failure doubles it.
	freeFailures = 5
	maxDelay     = 15 * time.Minute
	// quiet is how long after the last delay all failures are forgotten.
	quiet = time.Hour
	// Retention is how long after its last failure a row may be pruned.
	Retention = quiet + maxDelay
)

// TooManyAttempts is the refusal of a caller who has to wait.
func TooManyAttempts(delay time.Duration) error {
	return fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS",
		"There were too many attempts. Wait before the next one, for as long as this answer says."), delay)
}

// Throttle counts failures in Postgres, shared by all replicas.
type Throttle struct {
	db      *database.Pool
	mac     []byte
	enabled bool
	queues  queues
}

// New returns a throttle whose keys are derived from the secret key. A disabled
// one counts nothing: only for tests and measurements.
func New(db *database.Pool, secret []byte, enabled bool) (*Throttle, error) {
	mac, err := secretkey.Derive(secret, "throttle v1")
	if err != nil {
		return nil, err
	}
	return &Throttle{db: db, mac: mac, enabled: enabled}, nil
}

// Key returns the key under which failures are counted. It does not reveal the name.
func (t *Throttle) Key(kind, name string) []byte {
	return secretkey.MAC(t.mac, []byte(kind+":"+name))
}

// addressKey returns the key of a client's network; nil when the address is unknown.
func (t *Throttle) addressKey(address string) []byte {
	network := Network(address)
	if network == "" {
		return nil
	}
	return t.Key("address", network)
}

// Network returns the network whose addresses count as one: the address itself, or
// for IPv6 its /64; "" when the address is unknown. Stored keys depend on this text,
// so it can't change.
func Network(text string) string {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return ""
	}
	network := limit.Network(address)
	if network.IsSingleIP() {
		return network.Addr().String()
	}
	return network.String()
}

// Client identifies who tries a password, as far as known.
type Client struct {
	Email    string // of the account, whether it exists or not; folded
	DeviceID string // of a device on which the account has signed in, or ""
	Address  string // IP address; may be ""
}

// Attempt is an attempt that was counted as a failure. The zero value was not
// counted.
type Attempt struct {
	counted []count
	// cleared are the keys whose failures are all forgotten on success. The
	// address isn't one: anybody with an account could clear their own.
	cleared [][]byte
}

// And returns the attempt that counts as both.
func (a Attempt) And(other Attempt) Attempt {
	return Attempt{counted: slices.Concat(a.counted, other.counted), cleared: slices.Concat(a.cleared, other.cleared)}
}

// count is one key's latest failure.
type count struct {
	Key  []byte    `db:"key"`
	Time time.Time `db:"update_time"`
}

// Block is the reason why an attempt has to wait. The zero value doesn't block.
type Block struct {
	Delay time.Duration
	// Address says that failures from the client's network are the reason.
	Address bool
}

// Begin counts an attempt as a failure until it is settled by Succeed, Cancel or
// Fail. A known device counts for itself, so that strangers can't lock it out,
// until it is blocked itself. Errors: resource_exhausted TOO_MANY_ATTEMPTS, with
// the block.
func (t *Throttle) Begin(ctx context.Context, client Client) (Attempt, Block, error) {
	var device []byte
	if client.DeviceID != "" {
		device = t.Key("device", client.DeviceID)
	}
	return t.begin(ctx, device, t.Key("account", client.Email), t.addressKey(client.Address))
}

// BeginFactor is Begin for an attempt at an account's second factor. It counts for
// keys of its own, which only a right second factor clears: somebody who knows the
// password could otherwise clear them before each guess. The address has none, because
// only those who know the password get here.
func (t *Throttle) BeginFactor(ctx context.Context, account, deviceID string) (Attempt, Block, error) {
	var device []byte
	if deviceID != "" {
		device = t.Key("factor device", deviceID)
	}
	return t.begin(ctx, device, t.Key("factor", account), nil)
}

// begin counts an attempt for the device and, if there is none or it is blocked, for
// the account and the address. The device and the address may be nil.
func (t *Throttle) begin(ctx context.Context, device, account, address []byte) (Attempt, Block, error) {
	if !t.enabled {
		return Attempt{}, Block{}, nil
	}
	var begun Attempt
	deviceDelay := time.Duration(0)
	if device != nil {
		begun.cleared = [][]byte{device}
		counted, blocked, err := t.countQueued(ctx, device)
		if err != nil || blocked.delay == 0 {
			begun.counted = counted
			return begun, Block{}, err
		}
		deviceDelay = blocked.delay
	}
	begun.cleared = append(begun.cleared, account)
	keys := [][]byte{account}
	if address != nil {
		keys = append(keys, address)
	}
	counted, blocked, err := t.countQueued(ctx, keys...)
	if err != nil {
		return Attempt{}, Block{}, err
	}
	if blocked.delay > 0 {
		if deviceDelay > 0 {
			blocked.delay = min(blocked.delay, deviceDelay)
		}
		block := Block{Delay: blocked.delay, Address: address != nil && bytes.Equal(blocked.key, address)}
		return Attempt{}, block, TooManyAttempts(blocked.delay)
	}
	begun.counted = counted
	return begun, Block{}, nil
}

// Count counts an event for a key: after free ones in a row, the next is
// blocked for a while. Cancel reverts the count.
func (t *Throttle) Count(ctx context.Context, free int, key []byte) (Attempt, Block, error) {
	if !t.enabled {
		return Attempt{}, Block{}, nil
	}
	counted, blocked, err := t.count(ctx, free, 0, key)
	return Attempt{counted: counted}, Block{Delay: blocked.delay}, err
}

const (
	// A blocked row is not counted, and if any is blocked, none is counted. The
	// condition on the row itself sees what the statement's snapshot can't.
	countFailure = `
		INSERT INTO auth.throttles AS t (key, failures, pending, wait_until, update_time)
		SELECT tried.key, 1, @pending, clock_timestamp(), clock_timestamp()
		FROM unnest(@keys::bytea[]) AS tried (key)
		WHERE NOT EXISTS (SELECT FROM auth.throttles w WHERE w.key = ANY (@keys) AND w.wait_until > clock_timestamp())
		ORDER BY tried.key
		ON CONFLICT (key) DO UPDATE SET
			failures = CASE WHEN t.wait_until < clock_timestamp() - @quiet::interval THEN 1 ELSE t.failures + 1 END,
			pending = @pending + CASE WHEN t.update_time < clock_timestamp() - @attempt_life::interval THEN 0 ELSE t.pending END,
			wait_until = clock_timestamp() + CASE
				WHEN t.wait_until < clock_timestamp() - @quiet::interval OR t.failures + 1 < @free THEN interval '0'
				ELSE least(interval '1 second' * power(2, least(t.failures + 1 - @free, 30)), @max_wait::interval) END,
			update_time = clock_timestamp()
		WHERE t.wait_until <= clock_timestamp()
		RETURNING key, update_time`
	selectHolds = `
		SELECT key, wait_until - clock_timestamp() AS wait,
			pending > 0 AND update_time > clock_timestamp() - @attempt_life::interval AS in_flight
		FROM auth.throttles WHERE key = ANY (@keys) AND wait_until > clock_timestamp()
		ORDER BY wait_until DESC`
)

// attemptLife is how long an attempt counts as in flight. One that isn't settled
// by then (its process was killed) stays a failure.
const attemptLife = 30 * time.Second

// hold is a key that is blocked.
type hold struct {
	key   []byte
	delay time.Duration // 0 for no block
	// inFlight says that only attempts that are not settled yet block it.
	inFlight bool
}

// count counts one failure for each key, or, when one of them is blocked, none,
// and returns that one. Pending is 1 for attempts that are settled later.
func (t *Throttle) count(ctx context.Context, free, pending int, keys ...[]byte) ([]count, hold, error) {
	args := pgx.NamedArgs{
		"keys": keys, "quiet": quiet, "free": free, "max_wait": maxDelay, "pending": pending, "attempt_life": attemptLife,
	}
	rows, err := t.db.Query(ctx, countFailure, args)
	if err != nil {
		return nil, hold{}, fmt.Errorf("count an attempt: %w", err)
	}
	counted, err := pgx.CollectRows(rows, pgx.RowToStructByName[count])
	if err != nil {
		return nil, hold{}, fmt.Errorf("count an attempt: %w", err)
	}
	if len(counted) == len(keys) {
		return counted, hold{}, nil
	}
	if err := t.Cancel(ctx, Attempt{counted: counted}); err != nil {
		return nil, hold{}, err
	}
	held := hold{key: keys[0], delay: time.Millisecond, inFlight: pending > 0} // unless it still lasts
	rows, err = t.db.Query(ctx, selectHolds, args)
	if err != nil {
		return nil, hold{}, fmt.Errorf("read how long to wait: %w", err)
	}
	var found hold
	_, err = pgx.ForEachRow(rows, []any{&found.key, &found.delay, &found.inFlight}, func() error {
		// Of several blocks, return one that no attempt in flight can end, or else the longest.
		if held.delay == time.Millisecond || held.inFlight && !found.inFlight {
			held = hold{key: bytes.Clone(found.key), delay: max(found.delay, time.Millisecond+1), inFlight: found.inFlight}
		}
		return nil
	})
	if err != nil {
		return nil, hold{}, fmt.Errorf("read how long to wait: %w", err)
	}
	return nil, held, nil
}

// settleLimit bounds the settling of an attempt whose caller has left: it must
// not stay counted as in flight.
const settleLimit = 5 * time.Second

const failAttempt = `
	WITH locked AS MATERIALIZED (
		SELECT key FROM auth.throttles WHERE key = ANY (@keys) ORDER BY key FOR UPDATE)
	UPDATE auth.throttles t SET pending = greatest(t.pending - 1, 0) FROM locked WHERE t.key = locked.key`

// Fail leaves an attempt counted as a failure, no longer in flight.
func (t *Throttle) Fail(ctx context.Context, a Attempt) error {
	if len(a.counted) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	keys := make([][]byte, 0, len(a.counted))
	for _, c := range a.counted {
		keys = append(keys, c.Key)
	}
	if _, err := t.db.Exec(ctx, failAttempt, pgx.NamedArgs{"keys": keys}); err != nil {
		return fmt.Errorf("settle a failed attempt: %w", err)
	}
	return nil
}

// It locks the rows in the order in which attempts count them. The delay that the
// attempt caused ends with it; one that later attempts caused stays if enough
// failures remain.
const settleAttempt = `
	WITH locked AS MATERIALIZED (
		SELECT key FROM auth.throttles WHERE key = ANY (@keys) ORDER BY key FOR UPDATE),
	forgotten AS (
		DELETE FROM auth.throttles t USING locked WHERE t.key = locked.key AND t.key = ANY (@cleared))
	UPDATE auth.throttles t
	SET failures = t.failures - 1, pending = greatest(t.pending - 1, 0),
		wait_until = CASE WHEN t.update_time = counted.time OR t.failures - 1 < @free THEN t.update_time ELSE t.wait_until END
	FROM locked JOIN unnest(@counted::bytea[], @times::timestamptz[]) AS counted (key, time) USING (key)
	WHERE t.key = locked.key AND t.failures > 0 AND NOT t.key = ANY (@cleared)`

// Succeed reverts an attempt's failures, and deletes the earlier ones of the account
// and the device.
func (t *Throttle) Succeed(ctx context.Context, a Attempt) error { return t.settle(ctx, a, a.cleared) }

// Cancel reverts an attempt's failures: its password was not checked.
func (t *Throttle) Cancel(ctx context.Context, a Attempt) error { return t.settle(ctx, a, nil) }

func (t *Throttle) settle(ctx context.Context, a Attempt, cleared [][]byte) error {
	if len(a.counted) == 0 && len(cleared) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	counted, times := [][]byte{}, []time.Time{}
	for _, c := range a.counted {
		counted, times = append(counted, c.Key), append(times, c.Time)
	}
	if cleared == nil {
		cleared = [][]byte{}
	}
	keys := slices.CompactFunc(slices.SortedFunc(slices.Values(slices.Concat(counted, cleared)), bytes.Compare), bytes.Equal)
	_, err := t.db.Exec(ctx, settleAttempt, pgx.NamedArgs{"keys": keys, "cleared": cleared, "counted": counted, "times": times, "free": freeFailures})
	if err != nil {
		return fmt.Errorf("settle an attempt: %w", err)
	}
	return nil
}
