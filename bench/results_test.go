package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// measured returns results of two rounds of every part that a page shows.
func measured() *results {
	fast := turn{seconds: 1, latencies: []time.Duration{time.Millisecond, 2 * time.Millisecond}, gateway: time.Millisecond, servers: 2 * time.Millisecond}
	turns := []turn{fast, fast}
	figures := []float64{1, 1.1}
	r := &results{load: "0.00 0.00 0.00", noise: []float64{0.01, 0.5}, size: 52e6, getMeRounds: 3}
	for which := range systemCount {
		r.turns[which], r.many[which] = turns, turns
	}
	for which := range barePartsCount {
		r.bareParts.turns[which] = turns
	}
	for which := range cachedCount {
		r.cached.turns[which] = turns
	}
	r.closedLoops.turns = map[loopKey]*[]turn{}
	for _, shape := range loopShapes {
		for _, connections := range loopConnections {
			for _, off := range []bool{false, true} {
				r.closedLoops.turns[loopKey{shape, connections, off}] = &turns
			}
		}
	}
	r.overload = overload{peak: figures, peakCPU: figures, cost: figures, offered: map[float64]*offered{}, mixed: map[float64]*mixed{}}
	for _, factor := range append([]float64{1}, overloadFactors...) {
		r.overload.offered[factor] = &offered{rate: figures, goodput: figures, perCPU: figures, p50: figures, p99: figures, refused: figures, refusedP99: figures}
	}
	for _, factor := range mixedFactors {
		r.overload.mixed[factor] = &mixed{critical: figures, sheddable: figures}
	}
	r.neighbour = neighbour{offered: figures, limited: figures, shed: figures, calmP99: figures, floodedP99: figures, calm: figures, flooded: figures}
	r.roundTrips = roundTrips{refresh: figures, login: figures, hot: figures, announced: figures}
	r.laterStart, r.firstStart = figures, figures
	return r
}

func TestAPageAndAPlotAreWritten(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	o := options{results: filepath.Join(folder, "benchmarks"), plot: filepath.Join(folder, "overload.svg")}
	var text strings.Builder
	if err := measured().write(&text, o); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(o.results, time.Now().UTC().Format(time.DateOnly)+".md"))
	if err != nil {
		t.Fatal(err)
	}
	cells := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		if cells == 0 {
			cells = strings.Count(line, "|")
		}
		if strings.Count(line, "|") != cells {
			t.Errorf("%d cells instead of %d: %s", strings.Count(line, "|"), cells, line)
		}
	}
	for _, want := range []string{"32 connections", "512 connections", "offered 3.0 times", "Noisy neighbour", "Refresh", "WARNING"} {
		if !strings.Contains(string(page), want) || !strings.Contains(text.String(), want) {
			t.Errorf("no %q in the page or the text:\n%s", want, text.String())
		}
	}
	if plot, err := os.ReadFile(o.plot); err != nil || strings.Count(string(plot), "<polyline") != 7 {
		t.Errorf("the plot has %d lines, want 7: %v", strings.Count(string(plot), "<polyline"), err)
	}
}

func TestAPlotNeedsBothParts(t *testing.T) {
	t.Parallel()
	err := (&results{}).write(io.Discard, options{plot: filepath.Join(t.TempDir(), "overload.svg")})
	if err == nil {
		t.Error("a plot of nothing was drawn")
	}
}
