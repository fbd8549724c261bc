package batch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// trial runs the members of a round and records what was sent.
type trial struct {
	begin chan struct{} // closed once all members are added
	mu    sync.Mutex
	sent  [][]string
}

// start starts a member that sends a request to a destination after some time; one
// without a destination leaves then. It tells whether the request was sent with others.
func (tr *trial) start(r *Round, ctx context.Context, limit, after time.Duration, destination, request string) func() (bool, error) { //nolint:revive // as Round.Add
	m := &Member{}
	r.Add(m, ctx, limit)
	type outcome struct {
		together bool
		err      error
	}
	ended := make(chan outcome, 1)
	go func() {
		<-tr.begin
		time.Sleep(after)
		if destination == "" {
			m.Leave()
			ended <- outcome{}
			return
		}
		together, err := From(m).Do(m, destination, request, func(requests []any) {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			var texts []string
			for _, one := range requests {
				texts = append(texts, one.(string))
			}
			slices.Sort(texts)
			tr.sent = append(tr.sent, texts)
		})
		ended <- outcome{together, err}
	}()
	return func() (bool, error) { o := <-ended; return o.together, o.err }
}

func (tr *trial) wantSent(t *testing.T, want ...[]string) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	slices.SortFunc(tr.sent, slices.Compare)
	if !slices.EqualFunc(tr.sent, want, slices.Equal) {
		t.Errorf("sent %v, want %v", tr.sent, want)
	}
}

func want(t *testing.T, what string, together bool, member func() (bool, error)) {
	t.Helper()
	if got, err := member(); got != together || err != nil {
		t.Errorf("%s: sent with others %v, error %v; want %v", what, got, err, together)
	}
}

func TestRequestsOfOneDestinationAreSentTogether(t *testing.T) {
	t.Parallel()
	// The last to come is a member of either destination, or one that leaves.
	for _, order := range [][5]time.Duration{{1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}, {1, 2, 5, 3, 4}, {1, 2, 3, 5, 4}} {
		synctest.Test(t, func(t *testing.T) {
			tr := trial{begin: make(chan struct{})}
			var r Round
			began := time.Now()
			a := tr.start(&r, t.Context(), time.Second, order[0], "x", "a")
			b := tr.start(&r, t.Context(), time.Second, order[1], "x", "b")
			alone := tr.start(&r, t.Context(), time.Second, order[2], "y", "c")
			tr.start(&r, t.Context(), time.Second, order[3], "", "")
			short := tr.start(&r, t.Context(), time.Minute, order[4], "x", "d")
			close(tr.begin)
			want(t, "a", true, a)
			want(t, "b", true, b)
			want(t, "the only one of its destination", false, alone)
			want(t, "the only one with its limit", false, short)
			tr.wantSent(t, []string{"a", "b"})
			if took := time.Since(began); took != 5 {
				t.Errorf("sent after %d ns, want 5, when the last member is there", took)
			}
		})
	}
}

func TestAMembersSecondRequestWaitsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Round
		var first, slow Member
		r.Add(&first, t.Context(), 0)
		r.Add(&slow, t.Context(), 0)
		first.Leave()
		if together, err := first.Do(t.Context(), "x", "second", nil); together || err != nil {
			t.Errorf("sent with others %v, error %v; want alone", together, err)
		}
		first.Leave() // counts once
		if r.over {
			t.Error("the round is over before its last member has left")
		}
		slow.Leave()
	})
}

// Nobody waits for a member that gave up, and nobody sends its request.
func TestARequestIsWithdrawnWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := trial{begin: make(chan struct{})}
		var r Round
		ctx, cancel := context.WithTimeout(t.Context(), 2)
		defer cancel()
		gone := tr.start(&r, ctx, 0, 1, "x", "gone")
		a := tr.start(&r, t.Context(), 0, 3, "x", "a")
		b := tr.start(&r, t.Context(), 0, 4, "x", "b")
		close(tr.begin)
		if together, err := gone(); together || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("sent with others %v, error %v; want the context's", together, err)
		}
		want(t, "a", true, a)
		want(t, "b", true, b)
		tr.wantSent(t, []string{"a", "b"})
	})
}

// The others get on, and know by what their requests lack that they were not sent.
func TestAPanicOfTheSenderReleasesTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r Round
		var members [3]Member
		for i := range members {
			r.Add(&members[i], t.Context(), 0)
		}
		var panics atomic.Int64
		var running sync.WaitGroup
		for i := range members {
			running.Go(func() {
				defer func() {
					if recover() != nil {
						panics.Add(1)
					}
				}()
				_, _ = members[i].Do(t.Context(), "x", i, func([]any) { panic("boom") })
			})
		}
		running.Wait()
		if got := panics.Load(); got != 1 {
			t.Errorf("%d members panicked, want the sender alone", got)
		}
	})
}
