package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
)

// neighbour are the results of each round for people who call at a low rate, with and
// without a principal who floods the gateway.
type neighbour struct {
	apart               bool
	offered             []float64 // calls a second of the flood
	limited, shed       []float64 // share of the flood refused by the rate, by the load shedder
	calmP99, floodedP99 []float64 // of the others, in ms
	calm, flooded       []float64 // share of the others' calls that succeeded
}

// neighbourRate is the calls a second of all others together.
const neighbourRate = 100

// measureNeighbour sends the flood of one account at three times the rate that the
// gateway reaches with everybody's calls.
func (r *results) measureNeighbour(ctx context.Context, h *stack, o options, progress io.Writer) (err error) {
	m := &r.neighbour
	s, apart, release, err := h.apart(ctx)
	if err != nil {
		return err
	}
	m.apart = apart
	defer func() { err = errors.Join(err, release()) }()
	round := func(round int) error {
		full, err := h.measure(ctx, s, o)
		if err != nil {
			return err
		}
		rate := highest * full.rate()
		m.offered = append(m.offered, rate)
		for turn := range 2 { // each goes first every second time
			if err := m.turn(ctx, h, s, o.length*3/2, rate, (round+turn)%2 == 1); err != nil {
				return fmt.Errorf("%w: %s", err, s.gateway.logTail())
			}
		}
		return nil
	}
	_, err = o.repeat(progress, "noisy neighbour", round, noRatios)
	return err
}

func (m *neighbour) turn(ctx context.Context, h *stack, s system, length time.Duration, rate float64, flooded bool) error {
	var flood, others *outcome
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		others, err = offer(ctx, s.address, length, neighbourRate, s.ask.ofAll(h.people[1:], s.address))
		return err
	})
	if flooded {
		group.Go(func() (err error) {
			flood, err = offer(ctx, s.address, length, rate, s.ask.ofAll(h.people[:1], s.address))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if !flooded {
		m.calm, m.calmP99 = append(m.calm, others.answered()), append(m.calmP99, others.accepted(99))
		return nil
	}
	m.flooded, m.floodedP99 = append(m.flooded, others.answered()), append(m.floodedP99, others.accepted(99))
	all := float64(max(1, len(flood.answeredAfter)+len(flood.refusedAfter)+flood.limited))
	m.limited, m.shed = append(m.limited, float64(flood.limited)/all), append(m.shed, float64(len(flood.refusedAfter))/all)
	return nil
}

func (m *neighbour) print(t *table) {
	if len(m.flooded) == 0 {
		return
	}
	where := ""
	if !m.apart {
		where = "; the load shares one core"
	}
	t.row("Noisy neighbour, three processes: calls/s of one account (share refused by its rate; shed)"+where,
		spread("%.0f", m.offered), spread("%.2f", m.limited), spread("%.2f", m.shed))
	t.judged("≥ 0.99", median(m.flooded) >= 0.99, fmt.Sprintf("  %d GetMe/s of others during the flood: share answered (without it)", neighbourRate),
		spread("%.3f", m.flooded), spread("%.3f", m.calm))
	bound := 250 + 2*median(m.calmP99)
	t.judged(fmt.Sprintf("< %.0f", bound), median(m.floodedP99) < bound, "    p99, ms (without it)", spread("%.1f", m.floodedP99), spread("%.1f", m.calmP99))
}
