package access

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// issuerWarningInterval is the least time between two warnings about one kind of
// misconfiguration that every call repeats.
const issuerWarningInterval = time.Minute

// issuerWarning logs that tokens with a valid signature of auth name another
// issuer than this gateway's public URL. Every such token is refused, and
// callers learn no more than TOKEN_INVALID.
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
