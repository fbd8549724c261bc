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

// overload are the results of open loops relative to the peak.
type overload struct {
	apart   bool      // the servers and the load had cores of their own
	peak    []float64 // answers a second, at the best
	peakCPU []float64 // answers for each CPU-second of all servers and Postgres
	cost    []float64 // CPU of a refusal over that of an answer, at the highest load
	offered map[float64]*offered
	mixed   map[float64]*mixed
	rounds  int
}

// offered are the results of each round at one load.
type offered struct {
	rate, goodput []float64 // a second
	perCPU        []float64 // answers for each CPU-second of all servers and Postgres
	p50, p99      []float64 // of successful calls, in ms
	refused       []float64 // share of the calls
	refusedP99    []float64 // ms until a refusal
}

// mixed are the shares of successful calls when a quarter of the load is sheddable.
type mixed struct{ critical, sheddable []float64 }

// The loads, relative to the peak. unloaded is one at which calls hardly meet.
const (
	unloaded = 0.1
	highest  = 3
)

var (
	overloadFactors = []float64{unloaded, 0.5, 0.9, 1.5, highest}
	mixedFactors    = []float64{1.5, highest}
)

const (
	overloadStep   = 1.25
	sheddableShare = 0.25
)

// measureOverload sends a gateway requests at fixed times, up to three times as many
// as it can answer. The servers, with Postgres, have one half of the cores and the load
// generator the other, so that sending takes no CPU from serving.
func (r *results) measureOverload(ctx context.Context, h *stack, o options, progress io.Writer) (err error) {
	m := &r.overload
	m.offered, m.mixed = map[float64]*offered{}, map[float64]*mixed{}
	s, apart, release, err := h.apart(ctx)
	if err != nil {
		return err
	}
	m.apart = apart
	defer func() { err = errors.Join(err, release()) }()
	capacity := 0.0
	round := func(int) error {
		if err := h.refresh(ctx); err != nil {
			return err
		}
		requests := s.ask.ofAll(h.people, s.address)
		if capacity == 0 {
			if capacity, err = findCapacity(ctx, s.address, requests, o.length/2); err != nil {
				return fmt.Errorf("%w: %s", err, s.gateway.logTail())
			}
		}
		if capacity, err = m.round(ctx, h, s, requests, o.length*3/2, capacity); err != nil {
			return fmt.Errorf("%w: %s", err, s.gateway.logTail())
		}
		for _, p := range s.servers {
			p.forget()
		}
		return nil
	}
	m.rounds, err = o.repeat(progress, "overload", round, func() [][]float64 {
		return [][]float64{over(m.offered[highest].goodput, m.peak)}
	})
	return err
}

// round returns the peak near the given capacity.
func (m *overload) round(ctx context.Context, h *stack, s system, requests [][]byte, length time.Duration, capacity float64) (float64, error) {
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
	m.peak, m.peakCPU = append(m.peak, peak), append(m.peakCPU, best.perCPU)
	m.at(1).add(best, peak)
	for _, factor := range overloadFactors {
		got, err := h.offer(ctx, s, length, factor*peak, requests)
		if err != nil {
			return 0, err
		}
		m.at(factor).add(got, factor*peak)
		if factor == highest && got.refusedAll > 0 {
			// CPU beyond the cost of successful calls at the peak was spent on refusals.
			answer := 1 / best.perCPU
			refusal := max(0, float64(got.all)/got.perCPU-float64(got.all)*answer) / float64(got.refusedAll)
			m.cost = append(m.cost, refusal/answer)
		}
	}
	sheddable := auditEvents.ofAll(h.people, s.address)
	for _, factor := range mixedFactors {
		if err := m.mix(ctx, s, requests, sheddable, length, factor, peak); err != nil {
			return 0, err
		}
	}
	return peak, nil
}

func (m *overload) at(factor float64) *offered {
	if m.offered[factor] == nil {
		m.offered[factor] = &offered{}
	}
	return m.offered[factor]
}

func (o *offered) add(got spent, rate float64) {
	o.rate, o.goodput, o.perCPU = append(o.rate, rate), append(o.goodput, got.goodput()), append(o.perCPU, got.perCPU)
	o.p50, o.p99 = append(o.p50, got.accepted(50)), append(o.p99, got.accepted(99))
	o.refused, o.refusedP99 = append(o.refused, 1-got.answered()), append(o.refusedP99, percentileOf(got.refusedAfter, 99))
}

