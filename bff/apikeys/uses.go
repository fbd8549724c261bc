package apikeys

import (
	"context"
	"log/slog"
	"slices"
	"time"

	authv1 "gatehouse/gen/auth/v1"
)

const (
	// reportInterval is how often the uses of keys are reported to auth.
	reportInterval = time.Minute
	// reportedAtOnce is how many auth takes in a message.
	reportedAtOnce = 1000
	// lastReportLimit bounds the report of a gateway that stops.
	lastReportLimit = time.Second
)

// Run reports when keys were last used, until ctx ends, and then once more.
func (v *Verifier) Run(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(reportInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			if err := v.Report(ctx); err != nil && ctx.Err() == nil {
				logger.LogAttrs(ctx, slog.LevelWarn, "API keys: last uses not reported", slog.String("cause", err.Error()))
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastReportLimit)
	defer cancel()
	_ = v.Report(ctx) // auth may have stopped before
}

// Report reports the uses since the last report. Those of a failed report are lost: the
// next use of the key is reported.
func (v *Verifier) Report(ctx context.Context) error {
	v.mu.Lock()
	used := v.used
	v.used = nil
	v.mu.Unlock()
	now := v.Now()
	var failure error
	for some := range slices.Chunk(used, reportedAtOnce) {
		request := &authv1.TouchKeysRequest{}
		for _, key := range some {
			key.reported.Store(false)
			age := min(max(now.Sub(time.Unix(0, key.at.Load())), 0), time.Hour)
			request.Uses = append(request.Uses, &authv1.KeyUse{KeyId: key.who.SessionID, Age: age.Seconds(), IpAddress: *key.address.Load()})
		}
		if err := v.Touch(ctx, request); err != nil {
			failure = err
		}
	}
	return failure
}
