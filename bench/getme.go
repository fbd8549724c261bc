package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// measureGetMe measures each system in every round, so that other load on the machine
// affects all of them equally.
// The two that are compared over JSON have a second turn with more connections.
func (r *results) measureGetMe(ctx context.Context, h *stack, o options, progress io.Writer) (err error) {
	var series []*[]turn
	for which := range h.systems {
		if h.systems[which].gateway != nil {
			series = append(series, &r.turns[which])
		}
	}
	more := o
	more.connections = manyConnections
	if h.noFastify == "" {
		series = append(series, &r.many[threeOverJSON], &r.many[fastify])
	}
	one := func(which int, o options, into *[]turn) error {
		taken, err := h.measure(ctx, h.systems[which], o)
		*into = append(*into, taken)
		return err
	}
	round := func(round int) error {
		for turn := range systemCount {
			which := (round + turn) % systemCount
			if h.systems[which].gateway == nil {
				continue
			}
			if err := one(which, o, &r.turns[which]); err != nil {
				return err
			}
			if h.noFastify == "" && which >= threeOverJSON {
				if err := one(which, more, &r.many[which]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	ratios := func() [][]float64 {
		return [][]float64{
			cpuRatio(r.turns[threeOverJSON], r.turns[fastify]), cpuRatio(r.many[threeOverJSON], r.many[fastify]),
			cpuRatio(r.turns[oneProcess], r.turns[threeProcesses]),
		}
	}
	r.getMeRounds, err = o.repeat(progress, "GetMe", round, ratios, series...)
	return err
}

// manyConnections is a second number of connections for the comparison with Fastify.
const manyConnections = 32

// cpuRatio divides the CPU times for each request of all servers, round by round.
func cpuRatio(of, by []turn) []float64 { return over(mapped(of, turn.cpu), mapped(by, turn.cpu)) }

// cpu returns the microseconds of all servers for each request.
func (t turn) cpu() float64 { return t.perRequest(t.servers) }

// turn is the result of one system in one round. CPU times cover the measured time
// only.
type turn struct {
	seconds   float64
	latencies []time.Duration // of each answer, sorted
	refused   float64         // the share of requests that were shed
	gateway   time.Duration
	servers   time.Duration
	postgres  time.Duration
	load      time.Duration
	others    float64 // the share of the machine's CPU that other processes used
}

func (h *stack) measure(ctx context.Context, s system, o options) (turn, error) {
	if err := h.refresh(ctx); err != nil {
		return turn{}, err
	}
	if s.etagsOf != "" {
		if err := h.nameAnswers(s.etagsOf); err != nil {
			return turn{}, err
		}
	}
	load, err := startLoad(ctx, s.address, s.ask, h.people, o.connections, o.settle+o.length)
	if err != nil {
		return turn{}, err
	}
	defer load.stop()
	if err := load.run(o.settle); err != nil {
		return turn{}, fmt.Errorf("%w: %s", err, s.gateway.logTail())
	}
	before, begin, err := h.usage(s)
	if err != nil {
		return turn{}, err
	}
	if err := load.run(o.length); err != nil {
		return turn{}, fmt.Errorf("%w: %s", err, s.gateway.logTail())
	}
	after, end, err := h.usage(s)
	if err != nil {
		return turn{}, err
	}
	load.stop()
	for _, p := range h.processes {
		p.forget()
	}
	latencies, refused := load.latencies(begin, end)
	if len(latencies) == 0 {
		return turn{}, errors.New("no response in a whole turn: increase -length")
	}
	others := othersIn(before, after, end.Sub(begin).Seconds())
	h.noise = append(h.noise, others)
	return turn{
		others:    others,
		seconds:   end.Sub(begin).Seconds(),
		latencies: latencies,
		refused:   float64(refused) / float64(len(latencies)+refused),
		gateway:   after.of(s.gateway.pid()) - before.of(s.gateway.pid()),
		servers:   after.servers - before.servers,
		postgres:  after.postgres - before.postgres,
		load:      after.of(os.Getpid()) - before.of(os.Getpid()),
	}, nil
}

// usage is the CPU time of each process since its start.
type usage struct {
	each              map[int]time.Duration
	servers, postgres time.Duration
	// machine is that of all processes, ours that of bench and all that it started.
	machine, ours time.Duration
}

func (u usage) of(pid int) time.Duration { return u.each[pid] }

func (h *stack) usage(s system) (usage, time.Time, error) {
	u := usage{each: map[int]time.Duration{}}
	read := func(pid int, sum *time.Duration) error {
		spent, err := cpuTime(pid)
		u.each[pid] = spent
		*sum += spent
		return err
	}
	for _, p := range s.servers {
		if err := read(p.pid(), &u.servers); err != nil {
			return u, time.Time{}, err
		}
	}
	var own time.Duration
	if err := read(os.Getpid(), &own); err != nil {
		return u, time.Time{}, err
	}
	now := time.Now()
	machine, err := machineTime()
	if err != nil {
		return u, now, err
	}
	u.machine = machine
	pids, err := h.postgres()
	for _, pid := range pids {
		// A process may end in between; those that serve the pools do not.
		_ = read(pid, &u.postgres)
	}
	u.ours = own + u.postgres
	for _, p := range h.processes {
		if spent, ok := u.each[p.pid()]; ok {
			u.ours += spent
		} else if spent, err := cpuTime(p.pid()); err == nil { // it may have been stopped
			u.ours += spent
		}
	}
	return u, now, err
}

// postgres returns the ids of all Postgres processes.
func (h *stack) postgres() ([]int, error) {
	postmaster, err := h.postmaster()
	if err != nil {
		return nil, err
	}
	backends, err := childrenOf(postmaster)
	return append(backends, postmaster), err
}

func (h *stack) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(h.database.Dir(), "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}
