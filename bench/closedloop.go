package main

import (
	"context"
	"fmt"
	"io"
)

// closedLoops are the results of closed loops with increasing numbers of connections,
// with the load shedder on and off, in one process and in three.
type closedLoops struct {
	rounds map[loopKey][]turn
}

type loopKey struct {
	shape       string
	connections int
	off         bool
}

var (
	loopShapes      = []string{"one process", "three processes"}
	loopConnections = []int{16, 64, 256, 512}
)

// measureClosedLoops measures each system in every round. A client whose call is
// refused retries at once.
func (r *results) measureClosedLoops(ctx context.Context, h *stack, o options, progress io.Writer) error {
	m := &r.closedLoops
	m.rounds = map[loopKey][]turn{}
	freeBff, freeBffAt, err := h.begin(ctx, "bff-unheld", h.binary, "bff", append(h.peers, keepNothing, unheld)...)
	if err != nil {
		return err
	}
	defer freeBff.stop()
	freeServe, freeServeAt, err := h.begin(ctx, "serve-unheld", h.binary, "serve", keepNothing, unheld)
	if err != nil {
		return err
	}
	defer freeServe.stop()
	three, one := h.systems[threeProcesses], h.systems[oneProcess]
	systems := map[string][2]system{
		"three processes": {three, {address: freeBffAt, ask: three.ask, gateway: freeBff, servers: []*process{freeBff, h.auth, h.users}}},
		"one process":     {one, {address: freeServeAt, ask: one.ask, gateway: freeServe, servers: []*process{freeServe}}},
	}
	for round := range o.rounds {
		fmt.Fprintf(progress, "closed loops: round %d of %d\n", round+1, o.rounds)
		for _, shape := range loopShapes {
			for _, connections := range loopConnections {
				for i := range 2 { // each goes first every second time
					off := (round+i)%2 == 1
					which := 0
					if off {
						which = 1
					}
					o.connections = connections
					taken, err := h.measure(ctx, systems[shape][which], o)
					if err != nil {
						return err
					}
					key := loopKey{shape, connections, off}
					m.rounds[key] = append(m.rounds[key], taken)
				}
			}
		}
	}
	return nil
}

func (m *closedLoops) print(t *table) {
	if len(m.rounds) == 0 {
		return
	}
	for _, shape := range loopShapes {
		t.row("Closed loops, " + shape + ": GetMe per second (shedder off), share refused")
		for _, connections := range loopConnections {
			on, off := m.rounds[loopKey{shape, connections, false}], m.rounds[loopKey{shape, connections, true}]
			ratio := over(mapped(on, turn.rate), mapped(off, turn.rate))
			refused := mapped(on, func(t turn) float64 { return t.refused })
			// With this many connections, calls wait at most for the target of 250 ms.
			bears := float64(connections) <= median(mapped(off, turn.rate))/4
			name := fmt.Sprintf("  %d connections", connections)
			t.row(name, spread("%.0f", mapped(on, turn.rate)), spread("%.0f", mapped(off, turn.rate)), spread("%.3f", refused))
			aim, met := "≥ 0.95, none refused", median(ratio) >= 0.95 && median(refused) == 0
			if !bears {
				aim, met = "≥ 0.90", median(ratio) >= 0.9
			}
			t.judged(aim, met, "    on ÷ off; p99, ms", spread("%.2f", ratio),
				spread("%.0f", mapped(on, func(t turn) float64 { return t.percentile(99) })))
		}
	}
}
