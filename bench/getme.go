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
func (r *results) measureGetMe(ctx context.Context, h *stack, o options, progress io.Writer) error {
	for round := range o.rounds {
		fmt.Fprintf(progress, "GetMe: round %d of %d\n", round+1, o.rounds)
		for turn := range systemCount {
			which := (round + turn) % systemCount
			if h.systems[which].gateway == nil {
				continue
			}
			taken, err := h.measure(ctx, h.systems[which], o)
			if err != nil {
				return err
			}
			r.turns[which] = append(r.turns[which], taken)
		}
	}
	return nil
}

// turn is the result of one system in one round. CPU times cover the measured time
// only.
type turn struct {
	seconds   float64
	latencies []time.Duration // of each answer, sorted
	refused   float64         // the share of requests that there was no room for
	gateway   time.Duration
	servers   time.Duration
	postgres  time.Duration
	load      time.Duration
}

func (h *stack) measure(ctx context.Context, s system, o options) (turn, error) {
	if err := h.refresh(ctx); err != nil {
		return turn{}, err
	}
	load, err := startLoad(ctx, s.address, s.ask, h.people, o.connections, o.settle+o.length)
	if err != nil {
		return turn{}, err
	}
	defer load.stop()
	if err := load.run(o.settle); err != nil {
		return turn{}, fmt.Errorf("%w: %s", err, s.gateway.lastWords())
	}
	before, begin, err := h.usage(s)
	if err != nil {
		return turn{}, err
	}
	if err := load.run(o.length); err != nil {
		return turn{}, fmt.Errorf("%w: %s", err, s.gateway.lastWords())
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
	return turn{
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
	pids, err := h.postgres()
	for _, pid := range pids {
		// A process may end in between; those that serve the pools do not.
		_ = read(pid, &u.postgres)
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
