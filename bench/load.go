package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// load is a closed loop: each connection, HTTP/1.1 with keep-alive, sends the next
// request when it has the response. The people alternate, so that none exceeds the
// method's rate limit.
type load struct {
	group    *errgroup.Group
	failed   <-chan struct{}
	stopping atomic.Bool
	samples  [][]sample // by connection
}

type sample struct {
	end      time.Time
	took     time.Duration
	answered bool // rather than shed
}

// startLoad starts a load. A request fails if it takes longer than the length plus a
// margin.
func startLoad(ctx context.Context, address string, a ask, people []*person, connections int, length time.Duration) (*load, error) {
	conns, err := dialAll(ctx, address, connections)
	if err != nil {
		return nil, err
	}
	requests := a.ofAll(people, address)
	l := &load{samples: make([][]sample, connections)}
	group, ctx := errgroup.WithContext(ctx)
	l.group, l.failed = group, ctx.Done()
	for i, conn := range conns {
		group.Go(func() error {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			if err := conn.SetDeadline(time.Now().Add(length + 10*time.Second)); err != nil {
				return err
			}
			return l.work(conn, &l.samples[i], a, func(n int) []byte { return requests[(i+n*connections)%len(requests)] })
		})
	}
	return l, nil
}

// dialAll opens connections: all or none.
func dialAll(ctx context.Context, address string, count int) ([]net.Conn, error) {
	conns := make([]net.Conn, 0, count)
	for range count {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			for _, conn := range conns {
				_ = conn.Close()
			}
			return nil, fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func (l *load) work(conn net.Conn, samples *[]sample, a ask, request func(n int) []byte) error {
	reader := bufio.NewReader(conn)
	for n := 0; !l.stopping.Load(); n++ {
		begin := time.Now()
		if _, err := conn.Write(request(n)); err != nil {
			return fmt.Errorf("send a request: %w", err)
		}
		answered, err := a.read(reader)
		if err != nil {
			return err
		}
		end := time.Now()
		*samples = append(*samples, sample{end: end, took: end.Sub(begin), answered: answered})
	}
	return nil
}

// run waits for the length, and returns early if a request fails.
func (l *load) run(length time.Duration) error {
	select {
	case <-l.failed:
		return l.group.Wait()
	case <-time.After(length):
		return nil
	}
}

// stop stops the load and waits for the last response.
func (l *load) stop() {
	l.stopping.Store(true)
	_ = l.group.Wait()
}

// latencies returns the sorted latencies of the responses between two times, and the
// number of refused requests. Call it after stop.
func (l *load) latencies(begin, end time.Time) (answered []time.Duration, refused int) {
	for _, samples := range l.samples {
		for _, s := range samples {
			switch {
			case s.end.Before(begin) || !s.end.Before(end):
			case s.answered:
				answered = append(answered, s.took)
			default:
				refused++
			}
		}
	}
	slices.Sort(answered)
	return answered, refused
}
