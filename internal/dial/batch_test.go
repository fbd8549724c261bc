package dial_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"

	batchv1 "gatehouse/gen/batch/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/batch"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// pair is a service with two endpoints, which counts requests by path.
type pair struct {
	mu       sync.Mutex
	requests map[string]int
	refusing [2]atomic.Bool
	client   *connect.Client
}

func newPair(t *testing.T) *pair {
	p := &pair{requests: map[string]int{}}
	var urls [2]string
	for i := range urls {
		server := rpctest.NewServer(t, "users", rpc.ServerConfig{Internal: true}, rpctest.RegisterProfiles(func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			if p.refusing[i].Load() {
				return nil, fault.Unavailable()
			}
			return rpctest.Found(ctx, req)
		}))
		mux := server.Mux(rpctest.IsReady)
		urls[i] = rpctest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			p.requests[r.URL.Path]++
			p.mu.Unlock()
			mux.ServeHTTP(w, r)
		}))
	}
	p.client = rpctest.Dial(t, rpctest.BFFToUsers, urls[0]+","+urls[1])
	return p
}

// read makes calls that start together and returns their errors.
func (p *pair) read(ctx context.Context, calls int) []error {
	var round batch.Round
	members, failures := make([]batch.Member, calls), make([]error, calls)
	for i := range members {
		round.Add(&members[i], ctx, 0)
	}
	var running sync.WaitGroup
	for i := range members {
		running.Go(func() {
			defer members[i].Leave()
			_, failures[i] = rpctest.Get(&members[i], p.client)
		})
	}
	running.Wait()
	return failures
}

// A batch that an endpoint refuses is retried at another endpoint, like a single call.
func TestARefusedBatchIsRetriedAtAnotherEndpoint(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const rounds = 40
	for range rounds { // earns a budget
		p.read(t.Context(), 2)
	}
	p.refusing[0].Store(true)
	for i := range rounds {
		for _, err := range p.read(t.Context(), 2) {
			if err != nil {
				t.Errorf("round %d: %v, want the response of the other endpoint", i, err)
			}
		}
	}
	single, batches := p.requests[usersv1.ProfileServiceGetProfileProcedure], p.requests[batchv1.BatchServiceCallProcedure]
	if single != 0 || batches < 2*rounds {
		t.Errorf("%d rounds made %d single requests and %d batches, want none and at least %d", 2*rounds, single, batches, 2*rounds)
	}
}

func TestASingleCallIsNotBatched(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	if err := p.read(t.Context(), 1)[0]; err != nil {
		t.Errorf("read: %v", err)
	}
	if got := p.requests[batchv1.BatchServiceCallProcedure]; got != 0 {
		t.Errorf("got %d batches, want none", got)
	}
}

func TestACanceledBatchEndsEachOfItsCalls(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range p.read(ctx, 3) {
		if connect.CodeOf(err) != connect.CodeCanceled {
			t.Errorf("got %v, want canceled", err)
		}
	}
}
