package compose

import (
	"context"
	"errors"
	"fmt"
	"gatehouse/internal/fault"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
)

// node is a part of a random composition: its dependency, its duration, and whether it fails.
type node struct {
	required bool
	needs    []int // at most one
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
			// All events have different times, within the time limits.
			takes: time.Duration(1 + random.Int64N(int64(testLimit)-2)),
			fails: random.IntN(6) == 0,
		}
		if i > 0 && random.IntN(3) > 0 {
			graph[i].needs = []int{random.IntN(i)}
		}
	}
	return graph
}

// happening is the expected or the actual course of a node.
type happening struct {
	began, ended time.Duration // -1 for never
	canceled     bool
	value        int
	reason       string
}

func reasonOf(i int) string { return fmt.Sprintf("FAILED_%d", i) }

// model computes the expected course: each node starts when its dependency has ended, and the
// first failure of a required node cancels the others.
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

// play runs a graph with this package.
func play(ctx context.Context, graph []node) (happenings []happening, failure string, missing []string) {
	happenings = make([]happening, len(graph))
	start := time.Now()
	c := New(ctx, mapError)
	parts := make([]*Part[int], len(graph))
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
	err := c.Wait()
	for i, p := range parts {
		happenings[i].value = p.value
		if p.err != nil && !errors.Is(p.err, context.Canceled) {
			happenings[i].reason = fault.Reason(p.err)
		}
	}
	if err != nil {
		return happenings, fault.Reason(err), nil
	}
	for _, one := range c.Missing() {
		missing = append(missing, one.Part+" "+fault.Reason(one.Err))
	}
	return happenings, "", missing
}

// declare declares a node with the function for its kind.
func declare(c *Composition, n node, name string, parts []*Part[int], fetch func(context.Context, int) (int, error)) *Part[int] {
	alone := func(ctx context.Context) (int, error) { return fetch(ctx, 0) }
	switch {
	case n.required && len(n.needs) == 0:
		return Required(c, name, testLimit, alone)
	case n.required:
		return RequiredFrom(c, name, testLimit, parts[n.needs[0]], fetch)
	case len(n.needs) == 0:
		return Optional(c, name, testLimit, alone)
	default:
		return OptionalFrom(c, name, testLimit, parts[n.needs[0]], fetch)
	}
}

// Random compositions behave as in the model: each part starts as soon as it can, and the
// first failure of a required part cancels all running parts.
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

// When the caller cancels, the context of every running part ends, and no other part
// starts.
func TestTheCallersCancellationReachesEveryPart(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		graph := randomGraph(random)
		for i := range graph {
			graph[i].fails = false
		}
		leaves := time.Duration(random.Int64N(int64(testLimit)))
		synctest.Test(t, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			time.AfterFunc(leaves, leave)
			start := time.Now()
			got, _, _ := play(ctx, graph)
			if took := time.Since(start); took > leaves {
				t.Errorf("seed %d: ended after %s, want %s, the time of the cancellation\ngraph %v", seed, took, leaves, graph)
			}
			for i, h := range got {
				if h.began > leaves || h.ended > leaves {
					t.Errorf("seed %d: part %d: got %+v after the cancellation at %s", seed, i, h, leaves)
				}
			}
		})
	}
}

// After the failure of a required part no part starts, even if its dependency is fetched
// later.
func TestNoPartStartsAfterAFailure(t *testing.T) {
	t.Parallel()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c := New(t.Context(), mapError)
			slow := Optional(c, "slow", testLimit, func(context.Context) (int, error) {
				time.Sleep(time.Second) // ignores its context
				return 1, nil
			})
			RequiredFrom(c, "next", testLimit, slow, func(context.Context, int) (int, error) {
				t.Error("a part started after the failure")
				return 0, nil
			})
			Required(c, "failing", testLimit, func(context.Context) (int, error) { return 0, remote(errNotFound) })
			if err := c.Wait(); fault.Reason(err) != "NONE" {
				t.Errorf("got %v, want the failure", err)
			}
		})
	}
}

// When two parts fail before either can be cancelled, the caller always receives the
// failure of the part that was declared first.
func TestTheFailureDeclaredFirstIsReturned(t *testing.T) {
	t.Parallel()
	for range 200 {
		c := New(t.Context(), mapError)
		var begun sync.WaitGroup
		begun.Add(2)
		for _, reason := range []string{"FIRST", "SECOND"} {
			Required(c, reason, testLimit, func(context.Context) (int, error) {
				begun.Done()
				begun.Wait()
				return 0, fault.New(connect.CodeNotFound, reason, "There is none.")
			})
		}
		if err := c.Wait(); fault.Reason(err) != "FIRST" && fault.Reason(err) != "SECOND" {
			t.Fatalf("got %v, want a failure", err)
		} else if first, second := c.parts[0].err, c.parts[1].err; fault.Reason(first) == "FIRST" && fault.Reason(second) == "SECOND" && fault.Reason(err) != "FIRST" {
			t.Fatalf("both parts failed: got %v, want the failure declared first", err)
		}
	}
}
