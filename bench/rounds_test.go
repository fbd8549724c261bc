package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// turnsOf runs repeat with these rates and noises, the last of which repeat, and
// returns what counts and the number of rounds.
func turnsOf(t *testing.T, o options, rates, others []float64) (counted []float64, rounds int) {
	t.Helper()
	var turns []turn
	at := func(figures []float64, i int) float64 { return figures[min(i, len(figures)-1)] }
	rounds, err := o.repeat(io.Discard, "test", func(i int) error {
		turns = append(turns, turn{seconds: 1, gateway: time.Duration(at(rates, i)), others: at(others, i)})
		return nil
	}, func() [][]float64 {
		return [][]float64{mapped(turns, func(t turn) float64 { return float64(t.gateway) })}
	}, &turns)
	if err != nil {
		t.Fatal(err)
	}
	return mapped(turns, func(t turn) float64 { return float64(t.gateway) }), rounds
}

func TestRoundsRepeatUntilTheRatioIsSteady(t *testing.T) {
	t.Parallel()
	plenty := options{rounds: 3, until: time.Now().Add(time.Hour)}
	for _, one := range []struct {
		name          string
		o             options
		rates, others []float64
		want          []float64
		rounds        int
	}{
		{"steady at once", plenty, []float64{100, 105, 110}, []float64{0}, []float64{100, 105, 110}, 3},
		{"one noisy round", plenty, []float64{100, 150, 105, 110}, []float64{0, .5, 0, .1}, []float64{100, 105, 110}, 4},
		{"unsteady though quiet", plenty, []float64{100, 150, 200, 100, 150, 200, 100, 150, 200}, []float64{0}, []float64{100, 150, 200}, 9},
		{"no time", options{rounds: 3, until: time.Now()}, []float64{100}, []float64{0}, []float64{100}, 1},
	} {
		counted, rounds := turnsOf(t, one.o, one.rates, one.others)
		if !slices.Equal(counted, one.want) || rounds != one.rounds {
			t.Errorf("%s: %v counted after %d rounds, want %v after %d", one.name, counted, rounds, one.want, one.rounds)
		}
	}
}

func TestUnsteadyRatiosAreMarked(t *testing.T) {
	t.Parallel()
	table := newTable("figure")
	table.steady("≤ 2", true, []float64{1, 1.1}, "steady", "1.05")
	table.steady("≤ 2", false, []float64{1, 3}, "  unsteady", "2")
	table.row()
	var page strings.Builder
	if err := table.markdown(&page); err != nil {
		t.Fatal(err)
	}
	want := `|  | figure | aim | met |
| --- | --- | --- | --- |
| steady | 1.05 | ≤ 2 | yes |
| &nbsp;&nbsp;&nbsp;&nbsp;unsteady | 2 | ≤ 2 | NO (unsteady: range 100 %) |
`
	if !strings.HasPrefix(page.String(), want) || !strings.Contains(page.String(), "Aims missed: 1.") {
		t.Errorf("got\n%s\nwant\n%s", page.String(), want)
	}
}

func TestPartsShareTheTime(t *testing.T) {
	t.Parallel()
	s := newSchedule(options{within: time.Hour, only: "getme,cached"})
	first := time.Until(s.next("getme"))
	// getme took no time, so cached may use all of it.
	second := time.Until(s.next("cached"))
	if first > 40*time.Minute || second < 55*time.Minute {
		t.Errorf("getme may take %s and cached %s of an hour", first, second)
	}
}
