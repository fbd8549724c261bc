package doctor

import (
	"fmt"
	"time"

	"gatehouse/internal/rpc"
)

// maxClockOffset is the difference of two clocks that is reported, well below the
// one for which calls are refused.
const maxClockOffset = 5 * time.Second

// clock compares a clock, read between asked and now, with ours. coarse is its
// resolution. It returns false if calls would be refused because of the difference:
// then no other check that calls the service can succeed.
func (r *Report) clock(subject string, theirs, asked time.Time, coarse time.Duration) (usable bool) {
	ahead, behind := time.Until(theirs), asked.Sub(theirs)-coarse
	offset, word := ahead, "ahead of"
	if behind > ahead {
		offset, word = behind, "behind"
	}
	problem := fmt.Sprintf("its clock is %s %s ours", offset.Round(time.Second), word)
	const fix = "set both machines' clocks by NTP"
	switch {
	case offset > rpc.ClockSkew:
		r.Problem(subject, fmt.Sprintf("%s: beyond %s, calls between services and fresh access tokens are refused", problem, rpc.ClockSkew), fix)
		return false
	case offset > maxClockOffset:
		r.Problem(subject, problem, fix)
	}
	return true
}
