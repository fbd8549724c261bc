package access

import (
	"context"
	"log/slog"
	"time"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

// clockOffset is by how much auth's clock is ahead of ours, as its stream of
// revocations tells.
//
// A revocation is kept for as long as the tokens that it concerns, and for clocks
// that differ by at most rpc.ClockSkew. A gateway whose clock is further behind
// would believe a revoked token for longer than that, so it asks auth about each.
type clockOffset struct {
	ahead time.Duration
	known bool // an auth of the version before doesn't tell
	wrong bool
}

// note takes over what a message says of auth's clock. What the message was
// underway for counts as auth being behind.
func (c *clockOffset) note(message *authv1.WatchRevocationsResponse, now time.Time, logger *slog.Logger) {
	if message.GetSendTime() == nil {
		return
	}
	c.ahead, c.known = message.GetSendTime().AsTime().Sub(now), true
	wrong := c.ahead.Abs() > rpc.ClockSkew
	if wrong == c.wrong {
		return
	}
	c.wrong = wrong
	level, event := slog.LevelInfo, "clock: offset to auth is within the limit again"
	if wrong {
		level, event = slog.LevelError, "clock: offset to auth is above the limit, asking auth about each token; set both machines' clocks by NTP"
	}
	logger.LogAttrs(context.Background(), level, event, slog.Duration("auth_ahead", c.ahead), slog.Duration("limit", rpc.ClockSkew))
}
