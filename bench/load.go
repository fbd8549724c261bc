package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse/gen/bff/v1"
)

// load is a closed loop: each person has one HTTP/1.1 connection, kept alive,
// and asks for GetMe again as soon as the answer is there. It writes requests
// made beforehand, for an HTTP client would take more of the shared CPU.
type load struct {
	group    *errgroup.Group
	failed   <-chan struct{}
	stopping atomic.Bool
	samples  [][]sample // by worker
}

type sample struct {
	end  time.Time
	took time.Duration
}

// startLoad begins. No request may take longer than the length and a bit.
func startLoad(ctx context.Context, address string, people []*person, length time.Duration) (*load, error) {
	conns := make([]net.Conn, 0, len(people))
	for range people {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			conns = append(conns, conn)
			err = conn.SetDeadline(time.Now().Add(length + 10*time.Second))
		}
		if err != nil {
			for _, conn := range conns {
				_ = conn.Close()
			}
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
	l := &load{samples: make([][]sample, len(people))}
	group, ctx := errgroup.WithContext(ctx)
	l.group, l.failed = group, ctx.Done()
	for i, conn := range conns {
		group.Go(func() error {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			return l.work(conn, &l.samples[i], people[i].request(address))
		})
	}
	return l, nil
}

func (l *load) work(conn net.Conn, samples *[]sample, request []byte) error {
	reader := bufio.NewReader(conn)
	for !l.stopping.Load() {
		begin := time.Now()
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("send a request: %w", err)
		}
		if err := readAnswer(reader); err != nil {
			return err
		}
		end := time.Now()
		*samples = append(*samples, sample{end: end, took: end.Sub(begin)})
	}
	return nil
}

// readAnswer returns an error unless the answer is a whole one.
func readAnswer(reader *bufio.Reader) error {
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GetMe answered %s: %s", response.Status, body)
	}
	var answer bffv1.GetMeResponse
	if err := proto.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if len(answer.GetErrors()) > 0 || answer.GetUser().GetId() == "" || len(answer.GetSessions()) == 0 {
		return fmt.Errorf("GetMe left something out: %v", &answer)
	}
	return nil
}

// run lets the load go on for so long. It returns early when a request fails.
func (l *load) run(length time.Duration) error {
	select {
	case <-l.failed:
		return l.group.Wait()
	case <-time.After(length):
		return nil
	}
}

// stop returns when the last answer is there.
func (l *load) stop() {
	l.stopping.Store(true)
	_ = l.group.Wait()
}

// latencies returns those of the requests that ended in between, sorted. Call
// it after stop.
func (l *load) latencies(begin, end time.Time) []time.Duration {
	var all []time.Duration
	for _, samples := range l.samples {
		for _, s := range samples {
			if !s.end.Before(begin) && s.end.Before(end) {
				all = append(all, s.took)
			}
		}
	}
	slices.Sort(all)
	return all
}

// request is GetMe over Connect with the proto codec. Its message is empty.
func (p *person) request(address string) []byte {
	var b strings.Builder
	b.WriteString("POST /bff.v1.AccountService/GetMe HTTP/1.1\r\nHost: " + address + "\r\n" +
		"User-Agent: gatehouse-bench\r\nContent-Type: application/proto\r\nConnect-Protocol-Version: 1\r\nContent-Length: 0\r\n")
	for name, value := range p.headers() {
		b.WriteString(name + ": " + value + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
