package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// overload are the results of each round at more load than a gateway's capacity.
type overload struct {
	apart    bool      // the servers and the load had cores of their own
	alone    []float64 // p99 of GetMe at a tenth of the peak, in ms
	aloneP50 []float64
	peak     []float64 // answers a second, at the best
	goodput  []float64 // answers a second at overloadFactor times that
	peakCPU  []float64 // answers for each CPU-second of all servers and Postgres
	overCPU  []float64
	p50, p99 []float64 // of successful calls, in ms
	refused  []float64 // p99 of the refusals, in ms
	cost     []float64 // CPU of a refusal over that of an answer
	// The share of successful critical calls, and of sheddable ones, when a quarter of
	// the load is critical.
	critical, sheddable []float64
}

const (
	overloadFactor = 3
	overloadRounds = 5
	overloadStep   = 1.25
	sheddableShare = 0.25
)

// measureOverload sends a gateway more requests than the system's capacity, at fixed
// times. The servers, with Postgres, have one half of the cores and the load generator
// the other, so that sending takes no CPU from serving.
func (r *results) measureOverload(ctx context.Context, h *stack, o options, progress io.Writer) (err error) {
	s, release, err := h.apart(ctx, &r.overload)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	capacity := 0.0
	for round := range min(o.rounds, overloadRounds) {
		fmt.Fprintf(progress, "overload: round %d\n", round+1)
		if err := h.refresh(ctx); err != nil {
			return err
		}
		requests := s.ask.ofAll(h.people, s.address)
		if capacity == 0 {
			if capacity, err = findCapacity(ctx, s.address, requests, o.length/2); err != nil {
				return fmt.Errorf("%w: %s", err, s.gateway.lastWords())
			}
		}
		if capacity, err = r.overload.round(ctx, h, s, requests, o, capacity); err != nil {
			return fmt.Errorf("%w: %s", err, s.gateway.lastWords())
		}
		for _, p := range s.servers {
			p.forget()
		}
	}
	return nil
}

// round returns the peak near the given capacity.
func (m *overload) round(ctx context.Context, h *stack, s system, requests [][]byte, o options, capacity float64) (float64, error) {
	length := 2 * o.length
	var best spent
	for _, factor := range []float64{1, overloadStep} {
		got, err := h.offer(ctx, s, length, factor*capacity, requests)
		if err != nil {
			return 0, err
		}
		if best.outcome == nil || got.goodput() > best.goodput() {
			best = got
		}
	}
	peak := best.goodput()
	over, err := h.offer(ctx, s, length, overloadFactor*peak, requests)
	if err != nil {
		return 0, err
	}
	alone, err := h.offer(ctx, s, length, peak/10, requests)
	if err != nil {
		return 0, err
	}
	m.peak, m.peakCPU = append(m.peak, peak), append(m.peakCPU, best.perCPU)
	m.goodput, m.overCPU = append(m.goodput, over.goodput()), append(m.overCPU, over.perCPU)
	m.aloneP50, m.alone = append(m.aloneP50, alone.accepted(50)), append(m.alone, alone.accepted(99))
	m.p50, m.p99 = append(m.p50, over.accepted(50)), append(m.p99, over.accepted(99))
	m.refused = append(m.refused, percentileOf(over.refusedAfter, 99))
	// CPU beyond the cost of successful calls at the peak was spent on refusals.
	answer := 1 / best.perCPU
	m.cost = append(m.cost, max(0, float64(over.all)/over.perCPU-float64(over.all)*answer)/float64(max(1, over.refusedAll))/answer)
	return peak, m.mix(ctx, s, requests, auditEvents.ofAll(h.people, s.address), length, overloadFactor*peak)
}

