package policy

import (
	"errors"
	"fmt"
	"time"

	policyv1 "gatehouse/gen/policy/v1"
)

// Rate is the rate limit of a caller: Count calls in each Period, and a burst of Burst
// calls after a pause.
type Rate struct {
	Count, Burst int
	Period       time.Duration
}

func compileRate(declared *policyv1.Rate) (*Rate, error) {
	period, err := positive(declared.GetPeriod())
	rate := &Rate{Count: int(declared.GetCount()), Burst: int(declared.GetCount()), Period: period}
	if declared.Burst != nil {
		rate.Burst = int(declared.GetBurst())
	}
	if err != nil {
		return nil, fmt.Errorf("has a period that %w", err)
	}
	return rate, rate.check()
}

func (r *Rate) check() error {
	switch {
	case r.Count < 1:
		return errors.New("admits no call: use a count of at least 1")
	case r.Burst < 1:
		return errors.New("admits no call: use a burst of at least 1")
	case r.Period < time.Second || r.Period > maxRatePeriod:
		return fmt.Errorf("has a period of %s: use 1 s to 24 h", r.Period)
	}
	return nil
}

// within reports whether r allows no more than other does, over any time.
func (r *Rate) within(other *Rate) bool {
	return r.Burst <= other.Burst && float64(r.Count)*float64(other.Period) <= float64(other.Count)*float64(r.Period)
}

// String formats the rate as in the settings: "10/m", followed by the burst if it differs
// from the count.
func (r *Rate) String() string {
	text := fmt.Sprintf("%d/%s", r.Count, periodText(r.Period))
	if r.Burst != r.Count {
		text += fmt.Sprintf(" burst=%d", r.Burst)
	}
	return text
}

var periods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

func periodText(period time.Duration) string {
	for name, one := range periods {
		if one == period {
			return name
		}
	}
	return period.String()
}
