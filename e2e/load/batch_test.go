package load

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
	batchv1 "gatehouse/gen/batch/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/rpc"
)

// traffic records the requests to the services for GetMe, and what goes to Postgres for each call.
type traffic struct {
	mu         sync.Mutex
	requests   map[string][]string // paths by service
	statements map[string][]string // round trips by request id, and the statements of each
	unknown    string              // a path that auth does not know
}

func (tr *traffic) wrap(_ int, service string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.mu.Lock()
		if slices.Contains([]string{batchv1.BatchServiceCallProcedure, getAccount, listSessions, getProfile}, r.URL.Path) {
			tr.requests[service] = append(tr.requests[service], r.URL.Path)
		}
		if service == harness.RoleAuth && r.URL.Path == tr.unknown {
			r.URL.Path += "OfAnotherVersion"
		}
		tr.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (tr *traffic) note(ctx context.Context, statements string) {
	if id := rpc.CallFrom(ctx).RequestID; id != "" {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.statements[id] = append(tr.statements[id], statements)
	}
}

// TraceQueryStart implements pgx.QueryTracer.
func (tr *traffic) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	tr.note(ctx, data.SQL)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (tr *traffic) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (tr *traffic) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	var all []string
	for _, query := range data.Batch.QueuedQueries {
		all = append(all, query.SQL)
	}
	tr.note(ctx, strings.Join(all, ";"))
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (tr *traffic) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (tr *traffic) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// getMe calls GetMe and returns the requests that it made by service, and its round
// trips to Postgres.
func (tr *traffic) getMe(t *testing.T, s *harness.System, token string) (requests map[string][]string, roundTrips []string) {
	t.Helper()
	tr.mu.Lock()
	tr.requests = map[string][]string{}
	tr.mu.Unlock()
	status, header, body := s.Post(t, bffv1.AccountServiceGetMeProcedure, token, "{}")
	if status != http.StatusOK || !strings.Contains(body, `"sessions":[{`) || !strings.Contains(body, `"email"`) || strings.Contains(body, `"errors"`) {
		t.Fatalf("GetMe: %d %s", status, body)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, paths := range tr.requests {
		slices.Sort(paths)
	}
	return tr.requests, tr.statements[header.Get(rpc.RequestIDHeader)]
}

const (
	getAccount   = "/auth.v1.AccountService/GetAccount"
	listSessions = "/auth.v1.SessionService/ListSessions"
	getProfile   = "/users.v1.ProfileService/GetProfile"
)

func wantRequests(t *testing.T, what string, got map[string][]string, auth, users []string) {
	t.Helper()
	if !slices.Equal(got[harness.RoleAuth], auth) || !slices.Equal(got[harness.RoleUsers], users) {
		t.Errorf("%s: got the requests %v; want %v to auth and %v to users", what, got, auth, users)
	}
}

func newTraffic() *traffic {
	return &traffic{requests: map[string][]string{}, statements: map[string][]string{}}
}

func TestGetMeAsksEachServiceOnce(t *testing.T) {
	t.Parallel()
	tr := newTraffic()
	s := harness.StartStack(t, harness.StackConfig{Wrap: tr.wrap, Tracer: tr}).Gateways[0]
	person := s.SignUp(t, "ada@example.com")
	batch := []string{batchv1.BatchServiceCallProcedure}

	requests, roundTrips := tr.getMe(t, s, person.Access)
	wantRequests(t, "nothing is cached", requests, batch, []string{getProfile})
	if len(roundTrips) != 2 {
		t.Errorf("got %d round trips to Postgres, want one of auth and one of users: %q", len(roundTrips), roundTrips)
	}
}

// While the services are replaced, a gateway calls an auth that knows no batches.
func TestGetMeComesFromAnAuthWithoutBatches(t *testing.T) {
	t.Parallel()
	tr := newTraffic()
	tr.unknown = batchv1.BatchServiceCallProcedure
	s := harness.StartStack(t, harness.StackConfig{Wrap: tr.wrap, Tracer: tr}).Gateways[0]
	ada, ben := s.SignUp(t, "ada@example.com"), s.SignUp(t, "ben@example.com")
	alone := []string{getAccount, listSessions}

	requests, roundTrips := tr.getMe(t, s, ada.Access)
	wantRequests(t, "auth is not known", requests, append([]string{alone[0], listSessions}, batchv1.BatchServiceCallProcedure), []string{getProfile})
	if len(roundTrips) != 3 {
		t.Errorf("got %d round trips to Postgres, want 3: %q", len(roundTrips), roundTrips)
	}
	requests, _ = tr.getMe(t, s, ben.Access)
	wantRequests(t, "auth is known", requests, alone, []string{getProfile})
}