// mix sends critical and sheddable calls together.
func (m *overload) mix(ctx context.Context, s system, critical, sheddable [][]byte, length time.Duration, factor, peak float64) error {
	var waited, others *outcome
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		waited, err = offer(ctx, s.address, length, factor*peak*(1-sheddableShare), critical)
		return err
	})
	group.Go(func() (err error) {
		others, err = offer(ctx, s.address, length, factor*peak*sheddableShare, sheddable)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if m.mixed[factor] == nil {
		m.mixed[factor] = &mixed{}
	}
	of := m.mixed[factor]
	of.critical, of.sheddable = append(of.critical, waited.answered()), append(of.sheddable, others.answered())
	return nil
}

// answered returns the share of successful calls.
func (o *outcome) answered() float64 {
	return float64(len(o.answeredAfter)) / float64(max(1, len(o.answeredAfter)+len(o.refusedAfter)+o.limited))
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
	before, begin, err := h.usage(s)
	if err != nil {
		return spent{}, err
	}
	got, err := offer(ctx, s.address, length, rate, requests)
	if err != nil {
		return spent{}, err
	}
	after, end, err := h.usage(s)
	if err != nil {
		return spent{}, err
	}
	h.noise = append(h.noise, othersIn(before, after, end.Sub(begin).Seconds()))
	used := after.servers + after.postgres - before.servers - before.postgres
	return spent{got, float64(got.all) / used.Seconds()}, nil
}

// apart starts a gateway, auth and users on one half of the cores, and moves Postgres
// there and bench to the other half until release is called.
func (h *stack) apart(ctx context.Context) (s system, apart bool, release func() error, err error) {
	cores, err := ownCores()
	if err != nil {
		return s, false, nil, err
	}
	servers, load := cores, cores
	if half := len(cores) / 2; half > 0 {
		servers, load = cores[:half], cores[half:]
		apart = true
	}
	database, err := h.postgres()
	if err != nil {
		return s, false, nil, err
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
		return s, false, nil, err
	}
	// Processes that the main thread starts inherit its cores.
	if err := pinThread(0, servers); err != nil {
		return s, false, nil, err
	}
	services, peers, err := h.startServices(ctx, "-apart")
	if err != nil {
		return s, false, nil, err
	}
	gateway, address, err := h.begin(ctx, "bff-apart", h.binary, "bff", append(peers, noCache)...)
	if err != nil {
		return s, false, nil, err
	}
	s = system{address: address, ask: overProto, gateway: gateway, servers: append([]*process{gateway}, services...)}
	return s, apart, release, pinThread(0, load)
}

// print writes the rows on overload.
func (m *overload) print(t *table) {
	if len(m.peak) == 0 {
		return
	}
	where := "the load has cores of its own"
	if !m.apart {
		where = "the load shares one core"
	}
	t.row("Open loops, three processes; "+where, "GetMe/s", "p50, ms", "p99, ms", "share refused", "p99 of refusals, ms")
	of := func(name string, o *offered) {
		t.row(name, spread("%.0f", o.goodput), spread("%.1f", o.p50), spread("%.1f", o.p99), spread("%.3f", o.refused), spread("%.1f", o.refusedP99))
	}
	of("  at the peak", m.offered[1])
	bound := 250 + 2*median(m.offered[unloaded].p99)
	for _, factor := range overloadFactors {
		o := m.offered[factor]
		of(fmt.Sprintf("  offered %.1f times the peak", factor), o)
		if factor < 1 {
			t.judged("none", median(o.refused) == 0, "    share refused", spread("%.3f", o.refused))
			continue
		}
		share := over(o.goodput, m.peak)
		t.steady("≥ 0.90", median(share) >= 0.9, share, "    goodput ÷ the peak", spread("%.2f", share))
		t.judged(fmt.Sprintf("< %.0f", bound), median(o.p99) < bound, "    p99 of successful calls: the target plus twice that at a tenth of the peak", spread("%.1f", o.p99))
		t.row("    answers per CPU-second, Postgres too, ÷ those at the peak", spread("%.2f", over(o.perCPU, m.peakCPU)))
	}
	if len(m.cost) > 0 {
		t.judged("≤ 0.04", median(m.cost) <= 0.04, "  CPU of a refusal ÷ that of an answer, at the highest load", spread("%.3f", m.cost))
	}
	for _, factor := range mixedFactors {
		of := m.mixed[factor]
		t.judged("sheddable first", median(of.sheddable) < median(of.critical),
			fmt.Sprintf("  %.1f times the peak, a quarter of it sheddable: share answered of critical calls (of sheddable)", factor),
			spread("%.2f", of.critical), spread("%.2f", of.sheddable))
	}
	t.rounds("overload", m.rounds, len(m.peak))
}
