package auth

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
)

// Throttling makes whoever fails wait, ever longer, and never for ever. A try is
// counted as a failure before it is looked at, on Postgres' clock, and taken
// back if it succeeds: however many tries come at once, and to however many
// copies of auth, no more of them are looked at than one after another would be.
// Those beyond wait in line for the ones that are being looked at (attempt_line.go).
// While a wait lasts, tries are refused unlooked-at, the right password too.
const (
	// freeFailures go without a wait: after so many it is a second, and with
	// each further one twice as long.
	freeFailures = 5
	maxWait      = 15 * time.Minute
	// quiet is how long after the last wait all failures are forgotten.
	quiet = time.Hour
)

func errTooManyAttempts(wait time.Duration) error {
	return fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS",
		"There were too many attempts. Wait before the next one, for as long as this answer says."), wait)
}

// throttleKey names what failures are counted for.
func (s *Service) throttleKey(kind, name string) []byte {
	return macOf(s.throttleMAC, []byte(kind+":"+name))
}

// addressKey names an address. It is nil when the address isn't known.
func (s *Service) addressKey(text string) []byte {
	network := networkOf(text)
	if network == "" {
		return nil
	}
	return s.throttleKey("address", network)
}

// networkOf names what counts as one address, of IPv6 the /64; "" when the address
// isn't known. Rows are found by it: its text can't change.
func networkOf(text string) string {
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

// guesser is who tries a password, as far as anyone knows.
type guesser struct {
	email   string // of the account, whether it exists or not
	device  string // the id of a device that the account has signed in on, or ""
	address string // may be ""
}

// attempt is a try that was counted.
type attempt struct {
	counted []count
	// cleared are the keys whose failures are all forgotten when it succeeds. An
	// address isn't: whoever has an account would clear their own.
	cleared [][]byte
}

// count is one key's latest failure.
type count struct {
	Key  []byte    `db:"key"`
	Time time.Time `db:"update_time"`
}

// beginAttempt counts a try. A device that has signed in before counts for
// itself, so that strangers can't lock it out, until it has itself to wait. With
// a refusal comes what holds it up. Errors: resource_exhausted
// TOO_MANY_ATTEMPTS.
func (s *Service) beginAttempt(ctx context.Context, who guesser) (attempt, hold, error) {
	if !s.throttle {
		return attempt{}, hold{}, nil
	}
	var begun attempt
	deviceWait := time.Duration(0)
	if who.device != "" {
		key := s.throttleKey("device", who.device)
		begun.cleared = [][]byte{key}
		counted, held, err := s.countInLine(ctx, key)
		if err != nil || held.wait == 0 {
			begun.counted = counted
			return begun, hold{}, err
		}
		deviceWait = held.wait
	}
	account := s.throttleKey("account", foldEmail(who.email))
	begun.cleared = append(begun.cleared, account)
	keys := [][]byte{account}
	if key := s.addressKey(who.address); key != nil {
		keys = append(keys, key)
	}
	counted, held, err := s.countInLine(ctx, keys...)
	if err != nil {
		return attempt{}, hold{}, err
	}
	if held.wait > 0 {
		if deviceWait > 0 {
			held.wait = min(held.wait, deviceWait)
		}
		return attempt{}, held, errTooManyAttempts(held.wait)
	}
	begun.counted = counted
	return begun, hold{}, nil
}

const (
	// A row that is waiting is not counted, and if any is, none is. What the
	// statement's snapshot can't know yet, the condition on the row itself does.
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

// attemptLife is after how long an attempt is no more in flight: its process was
// killed, and it stays a failure.
const attemptLife = 30 * time.Second

// hold is a key that has to wait.
type hold struct {
	key  []byte
	wait time.Duration // 0 when nothing has to
	// inFlight says that only attempts which are being looked at are in the way.
	inFlight bool
}

// countFailures counts one failure for each key, or, when one of them has to
// wait, none, and returns that one: after free failures there is a wait. Pending
// is 1 for attempts that are settled later.
func (s *Service) countFailures(ctx context.Context, free, pending int, keys ...[]byte) ([]count, hold, error) {
	args := pgx.NamedArgs{
		"keys": keys, "quiet": quiet, "free": free, "max_wait": maxWait, "pending": pending, "attempt_life": attemptLife,
	}
	rows, err := s.db.Query(ctx, countFailure, args)
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
	if err := s.settle(ctx, attempt{counted: counted}, nil); err != nil {
		return nil, hold{}, err
	}
	held := hold{key: keys[0], wait: time.Millisecond, inFlight: pending > 0} // unless it still lasts
	rows, err = s.db.Query(ctx, selectHolds, args)
	if err != nil {
		return nil, hold{}, fmt.Errorf("read how long to wait: %w", err)
	}
	var found hold
	_, err = pgx.ForEachRow(rows, []any{&found.key, &found.wait, &found.inFlight}, func() error {
		// Of several, one that no attempt in flight can end; else the longest.
		if held.wait == time.Millisecond || held.inFlight && !found.inFlight {
			held = hold{key: bytes.Clone(found.key), wait: max(found.wait, time.Millisecond+1), inFlight: found.inFlight}
		}
		return nil
	})
	if err != nil {
		return nil, hold{}, fmt.Errorf("read how long to wait: %w", err)
	}
	return nil, held, nil
}

// settleLimit bounds what is still done for a caller who has left: what they
// asked for was looked at or not, and their count must not stay as it was.
const settleLimit = 5 * time.Second

const failAttempt = `
	WITH locked AS MATERIALIZED (
		SELECT key FROM auth.throttles WHERE key = ANY (@keys) ORDER BY key FOR UPDATE)
	UPDATE auth.throttles t SET pending = greatest(t.pending - 1, 0) FROM locked WHERE t.key = locked.key`

// fail leaves an attempt's failures counted: nobody waits for its end any more.
func (s *Service) fail(ctx context.Context, a attempt) error {
	if len(a.counted) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	keys := make([][]byte, 0, len(a.counted))
	for _, c := range a.counted {
		keys = append(keys, c.Key)
	}
	if _, err := s.db.Exec(ctx, failAttempt, pgx.NamedArgs{"keys": keys}); err != nil {
		return fmt.Errorf("settle a failed attempt: %w", err)
	}
	return nil
}

// It locks the rows in the order in which attempts count them. The wait that the
// attempt made ends with it; one that others have made since goes on, if there
// are still failures enough.
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

// settle takes back what an attempt has counted, and forgets all failures of the
// cleared keys.
func (s *Service) settle(ctx context.Context, a attempt, cleared [][]byte) error {
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
	_, err := s.db.Exec(ctx, settleAttempt, pgx.NamedArgs{"keys": keys, "cleared": cleared, "counted": counted, "times": times, "free": freeFailures})
	if err != nil {
		return fmt.Errorf("settle an attempt: %w", err)
	}
	return nil
}
