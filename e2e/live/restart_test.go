package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"syscall"
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
	gateways [2]*harness.System
	http1    bool

	mu     sync.Mutex
	seen   time.Time       // when an event last named the profile
	delays []time.Duration // that gateways gave
	rude   []error         // ends of open streams without a reason and a delay
}

func (r *resumer) open(ctx context.Context, cursor string) (bffv1.AccountServiceWatchMeClientStream, error) {
	gateway := r.gateways[rand.N(len(r.gateways))]
	client := gateway.Client(r.person.Access)
	if r.http1 {
		client = gateway.ClientOver(new(http.Client), r.person.Access)
	}
	return client.Account.WatchMe(ctx, &bffv1.WatchMeRequest{Cursor: cursor})
}

func (r *resumer) run(ctx context.Context) {
	cursor := ""
	for ctx.Err() == nil {
		begun := false
		stream, err := r.open(ctx, cursor)
		for err == nil {
			var event *bffv1.WatchMeResponse
			if event, err = stream.Receive(); err == nil {
				cursor, begun = r.take(event, cursor), true
			}
		}
		delay, given := fault.RetryDelay(err)
		r.mu.Lock()
		switch {
		case given:
			r.delays = append(r.delays, delay)
		case begun && ctx.Err() == nil:
			r.rude = append(r.rude, err)
		}
		r.mu.Unlock()
		if !given {
			delay = 100*time.Millisecond + rand.N(200*time.Millisecond) // nobody listens there yet
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
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
	return event.GetCursor()
}

// ends returns how the streams ended since the last call.
func (r *resumer) ends() (delays []time.Duration, rude []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delays, rude, r.delays, r.rude = r.delays, r.rude, nil, nil
	return delays, rude
}

// restart is what a round of the test does to one process.
type restart struct {
	role   string
	copied int
	signal syscall.Signal
}

// Each person is changed once while each process restarts, a few milliseconds after another;
// every stream of theirs names it afterwards. GATEHOUSE_TEST_STREAMS=1000 takes 1,000.
func TestARollingRestartMissesNoChange(t *testing.T) {
	pair := harness.StartPair(t, harness.WithSettings("GATEHOUSE_THROTTLE=off", "GATEHOUSE_DRAIN=1s"))
	const each = 2
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer func() { stop(); group.Wait() }()
	var followers []*resumer
	for i := range max(streams(100)/each, 1) {
		person := pair[0].SignUp(t, fmt.Sprintf("person%d@example.com", i))
		for j := range each {
			r := &resumer{person: person, gateways: pair, http1: j == 0}
			followers = append(followers, r)
			group.Go(func() { r.run(ctx) })
		}
	}
	untilSeen(t, followers, func(*resumer) time.Time { return time.Time{} })
	var delays []time.Duration
	for _, round := range []restart{
		{harness.RoleAuth, 0, syscall.SIGTERM}, {harness.RoleAuth, 1, syscall.SIGTERM},
		{harness.RoleBff, 0, syscall.SIGTERM}, {harness.RoleBff, 1, syscall.SIGTERM},
		{harness.RoleAuth, 0, syscall.SIGKILL}, {harness.RoleBff, 1, syscall.SIGKILL},
	} {
		changed := map[*harness.Person]time.Time{}
		var changing sync.WaitGroup
		changing.Go(func() {
			for at := 0; at < len(followers); at += each {
				person := followers[at].person
				changed[person] = time.Now()
				if err := change(t.Context(), pair[1-round.copied], person, round); err != nil {
					t.Errorf("%v: a call through the other gateway: %v", round, err)
				}
				time.Sleep(5 * time.Second / time.Duration(len(followers)/each)) // through the whole restart
			}
		})
		process := pair[round.copied].Processes[round.role]
		if err := process.Cmd.Process.Signal(round.signal); err != nil {
			t.Fatal(err)
		}
		process.Wait(t)
		pair[round.copied].Start(t, round.role)
		changing.Wait()
		untilSeen(t, followers, func(r *resumer) time.Time { return changed[r.person] })
		var given []time.Duration
		var rude []error
		for _, r := range followers {
			d, e := r.ends()
			given, rude = append(given, d...), append(rude, e...)
		}
		t.Logf("%v: %d streams ended with a delay, %d without", round, len(given), len(rude))
		if len(rude) > 0 && round.signal == syscall.SIGTERM {
			t.Errorf("%v: %d streams ended without a reason and a delay, such as by %v", round, len(rude), rude[0])
		}
		if round.role == harness.RoleBff && round.signal == syscall.SIGTERM {
			delays = append(delays, given...)
		}
	}
	wantSpread(t, delays, len(followers))
}

// change changes a person's profile. A call may fail when a process is killed, and is then
// repeated; when it is restarted, none may.
func change(ctx context.Context, through *harness.System, person *harness.Person, round restart) error {
	call := func() error {
		_, err := through.Client(person.Access).Account.UpdateMe(ctx, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: fmt.Sprintf("Ada of %s %d %d", round.role, round.copied, round.signal)}})
		return err
	}
	if round.signal == syscall.SIGKILL {
		return harness.Patiently(call)
	}
	return call()
}

func untilSeen(t *testing.T, followers []*resumer, since func(*resumer) time.Time) {
	t.Helper()
	harness.Eventually(t, 60*time.Second, "every stream names the change", func() error {
		missed := 0
		for _, r := range followers {
			r.mu.Lock()
			if !r.seen.After(since(r)) {
				missed++
			}
			r.mu.Unlock()
		}
		if missed > 0 {
			return fmt.Errorf("%d of %d streams do not", missed, len(followers))
		}
		return nil
	})
}

// wantSpread checks the delays that the gateways gave when each had been restarted once.
func wantSpread(t *testing.T, delays []time.Duration, streams int) {
	t.Helper()
	bySecond := [6]int{}
	for _, delay := range delays {
		bySecond[min(int(delay/time.Second), 5)]++
	}
	t.Logf("%d streams, of which the gateways that stopped ended %d, came back after 0 to 5 s, by second: %v", streams, len(delays), bySecond)
	if len(delays) < streams/2 {
		t.Errorf("%d streams were given a delay, want at least half of %d", len(delays), streams)
	}
	for second, n := range bySecond[:5] {
		if n == 0 || n > len(delays)/2 {
			t.Errorf("%d of %d streams came back in second %d, want them spread", n, len(delays), second)
		}
	}
}
