package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// resumer follows one person's changes as a client does behind a load balancer: when its
// stream ends, it opens another at some gateway, after the delay that it was given.
type resumer struct {
	person   *harness.Person
	gateways []*harness.System

	mu     sync.Mutex
	seen   time.Time // when an event last named the profile
	opened int
	delays []time.Duration // that gateways gave
}

func (r *resumer) run(ctx context.Context) {
	cursor := ""
	for ctx.Err() == nil {
		gateway := r.gateways[rand.N(len(r.gateways))]
		stream, err := gateway.Client(r.person.Access).Account.WatchMe(ctx, &bffv1.WatchMeRequest{Cursor: cursor})
		for err == nil {
			var event *bffv1.WatchMeResponse
			if event, err = stream.Receive(); err == nil {
				cursor = r.take(event, cursor)
			}
		}
		delay, given := fault.RetryDelay(err)
		if !given {
			delay = 100*time.Millisecond + rand.N(200*time.Millisecond) // nobody listens there yet
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		r.mu.Lock()
		if given {
			r.delays = append(r.delays, delay)
		}
		r.mu.Unlock()
	}
}

// take notes an event, and returns the cursor after it.
func (r *resumer) take(event *bffv1.WatchMeResponse, cursor string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(event.GetChanged().GetParts(), "profile") {
		r.seen = time.Now()
	}
	if event.GetEnded() != nil {
		return cursor
	}
	if event.GetComplete() {
		r.opened++
	}
	return event.GetCursor()
}

func (r *resumer) hasSeen(since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.After(since)
}

// Each person is changed once while the one gateway restarts, and once while the other
// does; every stream of theirs names it afterwards.
func TestARollingRestartMissesNoChange(t *testing.T) {
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	gateways := []*harness.System{s, s.Copy(t, harness.RoleBff)}
	const each = 5
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer func() { stop(); group.Wait() }()
	var followers []*resumer
	for i := range max(streams(60)/each, 1) {
		person := s.SignUp(t, fmt.Sprintf("person%d@example.com", i))
		for range each {
			r := &resumer{person: person, gateways: gateways}
			followers = append(followers, r)
			group.Go(func() { r.run(ctx) })
		}
	}
	untilSeen := func(since func(*resumer) time.Time) {
		t.Helper()
		harness.Eventually(t, 60*time.Second, "every stream names the change", func() error {
			missed := 0
			for _, r := range followers {
				if !r.hasSeen(since(r)) {
					missed++
				}
			}
			if missed > 0 {
				return fmt.Errorf("%d of %d streams do not", missed, len(followers))
			}
			return nil
		})
	}
	untilSeen(func(*resumer) time.Time { return time.Time{} })
	for i, restarted := range gateways {
		changed := map[*harness.Person]time.Time{}
		var changing sync.WaitGroup
		changing.Go(func() {
			for at := 0; at < len(followers); at += each {
				person := followers[at].person
				changed[person] = time.Now()
				if _, err := gateways[1-i].Client(person.Access).Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: fmt.Sprint("Ada", i)}}); err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Second / time.Duration(len(followers)/each)) // through the whole restart
			}
		})
		restarted.Restart(t, harness.RoleBff)
		changing.Wait()
		untilSeen(func(r *resumer) time.Time { return changed[r.person] })
	}
	var delays []time.Duration
	opened, bySecond := 0, [6]int{}
	for _, r := range followers {
		r.mu.Lock()
		delays, opened = append(delays, r.delays...), opened+r.opened
		r.mu.Unlock()
	}
	for _, delay := range delays {
		bySecond[min(int(delay/time.Second), 5)]++
	}
	t.Logf("%d streams, of which the gateways that stopped ended %d, came back after 0 to 5 s, by second: %v; %d complete events", len(followers), len(delays), bySecond, opened)
	if len(delays) < len(followers)/2 {
		t.Errorf("%d streams were given a delay, want at least half of %d", len(delays), len(followers))
	}
	for second, n := range bySecond[:5] {
		if n == 0 || n > len(delays)/2 {
			t.Errorf("%d of %d streams came back in second %d, want them spread", n, len(delays), second)
		}
	}
}
