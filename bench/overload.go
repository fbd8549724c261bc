package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// overload is what comes of more load than a gateway can bear: of each round.
type overload struct {
	alone    []float64 // p99 of GetMe at a tenth of the peak, in ms
	aloneP50 []float64
	peak     []float64 // answers a second, at the best
	goodput  []float64 // answers a second at overloadFactor times that
	p50, p99 []float64 // of these, in ms
	refused  []float64 // p99 of the refusals, in ms
}

const (
	overloadFactor = 3
	overloadRounds = 3
	overloadStep   = 1.25
	// overloadPeople share the load, so that none of them goes beyond a rate.
	overloadPeople = 160
	// overloadConns bounds the load's calls under way.
	overloadConns = 256
)

// measureOverload offers a gateway, in front of the three processes' own auth and
// users, more than they can do, at fixed times whatever comes back (an open loop).
func (r *results) measureOverload(ctx context.Context, h *house, o options, progress io.Writer) error {
	server, address, err := h.begin(ctx, "overloaded", o.binary, "bff", append(h.peers, "GATEHOUSE_THROTTLE=on")...)
	if err != nil {
		return err
	}
	defer server.stop()
	people, err := h.register(ctx, overloadPeople)
	if err != nil {
		return err
	}
	var requests [][]byte
	for _, p := range people {
		requests = append(requests, p.request(address))
	}
	for round := range min(o.rounds, overloadRounds) {
		fmt.Fprintf(progress, "overload: round %d\n", round+1)
		peak, err := r.overload.findPeak(ctx, address, requests, o.length/2)
		if err != nil {
			return fmt.Errorf("%w: %s", err, server.lastWords())
		}
		alone, err := offer(ctx, address, 2*o.length, peak/10, requests)
		if err != nil {
			return err
		}
		over, err := offer(ctx, address, 3*o.length, overloadFactor*peak, requests)
		if err != nil {
			return err
		}
		m := &r.overload
		m.aloneP50, m.alone = append(m.aloneP50, alone.accepted(50)), append(m.alone, alone.accepted(99))
		m.goodput = append(m.goodput, over.goodput())
		m.p50, m.p99 = append(m.p50, over.accepted(50)), append(m.p99, over.accepted(99))
		m.refused = append(m.refused, percentileOf(over.refusedAfter, 99))
		server.forget()
	}
	return nil
}

// findPeak raises the load until no more is answered for it.
func (m *overload) findPeak(ctx context.Context, address string, requests [][]byte, length time.Duration) (float64, error) {
	peak := 0.0
	for rate := 300.0; ; rate *= overloadStep {
		got, err := offer(ctx, address, length, rate, requests)
		if err != nil {
			return 0, err
		}
		peak = max(peak, got.goodput())
		if got.goodput() < 0.8*rate {
			m.peak = append(m.peak, peak)
			return peak, nil
		}
	}
}

// outcome is what came of some load. Times count from when a request was due,
// and are sorted.
type outcome struct {
	seconds                     float64
	answeredAfter, refusedAfter []time.Duration
}

func (o *outcome) goodput() float64 { return float64(len(o.answeredAfter)) / o.seconds }

func (o *outcome) accepted(p int) float64 { return percentileOf(o.answeredAfter, p) }

func percentileOf(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return milliseconds(sorted[(len(sorted)-1)*p/100])
}

// due is a request and when it should be sent.
type due struct {
	at      time.Time
	request []byte
}

// offer sends so many requests a second for so long, one after the other, and
// waits for what comes back. Of the first second nothing counts: the gateway
// learns in it.
func offer(ctx context.Context, address string, length time.Duration, rate float64, requests [][]byte) (*outcome, error) {
	const settle = time.Second
	conns := make([]net.Conn, overloadConns)
	for i := range conns {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	queue := make(chan due, int(rate*(settle+length).Seconds())+1)
	begin := time.Now()
	counted := begin.Add(settle)
	outcomes := make([]outcome, len(conns))
	group, ctx := errgroup.WithContext(ctx)
	for i, conn := range conns {
		group.Go(func() error {
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			return outcomes[i].take(conn, queue, counted)
		})
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	sent := 0
	for now := begin; now.Before(counted.Add(length)) && ctx.Err() == nil; now = <-ticker.C {
		for ; float64(sent) < now.Sub(begin).Seconds()*rate; sent++ {
			at := begin.Add(time.Duration(float64(sent) / rate * float64(time.Second)))
			queue <- due{at: at, request: requests[sent%len(requests)]}
		}
	}
	close(queue)
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := &outcome{seconds: length.Seconds()}
	for _, o := range outcomes {
		all.answeredAfter = append(all.answeredAfter, o.answeredAfter...)
		all.refusedAfter = append(all.refusedAfter, o.refusedAfter...)
	}
	slices.Sort(all.answeredAfter)
	slices.Sort(all.refusedAfter)
	return all, nil
}

// take sends what is due over one connection, one after the other.
func (o *outcome) take(conn net.Conn, queue <-chan due, counted time.Time) error {
	reader := bufio.NewReader(conn)
	for d := range queue {
		answered, err := exchange(conn, reader, d.request)
		took := time.Since(d.at)
		switch {
		case err != nil:
			return err
		case d.at.Before(counted):
		case answered:
			o.answeredAfter = append(o.answeredAfter, took)
		default:
			o.refusedAfter = append(o.refusedAfter, took)
		}
	}
	return nil
}

// exchange sends a request and returns whether it was answered; a refusal for
// want of room is none.
func exchange(conn net.Conn, reader *bufio.Reader, request []byte) (bool, error) {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false, err
	}
	if _, err := conn.Write(request); err != nil {
		return false, fmt.Errorf("send a request: %w", err)
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return false, fmt.Errorf("read an answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return false, fmt.Errorf("read an answer: %w", err)
	case response.StatusCode == http.StatusOK:
		return true, nil
	case response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		return false, nil
	default:
		return false, fmt.Errorf("answered %s: %s", response.Status, body)
	}
}

// print writes the rows about overload.
func (m *overload) print(row func(...string)) {
	over := func(a, b []float64) []float64 {
		var ratios []float64
		for i := range a {
			ratios = append(ratios, a[i]/b[i])
		}
		return ratios
	}
	row("three processes: GetMe per second at the peak, open loop", spread("%.0f", m.peak))
	row(fmt.Sprintf("  offered %d times as much: ÷ the peak", overloadFactor), spread("%.2f", over(m.goodput, m.peak)), "", "", "≥ 0.90")
	row("  p50 of what is answered, ms (a tenth of the peak)", spread("%.1f", m.p50), spread("%.1f", m.aloneP50))
	row("  p99 of what is answered, ms (a tenth of the peak)", spread("%.1f", m.p99), spread("%.1f", m.alone), "", "< 2 ×")
	row("  p99 of refusals, ms", spread("%.1f", m.refused))
}
