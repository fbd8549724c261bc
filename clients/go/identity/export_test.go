package identity

import "time"

const (
	MinInterval   = minInterval
	RetryInterval = retryInterval
	RefreshAfter  = refreshAfter
	FetchTimeout  = fetchTimeout
)

// SetClock replaces a verifier's clock.
func SetClock(v *Verifier, now func() time.Time) { v.now, v.keys.now = now, now }
