package main

import (
	"context"
	"fmt"
	"io"
)

// halfLoad is the latency that the gateway adds to GetMe's slowest part at half its
// capacity.
type halfLoad struct {
	rate                 []float64 // requests a second
	whole, part, between []float64 // p99 of GetMe, of its slowest part, and of the difference, in ms
	halfway              []float64 // p50 of the difference
}

// measureHalfLoad sends requests to the three processes at fixed times. The duration
// of the parts comes from each response's Server-Timing; the rest is the gateway's own
// and the load generator's.
func (r *results) measureHalfLoad(ctx context.Context, h *stack, o options, progress io.Writer) error {
	s := h.systems[threeProcesses]
	_, err := o.repeat(progress, "half load", func(int) error {
		full, err := h.measure(ctx, s, o)
		if err != nil {
			return err
		}
		rate := full.rate() / 2
		got, err := offer(ctx, s.address, 2*o.length, rate, s.ask.ofAll(h.people, s.address))
		if err != nil {
			return fmt.Errorf("%w: %s", err, s.gateway.logTail())
		}
		m := &r.halfLoad
		m.rate = append(m.rate, rate)
		m.whole, m.part = append(m.whole, percentileOf(got.whole, 99)), append(m.part, percentileOf(got.part, 99))
		m.between, m.halfway = append(m.between, percentileOf(got.between, 99)), append(m.halfway, percentileOf(got.between, 50))
		return nil
	}, noRatios)
	return err
}

func (m *halfLoad) print(t *table) {
	if len(m.rate) == 0 {
		return
	}
	t.row("Three processes at half their capacity: GetMe per second", spread("%.0f", m.rate))
	t.row("  p99, ms (of its slowest part)", spread("%.2f", m.whole), spread("%.2f", m.part))
	t.row("  beyond the slowest part, ms: p50", spread("%.2f", m.halfway))
	t.judged("≤ 1", median(m.between) <= 1, "    p99", spread("%.2f", m.between))
}
