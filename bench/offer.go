package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// offerConns limits the in-flight calls of an open loop. It exceeds the gateway's
// queue: otherwise the load would wait for responses and be a closed loop.
const offerConns = 3000

// outcome is the result of a load. Times are sorted.
type outcome struct {
	seconds                     float64
	all, refusedAll             int             // that were answered or refused, in the first second too
	limited                     int             // refused with 429, because the caller's rate was exceeded
	answeredAfter, refusedAfter []time.Duration // from when each was due
	// whole is the time from sending a request to its response, part that of its slowest
	// part by Server-Timing, and between the difference.
	whole, part, between []time.Duration
}

func (o *outcome) goodput() float64 { return float64(len(o.answeredAfter)) / o.seconds }

func (o *outcome) accepted(p int) float64 { return percentileOf(o.answeredAfter, p) }

func percentileOf(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return milliseconds(sorted[(len(sorted)-1)*p/100])
}

// due is a request and the time to send it.
type due struct {
	at      time.Time
	request []byte
}

// offer runs an open loop: it sends requests at a fixed rate, independently of earlier
// responses, and waits for all responses. The first second, in which the gateway
// adapts, is not counted.
func offer(ctx context.Context, address string, length time.Duration, rate float64, requests [][]byte) (*outcome, error) {
	const settle = time.Second
	pool := &connPool{address: address}
	defer pool.close()
	queue := make(chan due, int(rate*(settle+length).Seconds())+1)
	begin := time.Now()
	counted := begin.Add(settle)
	outcomes := make([]outcome, offerConns)
	group, ctx := errgroup.WithContext(ctx)
	for i := range outcomes {
		group.Go(func() error { return outcomes[i].take(ctx, pool, queue, counted) })
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
	for i := range outcomes {
		all.all += outcomes[i].all
		all.refusedAll += outcomes[i].refusedAll
		all.limited += outcomes[i].limited
	}
	for _, times := range []func(*outcome) *[]time.Duration{
		func(o *outcome) *[]time.Duration { return &o.answeredAfter },
		func(o *outcome) *[]time.Duration { return &o.refusedAfter },
		func(o *outcome) *[]time.Duration { return &o.whole },
		func(o *outcome) *[]time.Duration { return &o.part },
		func(o *outcome) *[]time.Duration { return &o.between },
	} {
		for i := range outcomes {
			*times(all) = append(*times(all), *times(&outcomes[i])...)
		}
		slices.Sort(*times(all))
	}
	return all, nil
}

// take sends the requests that are due, in order.
func (o *outcome) take(ctx context.Context, pool *connPool, queue <-chan due, counted time.Time) error {
	for d := range queue {
		conn, err := pool.get(ctx)
		if err != nil {
			return err
		}
		sent := time.Now()
		status, part, err := exchange(conn.Conn, conn.reader, d.request)
		now := time.Now()
		switch {
		case err != nil:
			_ = conn.Close()
			return err
		case status == http.StatusOK:
			o.all++
		case status == http.StatusServiceUnavailable:
			o.refusedAll++
		}
		switch {
		case d.at.Before(counted):
		case status == http.StatusTooManyRequests:
			o.limited++
		case status == http.StatusOK:
			o.answeredAfter = append(o.answeredAfter, now.Sub(d.at))
			o.whole, o.part = append(o.whole, now.Sub(sent)), append(o.part, part)
			o.between = append(o.between, now.Sub(sent)-part)
		default:
			o.refusedAfter = append(o.refusedAfter, now.Sub(d.at))
		}
		pool.put(conn)
	}
	return nil
}

// connPool opens a connection if none is free, and reuses the most recently used one,
// because a server closes idle ones.
type connPool struct {
	address string
	made    atomic.Uint32
	mu      sync.Mutex
	free    []*pooledConn
}

const loadAddresses = 16

type pooledConn struct {
	net.Conn
	reader *bufio.Reader
}

func (p *connPool) get(ctx context.Context) (*pooledConn, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		conn := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return conn, nil
	}
	p.mu.Unlock()
	// From many addresses, because connections per address are limited.
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+p.made.Add(1)%loadAddresses))}
	conn, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &pooledConn{conn, newReader(conn)}, nil
}

func (p *connPool) put(conn *pooledConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, conn)
}

func (p *connPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.free {
		_ = conn.Close()
	}
}

// exchange sends a request and returns the status of the response: 200, 503 if it was
// shed, or 429 if the caller's rate was exceeded. It also returns the time of the
// response's slowest part.
func exchange(conn net.Conn, reader *bufio.Reader, request []byte) (int, time.Duration, error) {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, 0, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, 0, fmt.Errorf("send a request: %w", err)
	}
	response, body, err := readResponse(reader)
	switch {
	case err != nil:
		return 0, 0, err
	case response.StatusCode == http.StatusOK:
		return http.StatusOK, slowestPart(response.Header.Get("Server-Timing")), nil
	case isRefusal(response), response.StatusCode == http.StatusTooManyRequests:
		return response.StatusCode, 0, nil
	default:
		return 0, 0, fmt.Errorf("answered %s: %s", response.Status, body)
	}
}

// slowestPart reads a Server-Timing header (W3C).
func slowestPart(header string) time.Duration {
	slowest := 0.0
	for part := range strings.SplitSeq(header, ",") {
		_, text, _ := strings.Cut(part, ";dur=")
		took, _ := strconv.ParseFloat(text, 64)
		slowest = max(slowest, took)
	}
	return time.Duration(slowest * float64(time.Millisecond))
}

func newReader(conn net.Conn) *bufio.Reader { return bufio.NewReader(conn) }
