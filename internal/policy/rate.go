package policy

import (
	"errors"
	"fmt"
	"time"

	policyv1 "gatehouse/gen/policy/v1"
)

// Rate is how often one caller may call: Count calls in each Period, and after a pause
// Burst at once.
type Rate struct {
	Count, Burst int
	Period       time.Duration
}

func compileRate(said *policyv1.Rate) (*Rate, error) {
	period, err := positive(said.GetPeriod())
	rate := &Rate{Count: int(said.GetCount()), Burst: int(said.GetCount()), Period: period}
	if said.Burst != nil {
		rate.Burst = int(said.GetBurst())
	}
	if err != nil {
		return nil, fmt.Errorf("has a period that %w", err)
	}
	return rate, rate.check()
}

func (r *Rate) check() error {
	switch {
	case r.Count < 1:
		return errors.New("lets no call through: say a count of at least 1")
	case r.Burst < 1:
		return errors.New("lets no call through: say a burst of at least 1")
	case r.Period < time.Second || r.Period > maxRatePeriod:
		return fmt.Errorf("has a period of %s: say 1 s to 24 h", r.Period)
	}
	return nil
}

// within reports whether r allows no more than other does, over any time.
func (r *Rate) within(other *Rate) bool {
	return r.Burst <= other.Burst && float64(r.Count)*float64(other.Period) <= float64(other.Count)*float64(r.Period)
}

// String writes it as settings do: "10/m", and what may come at once if that is
// another number.
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
