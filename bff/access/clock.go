package access

import (
	"context"
	"log/slog"
	"time"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

// clockOffset is the offset of auth's clock to this process' clock, from the timestamps
// in the revocation stream.
//
// The gateway stores a revocation until the tokens that it concerns have expired, with a
// tolerance of rpc.ClockSkew. If its clock is further behind, it would accept a revoked
// token after it pruned the revocation. It then asks auth about each token.
type clockOffset struct {
	ahead time.Duration
	known bool // the previous version of auth sends no timestamp
	wrong bool
}

// note updates the offset from the timestamp of a message. The delay of the message makes
// auth's clock appear to be behind.
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
