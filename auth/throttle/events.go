package throttle

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// BeginEmailCode is Begin for a guess at the code of a mail. It counts for keys of its
// own: anybody can request codes and fail them, which must not delay the password.
func (t *Throttle) BeginEmailCode(ctx context.Context, email, deviceID string) (Attempt, Block, error) {
	var device []byte
	if deviceID != "" {
		device = t.Key("email code device", deviceID)
	}
	return t.begin(ctx, device, t.Key("email code", email), nil)
}

// An event takes one of the slots of its name and holds it for the window, so that no
// window has more events than slots. A slot that another event is taking is not waited
// for.
const (
	makeSlots = `
		INSERT INTO auth.throttles (key, failures, pending, wait_until, update_time)
		SELECT slot, 0, 0, clock_timestamp(), clock_timestamp() FROM unnest(@slots::bytea[]) AS made (slot)
		ORDER BY slot ON CONFLICT (key) DO NOTHING`
	takeSlot = `
		UPDATE auth.throttles SET wait_until = clock_timestamp() + @window::interval, update_time = clock_timestamp()
		WHERE key = (
			SELECT key FROM auth.throttles WHERE key = ANY (@slots) AND wait_until <= clock_timestamp()
			ORDER BY key LIMIT 1 FOR UPDATE SKIP LOCKED)`
)

// Allow reports whether an event of the name may take place: at most the given number
// do in each window.
func (t *Throttle) Allow(ctx context.Context, most int, window time.Duration, kind, name string) (bool, error) {
	if !t.enabled {
		return true, nil
	}
	slots := make([][]byte, most)
	for i := range slots {
		slots[i] = t.Key(kind, name+"\n"+strconv.Itoa(i))
	}
	args := pgx.NamedArgs{"slots": slots, "window": window}
	if _, err := t.db.Exec(ctx, makeSlots, args); err != nil {
		return false, fmt.Errorf("make the slots: %w", err)
	}
	taken, err := t.db.Exec(ctx, takeSlot, args)
	if err != nil {
		return false, fmt.Errorf("take a slot: %w", err)
	}
	return taken.RowsAffected() == 1, nil
}
