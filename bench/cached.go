package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
)

// The kinds of requests for cached responses.
const (
	cachedAnswer = iota
	bareOne
	cachedUnchanged
	bareUnchanged
	cachedCount
)

// cached are the costs of cached responses, compared with a bare handler of the same
// bytes, and of a thousand simultaneous requests.
type cached struct {
	turns  [cachedCount][]turn // of each round
	rounds int
	// allocations per request, counted by the Go runtime.
	composedAllocs, cachedAllocs allocations
	// asked is the number of calls to auth and users for a thousand simultaneous calls
	// without a cache entry: one for each of GetMe's parts.
	asked []float64
}

type allocations struct{ count, bytes []float64 }

// measureCached starts its own gateways in front of the auth and users of the three
// processes.
func (r *results) measureCached(ctx context.Context, h *stack, o options, progress io.Writer) error {
	gateway, address, err := h.begin(ctx, "bff-cached", h.binary, "bff", h.peers...)
	if err != nil {
		return err
	}
	defer gateway.stop()
	answer, err := h.me(ctx, threeProcesses, h.people[0])
	if err != nil {
		return err
	}
	form, err := proto.Marshal(answer)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	hand, handAt, err := h.begin(ctx, "bare-answer", self, bareAnswerCommand, bareAnswerVariable+"="+hex.EncodeToString(form))
	if err != nil {
		return err
	}
	defer hand.stop()
	behind := append([]*process{gateway}, h.services...)
	systems := [cachedCount]system{
		cachedAnswer:    {address: address, ask: byGet, gateway: gateway, servers: behind},
		bareOne:         {address: handAt, ask: byGet, gateway: hand, servers: []*process{hand}},
		cachedUnchanged: {address: address, ask: ifChanged, gateway: gateway, servers: behind, etagsOf: address},
		bareUnchanged:   {address: handAt, ask: ifChanged, gateway: hand, servers: []*process{hand}, etagsOf: address},
	}
	k := &r.cached
	var series []*[]turn
	for which := range k.turns {
		series = append(series, &k.turns[which])
	}
	round := func(round int) error {
		for turn := range cachedCount {
			which := (round + turn) % cachedCount
			taken, err := h.measure(ctx, systems[which], o)
			if err != nil {
				return err
			}
			k.turns[which] = append(k.turns[which], taken)
		}
		return nil
	}
	k.rounds, err = o.repeat(progress, "cached responses", round, func() [][]float64 {
		return [][]float64{cpuRatio(k.turns[bareOne], k.turns[cachedAnswer]), cpuRatio(k.turns[bareUnchanged], k.turns[cachedUnchanged])}
	}, series...)
	return err
}

// nameAnswers reads the ETag of everybody's response from a gateway.
func (h *stack) nameAnswers(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := newReader(conn)
	for _, p := range h.people {
		if _, err := conn.Write(byGet.of(p, address)); err != nil {
			return err
		}
		response, body, err := readResponse(reader)
		if err != nil {
			return err
		}
		if err := byGet.check(response.StatusCode, body); err != nil {
			return err
		}
		if p.etag = response.Header.Get("ETag"); p.etag == "" {
			return fmt.Errorf("an answer has no ETag")
		}
	}
	return nil
}

// measureAllocations reads gateways' allocations from their metrics, with everything
// on that is on by default.
func (r *results) measureAllocations(ctx context.Context, h *stack, o options, progress io.Writer) error {
	for _, one := range []struct {
		into *allocations
		ask  ask
		env  []string
	}{
		{&r.cached.composedAllocs, overProto, []string{noCache}},
		{&r.cached.cachedAllocs, byGet, nil},
	} {
		fmt.Fprintln(progress, "allocations")
		if err := h.allocations(ctx, one.into, one.ask, o, one.env...); err != nil {
			return err
		}
	}
	return nil
}

func (h *stack) allocations(ctx context.Context, into *allocations, a ask, o options, env ...string) error {
	operations, err := freeAddress()
	if err != nil {
		return err
	}
	gateway, address, err := h.begin(ctx, "counting", h.binary, "bff", append(append(env, "GATEHOUSE_OPS_LISTEN="+operations), h.peers...)...)
	if err != nil {
		return err
	}
	defer gateway.stop()
	_, err = o.repeat(io.Discard, "", func(int) error {
		before, err := allocated(ctx, operations)
		if err != nil {
			return err
		}
		load, err := startLoad(ctx, address, a, h.people, o.connections, o.length)
		if err != nil {
			return err
		}
		begin := time.Now()
		err = load.run(o.length)
		load.stop()
		if err != nil {
			return err
		}
		after, err := allocated(ctx, operations)
		if err != nil {
			return err
		}
		latencies, _ := load.latencies(begin, time.Now())
		answers := float64(len(latencies))
		into.count = append(into.count, (after.count-before.count)/answers)
		into.bytes = append(into.bytes, (after.bytes-before.bytes)/answers)
		return nil
	}, noRatios)
	return err
}

