package bff

import (
	"context"
	"errors"
	"fmt"
	"gatehouse/internal/fault"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
)

// node is a part of a random composition: which earlier parts it needs, how long
// it takes, and whether it fails then.
type node struct {
	required bool
	needs    []int
	takes    time.Duration
	fails    bool
}

func (n node) String() string {
	return fmt.Sprintf("{required %v, needs %v, takes %s, fails %v}", n.required, n.needs, n.takes, n.fails)
}

func randomGraph(random *rand.Rand) []node {
	graph := make([]node, 1+random.IntN(12))
	for i := range graph {
		graph[i] = node{
			required: random.IntN(3) > 0,
			// No two things happen at the same time, nor beyond a limit.
			takes: time.Duration(1 + random.Int64N(int64(readLimit)-2)),
			fails: random.IntN(6) == 0,
		}
		for range random.IntN(3) {
			if i > 0 {
				graph[i].needs = append(graph[i].needs, random.IntN(i))
			}
		}
	}
	return graph
}

// happening is what should come of a node, or did.
type happening struct {
	began, ended time.Duration // -1 if it never did
	canceled     bool
	value        int
	reason       string
}

func reasonOf(i int) string { return fmt.Sprintf("FAILED_%d", i) }

// model runs a graph in the head: each node begins when all that it needs is
// there; the first required failure ends the rest.
func model(graph []node) (happenings []happening, failure string) {
	happenings = make([]happening, len(graph))
	end := time.Duration(-1)
	for i, n := range graph {
		h := &happenings[i]
		for _, need := range n.needs {
			needed := happenings[need]
			if needed.reason != "" && (h.reason == "" || needed.ended < h.ended) {
				*h = happening{began: -1, ended: needed.ended, reason: needed.reason}
			}
			if h.reason == "" {
				h.began, h.value = max(h.began, needed.ended), h.value+needed.value
			}
		}
		if h.reason == "" {
			h.ended = h.began + n.takes
			h.value += i + 1
		}
		if n.fails && h.reason == "" {
			h.reason = reasonOf(i)
		}
		if h.reason != "" {
			h.value = 0
		}
		if n.required && h.reason != "" && (end < 0 || h.ended < end) {
			end, failure = h.ended, h.reason
		}
	}
	for i := range happenings {
		h := &happenings[i]
		switch {
		case end < 0 || h.ended <= end:
		case h.began < 0 || h.began >= end:
			*h = happening{began: -1}
		default:
			*h = happening{began: h.began, ended: end, canceled: true}
		}
	}
	return happenings, failure
}

// play runs a graph for real.
func play(ctx context.Context, graph []node) (happenings []happening, failure string, missing []string) {
	happenings = make([]happening, len(graph))
	start := time.Now()
	c := compose(ctx, discard)
	parts := make([]*part[int], len(graph))
	for i, n := range graph {
		happenings[i].began = -1
		fetch := func(ctx context.Context, sum int) (int, error) {
			happenings[i].began = time.Since(start)
			select {
			case <-time.After(n.takes):
			case <-ctx.Done():
				happenings[i].canceled = true
			}
			happenings[i].ended = time.Since(start)
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if n.fails {
				return 0, fault.New(connect.CodeNotFound, reasonOf(i), "There is none.").WithRemote()
			}
			return sum + i + 1, nil
		}
		parts[i] = declare(c, n, fmt.Sprint(i), parts, fetch)
	}
	err := c.wait()
	for i, p := range parts {
		happenings[i].value = p.value
		if p.err != nil && !errors.Is(p.err, context.Canceled) {
			happenings[i].reason = fault.Reason(p.err)
		}
	}
	if err != nil {
		return happenings, fault.Reason(err), nil
	}
	for _, one := range c.errors() {
		missing = append(missing, one.GetPart()+" "+one.GetReason())
	}
	return happenings, "", missing
}

// declare declares a node by what fits it of the ways to do so.
func declare(c *composition, n node, name string, parts []*part[int], fetch func(context.Context, int) (int, error)) *part[int] {
	alone := func(ctx context.Context) (int, error) { return fetch(ctx, 0) }
	fromTwo := func(ctx context.Context, two pair[int, int]) (int, error) { return fetch(ctx, two.first+two.second) }
	switch {
	case n.required && len(n.needs) == 0:
		return required(c, name, readLimit, alone)
	case n.required && len(n.needs) == 1:
		return requiredFrom(c, name, readLimit, parts[n.needs[0]], fetch)
	case n.required:
		return requiredFrom(c, name, readLimit, both(parts[n.needs[0]], parts[n.needs[1]]), fromTwo)
	case len(n.needs) == 0:
		return optional(c, name, readLimit, alone)
	case len(n.needs) == 1:
		return optionalFrom(c, name, readLimit, parts[n.needs[0]], fetch)
	default:
		return optionalFrom(c, name, readLimit, both(parts[n.needs[0]], parts[n.needs[1]]), fromTwo)
	}
}

