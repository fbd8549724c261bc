package app

import (
	"fmt"
	"time"

	"gatehouse/internal/rpc"
)

// maxClockOffset is from when doctor reports that two clocks differ, well before
// calls are refused for it.
const maxClockOffset = 5 * time.Second

// clock compares a clock, read between asked and now, with ours. It may be coarse
// by so much. It returns false where calls would be refused for the difference, so
// that nothing else can be said of them.
func (e *examination) clock(part string, theirs, asked time.Time, coarse time.Duration) (usable bool) {
	ahead, behind := time.Until(theirs), asked.Sub(theirs)-coarse
	offset, word := ahead, "ahead of"
	if behind > ahead {
		offset, word = behind, "behind"
	}
	fault := fmt.Sprintf("its clock is %s %s ours", offset.Round(time.Second), word)
	const mend = "set both machines' clocks by NTP"
	switch {
	case offset > rpc.ClockSkew:
		e.fault(part, fmt.Sprintf("%s: beyond %s, calls between services and fresh access tokens are refused", fault, rpc.ClockSkew), mend)
		return false
	case offset > maxClockOffset:
		e.fault(part, fault, mend)
	}
	return true
}
