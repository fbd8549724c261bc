package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"gatehouse/bench/plot"
)

// queueTarget is the gateway's default queueing delay, in ms.
const queueTarget = 250

// draw writes the plot of goodput and p99 against the load: open loops on the left,
// closed loops of the three processes on the right.
func (r *results) draw(path string) error {
	if len(r.overload.peak) == 0 || len(r.closedLoops.turns) == 0 {
		return errors.New("it needs the parts overload and closedloop")
	}
	goodput, p99 := r.overload.lines()
	const offered, connections = "offered, calls per second", "connections, each with one call at a time"
	shape := loopShapes[1]
	rate, latency := turn.rate, func(t turn) float64 { return t.percentile(99) }
	charts := []plot.Chart{
		{Title: "Open loop: goodput", XLabel: offered, YLabel: "answers per second", Lines: goodput},
		{Title: "Closed loop: goodput", XLabel: connections, YLabel: "answers per second", LogX: true, Lines: r.closedLoops.lines(shape, rate)},
		{Title: "Open loop: p99 of successful calls", XLabel: offered, YLabel: "ms", Lines: p99,
			Mark: queueTarget + 2*median(r.overload.offered[unloaded].p99), MarkLabel: "the target plus twice the unloaded p99"},
		{Title: "Closed loop: p99 of successful calls", XLabel: connections, YLabel: "ms", LogX: true, Lines: r.closedLoops.lines(shape, latency)},
	}
	text := plot.SVG("Goodput and p99 of GetMe in three processes against the offered load, in open and in closed loops.", r.caption(), charts)
	return os.WriteFile(path, []byte(text), 0o644)
}

// caption says when the run was, and how much it was disturbed.
func (r *results) caption() string {
	return fmt.Sprintf("%s, %d cores. %s", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), noiseLine(r.noise))
}

// lines returns the goodput and the p99 at each load.
func (m *overload) lines() (goodput, p99 []plot.Line) {
	factors := []float64{1}
	factors = slices.Sorted(slices.Values(append(factors, overloadFactors...)))
	answered, refused := plot.Line{Name: "answered"}, plot.Line{Name: "refused"}
	slow := plot.Line{Name: "answered"}
	for _, factor := range factors {
		o := m.offered[factor]
		rate := median(o.rate)
		answered.X, refused.X, slow.X = append(answered.X, rate), append(refused.X, rate), append(slow.X, rate)
		answered.Y, refused.Y = append(answered.Y, median(o.goodput)), append(refused.Y, median(o.refused)*rate)
		slow.Y = append(slow.Y, median(o.p99))
	}
	return []plot.Line{answered, refused}, []plot.Line{slow}
}

// lines returns a figure for each number of connections, with the load shedder on and
// off.
func (m *closedLoops) lines(shape string, figure func(turn) float64) []plot.Line {
	on, off := plot.Line{Name: "load shedder on"}, plot.Line{Name: "off"}
	for _, connections := range loopConnections {
		for line, turns := range map[*plot.Line][]turn{&on: m.of(shape, connections, false), &off: m.of(shape, connections, true)} {
			line.X, line.Y = append(line.X, float64(connections)), append(line.Y, median(mapped(turns, figure)))
		}
	}
	return []plot.Line{on, off}
}