// counted are the allocations of a process since its start.
type counted struct{ count, bytes float64 }

func allocated(ctx context.Context, operations string) (counted, error) {
	var c counted
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+operations+"/metrics", nil)
	if err != nil {
		return c, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return c, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "go_memstats_mallocs_total %g", &c.count)
		_, _ = fmt.Sscanf(line, "go_memstats_alloc_bytes_total %g", &c.bytes)
	}
	if c.count == 0 || c.bytes == 0 {
		return c, fmt.Errorf("%s does not report its allocations", operations)
	}
	return c, nil
}

// crowd sends the same request on all connections at once.
const crowd = 1000

// measureCoalescing sends one person's GetMe on a thousand connections at once, without
// a cache entry, and counts the calls in the logs of auth and users.
func (r *results) measureCoalescing(ctx context.Context, h *stack, o options, progress io.Writer) error {
	for round := range min(o.rounds, 3) {
		fmt.Fprintf(progress, "a thousand at once: round %d\n", round+1)
		gateway, address, err := h.begin(ctx, "bff-coalescing", h.binary, "bff", append(h.peers, unthrottled)...)
		if err != nil {
			return err
		}
		asked, err := h.crowd(ctx, address, h.people[0])
		gateway.stop()
		if err != nil {
			return err
		}
		r.cached.asked = append(r.cached.asked, asked)
	}
	return nil
}

func (h *stack) crowd(ctx context.Context, address string, p *person) (float64, error) {
	conns, err := dialAll(ctx, address, crowd)
	if err != nil {
		return 0, err
	}
	before, err := h.partsAsked()
	if err != nil {
		return 0, err
	}
	request, failures := overProto.of(p, address), make(chan error, crowd)
	for _, conn := range conns {
		go func() {
			defer conn.Close()
			_, err := conn.Write(request)
			answered := false
			if err == nil {
				answered, err = overProto.read(newReader(conn))
			}
			if err == nil && !answered {
				err = errRefused
			}
			failures <- err
		}()
	}
	for range conns {
		if failure := <-failures; failure != nil {
			err = failure
		}
	}
	if err != nil {
		return 0, err
	}
	after, err := h.partsAsked()
	return after - before, err
}

// partsAsked counts the calls for GetMe's parts in the logs.
func (h *stack) partsAsked() (float64, error) {
	count := 0
	for _, p := range h.services {
		text, err := os.ReadFile(p.log.Name())
		if err != nil {
			return 0, err
		}
		for _, method := range []string{"/GetAccount\"", "/ListSessions\"", "/GetProfile\""} {
			count += strings.Count(string(text), method)
		}
	}
	return float64(count), nil
}

func (k *cached) print(t *table) {
	if len(k.turns[cachedAnswer]) > 0 {
		of := func(which int) []float64 { return mapped(k.turns[which], turn.cpu) }
		for _, one := range []struct {
			name         string
			cached, bare int
			aim          float64
		}{{"GetMe cached", cachedAnswer, bareOne, 0.75}, {"  304", cachedUnchanged, bareUnchanged, 0.8}} {
			t.row(one.name+", by GET: CPU µs/request, all of ours (a bare handler of the same bytes)", spread("%.0f", of(one.cached)), spread("%.0f", of(one.bare)))
			share := over(of(one.bare), of(one.cached))
			t.steady(fmt.Sprintf("≥ %.2f", one.aim), median(share) >= one.aim, share, "    requests per CPU-second ÷ the bare handler's", spread("%.2f", share))
		}
		t.rounds("cached responses", k.rounds, len(k.turns[cachedAnswer]))
	}
	if len(k.composedAllocs.count) > 0 {
		t.row("Allocations (bytes) of the gateway for each GetMe, composed", spread("%.0f", k.composedAllocs.count), spread("%.0f", k.composedAllocs.bytes))
		t.row("  cached", spread("%.0f", k.cachedAllocs.count), spread("%.0f", k.cachedAllocs.bytes))
	}
	if len(k.asked) > 0 {
		t.judged("1 a part: 3", median(k.asked) == 3, fmt.Sprintf("Calls of auth and users for %d GetMe at once without a cache entry", crowd), spread("%.0f", k.asked))
	}
}