// Whatever a composition looks like, its answer is what one gets by thinking it
// through one part at a time: each part began the moment that it could, and the
// first required failure reached all that was under way.
func TestAnyGraphIsComposedAsInAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		graph := randomGraph(rand.New(rand.NewPCG(seed, 0)))
		want, wantFailure := model(graph)
		var wantMissing []string
		for i, h := range want {
			if h.reason != "" && wantFailure == "" {
				wantMissing = append(wantMissing, fmt.Sprint(i, " ", h.reason))
			}
		}
		synctest.Test(t, func(t *testing.T) {
			got, failure, missing := play(t.Context(), graph)
			if failure != wantFailure || !slices.Equal(missing, wantMissing) {
				t.Errorf("seed %d: got failure %q, errors %v; want %q, %v\ngraph %v", seed, failure, missing, wantFailure, wantMissing, graph)
			}
			for i := range graph {
				if w := want[i]; w.began >= 0 && (got[i].began != w.began || got[i].ended != w.ended || got[i].canceled != w.canceled) || w.began < 0 && got[i].began >= 0 {
					t.Errorf("seed %d: part %d: got %+v, want %+v\ngraph %v", seed, i, got[i], w, graph)
				}
				if failure == "" && (got[i].value != want[i].value || got[i].reason != want[i].reason) {
					t.Errorf("seed %d: part %d: got %d %q, want %d %q\ngraph %v", seed, i, got[i].value, got[i].reason, want[i].value, want[i].reason, graph)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// When the caller leaves, whatever runs is told, and what hasn't begun doesn't.
func TestACallersLeavingReachesEveryPart(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		graph := randomGraph(random)
		for i := range graph {
			graph[i].fails = false
		}
		leaves := time.Duration(random.Int64N(int64(readLimit)))
		synctest.Test(t, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			time.AfterFunc(leaves, leave)
			start := time.Now()
			got, _, _ := play(ctx, graph)
			if took := time.Since(start); took > leaves {
				t.Errorf("seed %d: over after %s, want %s, when the caller left\ngraph %v", seed, took, leaves, graph)
			}
			for i, h := range got {
				if h.began > leaves || h.ended > leaves {
					t.Errorf("seed %d: part %d: got %+v after the caller left at %s", seed, i, h, leaves)
				}
			}
		})
	}
}

// Once there can be no answer, nothing more is asked for, even if what it needs
// comes after all.
func TestNothingBeginsAfterAFailure(t *testing.T) {
	t.Parallel()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c := compose(t.Context(), discard)
			deaf := optional(c, "deaf", readLimit, func(context.Context) (int, error) {
				time.Sleep(time.Second) // whatever its context says
				return 1, nil
			})
			requiredFrom(c, "next", readLimit, deaf, func(context.Context, int) (int, error) {
				t.Error("a part began after the failure")
				return 0, nil
			})
			required(c, "failing", readLimit, func(context.Context) (int, error) { return 0, remote(errWorded) })
			if err := c.wait(); fault.Reason(err) != "WORDED" {
				t.Errorf("got %v, want the failure", err)
			}
		})
	}
}

// Of two that failed before either could be told of the other, it is always the
// same that the caller hears of.
func TestTheFirstNamedFailureIsTold(t *testing.T) {
	t.Parallel()
	for range 200 {
		c := compose(t.Context(), discard)
		var begun sync.WaitGroup
		begun.Add(2)
		for _, reason := range []string{"FIRST", "SECOND"} {
			required(c, reason, readLimit, func(context.Context) (int, error) {
				begun.Done()
				begun.Wait()
				return 0, fault.New(connect.CodeNotFound, reason, "There is none.")
			})
		}
		if err := c.wait(); fault.Reason(err) != "FIRST" && fault.Reason(err) != "SECOND" {
			t.Fatalf("got %v, want a failure", err)
		} else if first, second := c.parts[0].err, c.parts[1].err; fault.Reason(first) == "FIRST" && fault.Reason(second) == "SECOND" && fault.Reason(err) != "FIRST" {
			t.Fatalf("both failed by themselves: got %v, want the first named", err)
		}
	}
}

