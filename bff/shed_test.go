package bff

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
)

// fill takes all slots of a method's class until the test is over.
func (h *harness) fill(t testing.TB, procedure string) {
	t.Helper()
	queue := h.gateway.shedder.ClassOf(procedure).Queue
	for queue.State().Running < queue.State().Slots {
		_, err := queue.Enter(t.Context(), limit.Call{Flow: limit.Flow{Subject: "somebody else"}})
		wantNoError(t, "Enter", err)
	}
}

const getMe = bffv1.AccountServiceGetMeProcedure

func TestARefusalOfTheQueueHasRetryAfter(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, limited: true})
	h.fill(t, getMe)
	before := h.called("")
	for name, clientOptions := range map[string][]connecthttp.Option{
		"Connect JSON": {connecthttp.WithProtoJSON()}, "Connect proto": nil,
		"gRPC": {connecthttp.WithGRPC()}, "gRPC-Web": {connecthttp.WithGRPCWeb()},
	} {
		client := bffv1.NewAccountServiceClient(h.client(clientOptions...))
		for range 2 { // from the queue, and where it is overloaded, from prepared bytes
			_, got := ask(t, client.GetMe, &bffv1.GetMeRequest{}, h.token(alice))
			if strings.HasPrefix(name, "Connect") {
				wantUnavailable(t, name, got, fault.ReasonOverloaded)
				if got.header.Get("X-Request-Id") == "" {
					t.Errorf("%s: a refusal has no request id", name)
				}
			}
			if connect.CodeOf(got.err) != connect.CodeUnavailable || fault.Reason(got.err) != fault.ReasonOverloaded {
				t.Errorf("%s: %v (%s), want OVERLOADED", name, got.err, fault.Reason(got.err))
			}
			if after, ok := fault.RetryDelay(got.err); !ok || after <= 0 {
				t.Errorf("%s: it doesn't say when to come back", name)
			}
		}
	}
	if h.called("") != before {
		t.Errorf("%d calls reached a service", h.called("")-before)
	}
	// A line for each would be more load still.
	if log := h.log.String(); strings.Count(log, "shedding load") != 1 || strings.Contains(log, "OVERLOADED") {
		t.Errorf("the log has %d lines about it, want one:\n%s", strings.Count(log, "shedding load"), log)
	}
	for _, path := range []string{"/livez", "/readyz", "/.well-known/jwks.json", "/docs"} {
		if response, body := h.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s, want 200 whatever the load", path, response.StatusCode, body)
		}
	}
	if response, body := h.send(t, "/grpc.health.v1.Health/Check", `{}`); response.StatusCode != http.StatusOK || !strings.Contains(body, "SERVING") {
		t.Errorf("health: %d %s, want 200 whatever the load", response.StatusCode, body)
	}
	// What changes something has slots of its own.
	_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice))
	wantNoError(t, "UpdateMe", got.err)
}

func TestARefusalOfTheQueueRestoresTheRate(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true, policy: "bff.v1.AccountService/GetMe rate=2/h burst=2"})
	h.fill(t, getMe)
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			_, got := h.getMe(t, h.token(alice))
			if reason := fault.Reason(got.err); reason != fault.ReasonOverloaded && reason != "RATE_LIMITED" {
				t.Errorf("GetMe: %v", got.err)
			}
		})
	}
	group.Wait()
	_, got := h.getMe(t, h.token(alice))
	wantUnavailable(t, "after six refusals of a rate of two an hour", got, fault.ReasonOverloaded)
}

func TestAnUnavailableServiceRestoresTheRate(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, limited: true, policy: "bff.v1.AuthService/Refresh rate=2/h burst=2"})
	refuse := atomic.Bool{}
	refuse.Store(true)
	answer(h.backend, authv1.SessionServiceRefreshProcedure, func(context.Context, *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		if refuse.Load() {
			return nil, fault.Unavailable()
		}
		return &authv1.RefreshResponse{Tokens: someTokens()}, nil
	})
	refresh := func() reply {
		_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_" + strings.Repeat("a", 60)}, "")
		return got
	}
	for range 5 {
		got := refresh()
		if connect.CodeOf(got.err) != connect.CodeUnavailable {
			t.Fatalf("while auth is unreachable: %v, want unavailable", got.err)
		}
		if left := got.header.Get("RateLimit"); !strings.Contains(left, ";r=2;") {
			t.Errorf("it says that %s is left, want all of it", left)
		}
	}
	refuse.Store(false)
	for range 2 {
		wantNoError(t, "within the rate", refresh().err)
	}
	if got := refresh(); fault.Reason(got.err) != "RATE_LIMITED" {
		t.Errorf("beyond the rate: %v, want RATE_LIMITED", got.err)
	}
}

func TestClassesDependOnTheKindAndTheServicesOfAMethod(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true})
	_, got := h.getMe(t, h.token(alice))
	wantNoError(t, "GetMe", got.err)
	_, got = ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice))
	wantNoError(t, "UpdateMe", got.err)
	_, got = ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, h.token(alice))
	wantNoError(t, "ListSessions", got.err)
	want := map[string]string{"GetMe": "reads:auth+users", "ListSessions": "reads:auth", "UpdateMe": "writes:auth+users", "Logout": "writes"}
	for _, plan := range h.gateway.rpc.Methods() {
		class := h.gateway.shedder.ClassOf(plan.Procedure)
		if name, ok := want[string(plan.Descriptor.Name())]; ok && class.Name != name {
			t.Errorf("%s is in the class %s, want %s", plan.Procedure, class.Name, name)
		}
	}
}
