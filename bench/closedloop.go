package main

import (
	"context"
	"fmt"
	"io"
)

// closedLoops are the results of closed loops with increasing numbers of connections,
// with the load shedder on and off, in one process and in three.
type closedLoops struct {
	turns  map[loopKey]*[]turn
	rounds int
}

type loopKey struct {
	shape       string
	connections int
	off         bool
}

var (
	loopShapes      = []string{"one process", "three processes"}
	loopConnections = []int{8, 32, 128, 512}
)

// measureClosedLoops measures each system in every round. A client whose call is
// refused retries at once.
func (r *results) measureClosedLoops(ctx context.Context, h *stack, o options, progress io.Writer) error {
	m := &r.closedLoops
	m.turns = map[loopKey]*[]turn{}
	freeBff, freeBffAt, err := h.begin(ctx, "bff-unthrottled", h.binary, "bff", append(h.peers, noCache, unthrottled)...)
	if err != nil {
		return err
	}
	defer freeBff.stop()
	freeServe, freeServeAt, err := h.begin(ctx, "serve-unthrottled", h.binary, "serve", noCache, unthrottled)
	if err != nil {
		return err
	}
	defer freeServe.stop()
	three, one := h.systems[threeProcesses], h.systems[oneProcess]
	systems := map[string][2]system{
		"three processes": {three, {address: freeBffAt, ask: three.ask, gateway: freeBff, servers: append([]*process{freeBff}, h.services...)}},
		"one process":     {one, {address: freeServeAt, ask: one.ask, gateway: freeServe, servers: []*process{freeServe}}},
	}
	var series []*[]turn
	for _, shape := range loopShapes {
		for _, connections := range loopConnections {
			for _, off := range []bool{false, true} {
				turns := new([]turn)
				m.turns[loopKey{shape, connections, off}] = turns
				series = append(series, turns)
			}
		}
	}
	round := func(round int) error {
		for _, shape := range loopShapes {
			for _, connections := range loopConnections {
				for i := range 2 { // each goes first every second time
					which := (round + i) % 2
					o.connections = connections
					taken, err := h.measure(ctx, systems[shape][which], o)
					if err != nil {
						return err
					}
					turns := m.turns[loopKey{shape, connections, which == 1}]
					*turns = append(*turns, taken)
				}
			}
		}
		return nil
	}
	m.rounds, err = o.repeat(progress, "closed loops", round, func() [][]float64 {
		var all [][]float64
		for _, shape := range loopShapes {
			for _, connections := range loopConnections {
				all = append(all, m.ratio(shape, connections))
			}
		}
		return all
	}, series...)
	return err
}

// of returns the turns with the load shedder on or off.
func (m *closedLoops) of(shape string, connections int, off bool) []turn {
	return *m.turns[loopKey{shape, connections, off}]
}

// ratio returns the goodput relative to that without the load shedder.
func (m *closedLoops) ratio(shape string, connections int) []float64 {
	return over(mapped(m.of(shape, connections, false), turn.rate), mapped(m.of(shape, connections, true), turn.rate))
}

func (m *closedLoops) print(t *table) {
	if len(m.turns) == 0 {
		return
	}
	p99 := func(t turn) float64 { return t.percentile(99) }
	for _, shape := range loopShapes {
		t.row("Closed loops, "+shape, "GetMe/s", "shedder off", "share refused", "p99, ms", "p99, off")
		for _, connections := range loopConnections {
			on, off, ratio := m.of(shape, connections, false), m.of(shape, connections, true), m.ratio(shape, connections)
			refused := mapped(on, func(t turn) float64 { return t.refused })
			t.row(fmt.Sprintf("  %d connections", connections), spread("%.0f", mapped(on, turn.rate)), spread("%.0f", mapped(off, turn.rate)),
				spread("%.3f", refused), spread("%.0f", mapped(on, p99)), spread("%.0f", mapped(off, p99)))
			// With this many connections, calls wait at most for the target of 250 ms.
			aim, met := "≥ 0.95, none refused", median(ratio) >= 0.95 && median(refused) == 0
			if bears := float64(connections) <= median(mapped(off, turn.rate))/4; !bears {
				aim, met = "≥ 0.90", median(ratio) >= 0.9
			}
			t.steady(aim, met, ratio, "    goodput ÷ that with the shedder off", spread("%.2f", ratio))
		}
	}
	t.rounds("closed loops", m.rounds, len(m.of(loopShapes[0], loopConnections[0], false)))
}
