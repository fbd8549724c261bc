package auth

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/internal/limit"
	"gatehouse/internal/rpc"
)

// Throttling makes whoever fails wait, ever longer, and never for ever. A try is
// counted as a failure before it is looked at, on Postgres' clock, and taken
// back if it succeeds: however many tries come at once, and to however many
// copies of auth, no more of them are looked at than one after another would be.
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
	return rpc.WithRetry(rpc.NewError(connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS",
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
// itself, so that strangers can't lock it out, until it has itself to wait.
// Errors: resource_exhausted TOO_MANY_ATTEMPTS.
func (s *Service) beginAttempt(ctx context.Context, who guesser) (attempt, error) {
	if !s.throttle {
		return attempt{}, nil
	}
	var begun attempt
	deviceWait := time.Duration(0)
	if who.device != "" {
		key := s.throttleKey("device", who.device)
		begun.cleared = [][]byte{key}
		counted, wait, err := s.countFailures(ctx, key)
		if err != nil || wait == 0 {
			begun.counted = counted
			return begun, err
		}
		deviceWait = wait
	}
	account := s.throttleKey("account", foldEmail(who.email))
	begun.cleared = append(begun.cleared, account)
	keys := [][]byte{account}
	if key := s.addressKey(who.address); key != nil {
		keys = append(keys, key)
	}
	counted, wait, err := s.countFailures(ctx, keys...)
	if err != nil {
		return attempt{}, err
	}
	if wait > 0 {
		if deviceWait > 0 {
			wait = min(wait, deviceWait)
		}
		return attempt{}, errTooManyAttempts(wait)
	}
	begun.counted = counted
	return begun, nil
}

const (
	// A row that is waiting is not counted, and if any is, none is. What the
	// statement's snapshot can't know yet, the condition on the row itself does.
	countFailure = `
		INSERT INTO auth.throttles AS t (key, failures, wait_until, update_time)
		SELECT tried.key, 1, clock_timestamp(), clock_timestamp()
		FROM unnest(@keys::bytea[]) AS tried (key)
		WHERE NOT EXISTS (SELECT FROM auth.throttles w WHERE w.key = ANY (@keys) AND w.wait_until > clock_timestamp())
		ORDER BY tried.key
		ON CONFLICT (key) DO UPDATE SET
			failures = CASE WHEN t.wait_until < clock_timestamp() - @quiet::interval THEN 1 ELSE t.failures + 1 END,
			wait_until = clock_timestamp() + CASE
				WHEN t.wait_until < clock_timestamp() - @quiet::interval OR t.failures + 1 < @free THEN interval '0'
				ELSE least(interval '1 second' * power(2, least(t.failures + 1 - @free, 30)), @max_wait::interval) END,
			update_time = clock_timestamp()
		WHERE t.wait_until <= clock_timestamp()
		RETURNING key, update_time`
	selectWait = `
		SELECT coalesce(max(wait_until) - clock_timestamp(), interval '0') FROM auth.throttles WHERE key = ANY (@keys)`
)

// countFailures counts one failure for each key, or, when one of them has to
// wait, none, and returns for how long.
func (s *Service) countFailures(ctx context.Context, keys ...[]byte) ([]count, time.Duration, error) {
	rows, err := s.db.Query(ctx, countFailure, pgx.NamedArgs{"keys": keys, "quiet": quiet, "free": freeFailures, "max_wait": maxWait})
	if err != nil {
		return nil, 0, fmt.Errorf("count an attempt: %w", err)
	}
	counted, err := pgx.CollectRows(rows, pgx.RowToStructByName[count])
	if err != nil {
		return nil, 0, fmt.Errorf("count an attempt: %w", err)
	}
	if len(counted) == len(keys) {
		return counted, 0, nil
	}
	if err := s.settle(ctx, attempt{counted: counted}, nil); err != nil {
		return nil, 0, err
	}
	var wait time.Duration
	if err := s.db.QueryRow(ctx, selectWait, pgx.NamedArgs{"keys": keys}).Scan(&wait); err != nil {
		return nil, 0, fmt.Errorf("read how long to wait: %w", err)
	}
	return nil, max(wait, time.Millisecond), nil // it may have ended just now
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
	SET failures = t.failures - 1,
		wait_until = CASE WHEN t.update_time = counted.time OR t.failures - 1 < @free THEN t.update_time ELSE t.wait_until END
	FROM locked JOIN unnest(@counted::bytea[], @times::timestamptz[]) AS counted (key, time) USING (key)
	WHERE t.key = locked.key AND t.failures > 0 AND NOT t.key = ANY (@cleared)`

// settle takes back what an attempt has counted, and forgets all failures of the
// cleared keys.
func (s *Service) settle(ctx context.Context, a attempt, cleared [][]byte) error {
	if len(a.counted) == 0 && len(cleared) == 0 {
		return nil
	}
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

// allowMail says whether one more mail may be asked for with this address as
// its recipient, whether it has an account or not. Errors: resource_exhausted
// TOO_MANY_ATTEMPTS.
func (s *Service) allowMail(ctx context.Context, recipient string) error {
	if !s.throttle {
		return nil
	}
	_, wait, err := s.countFailures(ctx, s.throttleKey("mail", foldEmail(strings.TrimSpace(recipient))))
	if err != nil {
		return err
	}
	if wait > 0 {
		return errTooManyAttempts(wait)
	}
	return nil
}
