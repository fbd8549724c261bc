package access

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// issuerWarningInterval is the minimum time between two warnings. Every call repeats the
// same misconfiguration.
const issuerWarningInterval = time.Minute

// issuerWarning logs that the issuer in tokens with a valid signature of auth is not this
// gateway's public URL. The gateway refuses such tokens with TOKEN_INVALID, which does
// not show the cause.
type issuerWarning struct {
	logger *slog.Logger

	mu      sync.Mutex
	last    time.Time
	skipped int // since the last warning
}

// note logs one warning per issuerWarningInterval. The issuer of the token can be
// trusted: its signature was verified.
func (w *issuerWarning) note(now time.Time, ours, tokens string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last.IsZero() && now.Sub(w.last) < issuerWarningInterval {
		w.skipped++
		return
	}
	w.logger.LogAttrs(context.Background(), slog.LevelWarn,
		"access tokens refused: auth issues them for another public URL. Give auth and the gateway the same GATEHOUSE_PUBLIC_URL",
		slog.String("issuer", ours), slog.String("token_issuer", tokens), slog.Int("unlogged", w.skipped))
	w.last, w.skipped = now, 0
}