// batchOf asks for ids, given as a part's value, and counts the calls.
type batchOf struct {
	mu              sync.Mutex
	calls           [][]int
	running, atMost int
}

func (b *batchOf) fetch(ctx context.Context, ids []int) (map[int]string, error) {
	b.mu.Lock()
	b.calls = append(b.calls, ids)
	b.running++
	b.atMost = max(b.atMost, b.running)
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.running--; b.mu.Unlock() }()
	time.Sleep(10 * time.Millisecond) // in a bubble
	found := map[int]string{}
	for _, id := range ids {
		if id%7 != 0 {
			found[id] = fmt.Sprint("value ", id)
		}
	}
	return found, ctx.Err()
}

func TestIDsAreAskedForOnceAndInBatches(t *testing.T) {
	t.Parallel()
	for _, count := range []int{0, 1, 99, 100, 101, 250, 1600, 4321} {
		synctest.Test(t, func(t *testing.T) {
			var batch batchOf
			var ids []int
			for range 3 {
				for id := range count {
					ids = append(ids, id)
				}
			}
			c := compose(t.Context(), discard)
			page := required(c, "page", readLimit, func(context.Context) ([]int, error) { return ids, nil })
			found := requiredBatch(c, "found", readLimit, page, func(ids []int) []int { return ids }, batch.fetch)
			wantNoError(t, "wait", c.wait())

			asked := map[int]int{}
			for _, call := range batch.calls {
				if len(call) > 100 {
					t.Errorf("%d ids: a call asked for %d", count, len(call))
				}
				for _, id := range call {
					asked[id]++
				}
			}
			if want := (count + 99) / 100; len(batch.calls) != want {
				t.Errorf("%d ids: got %d calls, want %d", count, len(batch.calls), want)
			}
			for id := range count {
				want := fmt.Sprint("value ", id)
				if id%7 == 0 {
					want = ""
				}
				if asked[id] != 1 || found.value[id] != want {
					t.Fatalf("%d ids: %d was asked for %d times and is %q, want once and %q", count, id, asked[id], found.value[id], want)
				}
			}
		})
	}
}

func TestAtMostSixteenCallsAreUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batch batchOf
		ids := slices.Collect(maps.Keys(func() map[int]bool {
			all := map[int]bool{}
			for id := range 3000 {
				all[id] = true
			}
			return all
		}()))
		began := time.Now()
		c := compose(t.Context(), discard)
		for range 3 { // batches, and calls beside them
			page := required(c, "page", readLimit, func(context.Context) ([]int, error) { return ids, nil })
			requiredBatch(c, "batch", readLimit, page, func(ids []int) []int { return ids }, batch.fetch)
		}
		for range 30 {
			required(c, "one", readLimit, func(ctx context.Context) (map[int]string, error) { return batch.fetch(ctx, []int{1}) })
		}
		wantNoError(t, "wait", c.wait())
		if batch.atMost != 16 {
			t.Errorf("got %d calls under way, want 16", batch.atMost)
		}
		// 120 calls of 10 ms, 16 at a time.
		if took := time.Since(began); took != 80*time.Millisecond {
			t.Errorf("took %s, want 80ms: no place may stay empty", took)
		}
	})
}

func TestABatchFailsAsAWhole(t *testing.T) {
	t.Parallel()
	for name, fetch := range map[string]func(context.Context, []int) (map[int]string, error){
		"NOT_FOUND": func(ctx context.Context, ids []int) (map[int]string, error) {
			if slices.Contains(ids, 150) {
				return nil, fault.New(connect.CodeNotFound, "NOT_FOUND", "There is none.").WithRemote()
			}
			<-ctx.Done()
			return nil, ctx.Err()
		},
		fault.ReasonInternal: func(_ context.Context, ids []int) (map[int]string, error) {
			if slices.Contains(ids, 150) {
				panic("boom")
			}
			return map[int]string{1: "some"}, nil
		},
		fault.ReasonUnavailable: func(ctx context.Context, _ []int) (map[int]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := compose(t.Context(), discard)
			page := required(c, "page", readLimit, func(context.Context) (int, error) { return 1000, nil })
			found := requiredBatch(c, "found", readLimit, page, func(count int) []int {
				return slices.Collect(func(yield func(int) bool) {
					for id := range count {
						if !yield(id) {
							return
						}
					}
				})
			}, fetch)
			if err := c.wait(); fault.Reason(err) != name || found.value != nil {
				t.Errorf("got %v and %v, want %s and nothing", err, found.value, name)
			}
		})
	}
}
