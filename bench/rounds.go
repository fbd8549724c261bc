package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// schedule divides the time of the whole run between the parts. The later parts share
// the time that a part does not use.
type schedule struct {
	end    time.Time
	shares map[string]float64 // of the parts that have not begun
}

func newSchedule(o options) *schedule {
	s := &schedule{end: time.Now().Add(o.within), shares: map[string]float64{}}
	if o.wants(startPart) {
		s.shares[startPart] = startShare
	}
	for _, part := range parts {
		if o.wants(part.name) {
			s.shares[part.name] = part.share
		}
	}
	return s
}

// next returns when the part that begins now should end.
func (s *schedule) next(part string) time.Time {
	total := 0.0
	for _, share := range s.shares {
		total += share
	}
	left := time.Until(s.end)
	until := time.Now().Add(time.Duration(float64(left) * s.shares[part] / total))
	delete(s.shares, part)
	return until
}

const (
	// maxRange is the range of a ratio, relative to its median, up to which it counts
	// as steady.
	maxRange = 0.15
	// maxRepeat bounds the rounds of a group, relative to -rounds.
	maxRepeat = 3
)

// repeat runs rounds until there are -rounds of them and the ratios of the quietest
// -rounds are steady, the time of the group is over, or there are maxRepeat times as
// many. It runs at least one. The series hold the group's turns, one for each round;
// afterwards they hold those of the quietest rounds, so that which rounds count does
// not depend on the result. It returns the number of rounds that it ran.
func (o options) repeat(progress io.Writer, name string, round func(int) error, ratios func() [][]float64, series ...*[]turn) (int, error) {
	began := time.Now()
	for i := 0; ; i++ {
		// One more round takes about as long as those before.
		expected := time.Duration(0)
		if i > 0 {
			expected = time.Since(began) / time.Duration(i)
		}
		over := i > 0 && time.Now().Add(expected/2).After(o.until)
		if over || i >= maxRepeat*o.rounds || i >= o.rounds && steady(o.quietestOf(ratios, series)) {
			keepQuietest(o.rounds, series)
			return i, nil
		}
		fmt.Fprintf(progress, "%s: round %d\n", name, i+1)
		if err := round(i); err != nil {
			return i, err
		}
		if noise := lastNoise(series); noise > quietShare {
			fmt.Fprintf(progress, "  warning: other processes used %.0f %% of the machine's CPU\n", 100*noise)
		}
	}
}

// lastNoise returns the share of CPU that other processes used in the noisiest turn of
// the last round.
func lastNoise(series []*[]turn) float64 {
	noise := 0.0
	for _, turns := range series {
		if n := len(*turns); n > 0 {
			noise = max(noise, (*turns)[n-1].others)
		}
	}
	return noise
}

// noRatios is for a group that has no ratio to be steady.
func noRatios() [][]float64 { return nil }

// quietestOf returns the ratios of the quietest rounds, and leaves the series as they
// are.
func (o options) quietestOf(ratios func() [][]float64, series []*[]turn) [][]float64 {
	var before [][]turn
	for _, turns := range series {
		before = append(before, *turns)
	}
	keepQuietest(o.rounds, series)
	found := ratios()
	for i, turns := range series {
		*turns = before[i]
	}
	return found
}

// keepQuietest removes all but the quietest rounds: those with the least CPU time of
// other processes in their noisiest turn.
func keepQuietest(count int, series []*[]turn) {
	rounds := math.MaxInt
	for _, turns := range series {
		rounds = min(rounds, len(*turns))
	}
	if len(series) == 0 || rounds <= count {
		return
	}
	noise, order := make([]float64, rounds), make([]int, rounds)
	for i := range rounds {
		order[i] = i
		for _, turns := range series {
			noise[i] = max(noise[i], (*turns)[i].others)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case noise[a] < noise[b]:
			return -1
		case noise[a] > noise[b]:
			return 1
		}
		return 0
	})
	kept := slices.Sorted(slices.Values(order[:count]))
	for _, turns := range series {
		var quiet []turn
		for _, i := range kept {
			quiet = append(quiet, (*turns)[i])
		}
		*turns = quiet
	}
}

// steady reports whether the range of each ratio is small. A ratio without rounds is
// one that can't be measured here.
func steady(ratios [][]float64) bool {
	for _, ratio := range ratios {
		if len(ratio) > 0 && rangeOf(ratio) >= maxRange {
			return false
		}
	}
	return true
}

// rangeOf returns the difference of the largest and the smallest figure, relative to
// their median.
func rangeOf(figures []float64) float64 {
	return (slices.Max(figures) - slices.Min(figures)) / median(figures)
}