// mix sends critical and sheddable calls together.
func (m *overload) mix(ctx context.Context, s system, critical, sheddable [][]byte, length time.Duration, rate float64) error {
	var waited, others *outcome
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		waited, err = offer(ctx, s.address, length, rate*(1-sheddableShare), critical)
		return err
	})
	group.Go(func() (err error) {
		others, err = offer(ctx, s.address, length, rate*sheddableShare, sheddable)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	m.critical, m.sheddable = append(m.critical, waited.answered()), append(m.sheddable, others.answered())
	return nil
}

// answered returns the share of successful calls.
func (o *outcome) answered() float64 {
	return float64(len(o.answeredAfter)) / float64(max(1, len(o.answeredAfter)+len(o.refusedAfter)))
}

// findCapacity raises the load until throughput stops growing.
func findCapacity(ctx context.Context, address string, requests [][]byte, length time.Duration) (float64, error) {
	best := 0.0
	for rate := 300.0; ; rate *= overloadStep {
		got, err := offer(ctx, address, length, rate, requests)
		if err != nil {
			return 0, err
		}
		best = max(best, got.goodput())
		if got.goodput() < 0.8*rate {
			return best, nil
		}
	}
}

// spent is an outcome and its CPU time.
type spent struct {
	*outcome
	perCPU float64 // answers for each CPU-second of all servers and Postgres
}

// offer calls the function of that name and measures the servers' CPU time.
func (h *stack) offer(ctx context.Context, s system, length time.Duration, rate float64, requests [][]byte) (spent, error) {
	before, _, err := h.usage(s)
	if err != nil {
		return spent{}, err
	}
	got, err := offer(ctx, s.address, length, rate, requests)
	if err != nil {
		return spent{}, err
	}
	after, _, err := h.usage(s)
	if err != nil {
		return spent{}, err
	}
	used := after.servers + after.postgres - before.servers - before.postgres
	return spent{got, float64(got.all) / used.Seconds()}, nil
}

// apart starts a gateway, auth and users on one half of the cores, and moves Postgres
// there and bench to the other half until release is called.
func (h *stack) apart(ctx context.Context, m *overload) (s system, release func() error, err error) {
	cores, err := ownCores()
	if err != nil {
		return s, nil, err
	}
	servers, load := cores, cores
	if half := len(cores) / 2; half > 0 {
		servers, load = cores[:half], cores[half:]
		m.apart = true
	}
	database, err := h.postgres()
	if err != nil {
		return s, nil, err
	}
	move := func(mine, its []int) error {
		err := pin(os.Getpid(), mine)
		for _, pid := range database {
			if failure := pin(pid, its); !errors.Is(failure, os.ErrNotExist) {
				err = errors.Join(err, failure)
			}
		}
		return err
	}
	release = func() error {
		for _, p := range s.servers {
			p.stop()
		}
		return move(cores, cores)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()
	if err := move(load, servers); err != nil {
		return s, nil, err
	}
	// Processes that the main thread starts inherit its cores.
	if err := pinThread(0, servers); err != nil {
		return s, nil, err
	}
	users, auth, peers, err := h.services(ctx, "-apart")
	if err != nil {
		return s, nil, err
	}
	gateway, address, err := h.begin(ctx, "bff-apart", h.binary, "bff", append(peers, keepNothing)...)
	if err != nil {
		return s, nil, err
	}
	s = system{address: address, ask: overProto, gateway: gateway, servers: []*process{gateway, auth, users}}
	return s, release, pinThread(0, load)
}

// print writes the rows on overload.
func (m *overload) print(t *table) {
	if len(m.peak) == 0 {
		return
	}
	where := "the load has cores of its own"
	if !m.apart {
		where = "beside the load, on one core"
	}
	t.row("Three processes: GetMe per second at the peak, open loop; "+where, spread("%.0f", m.peak))
	share := over(m.goodput, m.peak)
	t.judged("≥ 0.90", median(share) >= 0.9, fmt.Sprintf("  offered %d times as much: answers ÷ the peak", overloadFactor), spread("%.2f", share))
	t.row("    answers per CPU-second, Postgres too, ÷ those at the peak", spread("%.2f", over(m.overCPU, m.peakCPU)))
	t.row("  p50 of successful calls, ms (a tenth of the peak)", spread("%.1f", m.p50), spread("%.1f", m.aloneP50))
	bound := 250 + 2*median(m.alone)
	t.judged(fmt.Sprintf("< %.0f", bound), median(m.p99) < bound, "  p99 of successful calls, ms (a tenth of the peak)", spread("%.1f", m.p99), spread("%.1f", m.alone))
	t.row("  p99 of refusals, ms", spread("%.1f", m.refused))
	t.judged("≤ 0.04", median(m.cost) <= 0.04, "  CPU of a refusal ÷ that of an answer", spread("%.3f", m.cost))
	t.judged("the latter first", median(m.sheddable) < median(m.critical), "  a quarter of it sheddable: share answered of the critical (of the sheddable)",
		spread("%.2f", m.critical), spread("%.2f", m.sheddable))
}
