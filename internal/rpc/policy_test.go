package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/rpc"
)

// answersAll is a handler for methods that only have to be there.
func answersAll(context.Context, connect.Spec, connect.ServerStream) error { return nil }

// letsAllIn is an authorizer that asks nothing of anybody.
func letsAllIn(*rpc.Plan) (rpc.Admission, error) {
	return rpc.Admission{Authenticate: func(next connect.ServerFunc) connect.ServerFunc { return next }}, nil
}

func TestAServerWithoutAPolicyIsNotBuilt(t *testing.T) {
	t.Parallel()
	spec := method(t, forServices("bff"), connect.StreamTypeUnary)
	withoutSchema := spec
	withoutSchema.Schema = nil
	who := func(access *policyv1.Access) connect.Spec {
		return method(t, &policyv1.Method{Access: access}, connect.StreamTypeUnary)
	}
	anyone := who(&policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}})
	signedIn := who(&policyv1.Access{Who: &policyv1.Access_SignedIn{SignedIn: &policyv1.SignedIn{}}})
	admins := who(&policyv1.Access{Who: &policyv1.Access_Roles{Roles: &policyv1.Roles{AnyOf: []string{"admin"}}}})
	self := who(&policyv1.Access{Who: &policyv1.Access_Self{Self: &policyv1.Self{Field: "value"}}})
	refuses := func(*rpc.Plan) (rpc.Admission, error) { return rpc.Admission{}, errors.New("no such role") }
	forgets := func(*rpc.Plan) (rpc.Admission, error) { return rpc.Admission{}, nil }

	for _, test := range []struct {
		name       string
		spec       connect.Spec
		authorizer rpc.Authorizer
		fault      string // "" for none
	}{
		{"a policy", spec, rpc.ServicesOnly(keys, "users"), ""},
		{"a public policy behind a gateway", anyone, letsAllIn, ""},
		{"no schema", withoutSchema, letsAllIn, "it has no schema"},
		{"no policy", method(t, nil, connect.StreamTypeUnary), letsAllIn, "doesn't say who may call"},
		{"no policy for a stream", method(t, nil, connect.StreamTypeServer), letsAllIn, "doesn't say who may call"},
		{"an empty policy", method(t, &policyv1.Method{}, connect.StreamTypeUnary), letsAllIn, "doesn't say who may call"},
		{"nobody named", who(&policyv1.Access{}), letsAllIn, "doesn't say who may call"},
		{"anyone, among services", anyone, rpc.ServicesOnly(keys, "users"), "must name the services"},
		{"the signed in, among services", signedIn, rpc.ServicesOnly(keys, "users"), "must name the services"},
		{"roles, among services", admins, rpc.ServicesOnly(keys, "users"), "must name the services"},
		{"oneself, among services", self, rpc.ServicesOnly(keys, "users"), "must name the services"},
		{"no service", method(t, forServices(), connect.StreamTypeUnary), rpc.ServicesOnly(keys, "users"), "names no service"},
		{"nobody who asks who is calling", spec, forgets, "nothing asks who is calling"},
		{"a policy that can't be enforced", spec, refuses, "no such role"},
	} {
		_, err := rpc.NewServer(rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: test.authorizer}, func(server *connect.Server) {
			server.Register(connect.Method{Spec: test.spec, Handler: answersAll})
		})
		switch {
		case test.fault == "" && err != nil:
			t.Errorf("%s: got %v, want a server", test.name, err)
		case test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)):
			t.Errorf("%s: got %v, want a refusal with %q", test.name, err, test.fault)
		case test.fault != "" && test.fault != "no such role" && !strings.Contains(err.Error(), test.spec.Procedure):
			t.Errorf("%s: got %v, want it to name %s", test.name, err, test.spec.Procedure)
		}
	}
}

func TestOneMethodWithoutAPolicyAmongOthersIsFound(t *testing.T) {
	t.Parallel()
	_, err := rpc.NewServer(rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: letsAllIn}, func(server *connect.Server) {
		registerProfiles(found)(server)
		server.Register(connect.Method{Spec: method(t, nil, connect.StreamTypeUnary), Handler: answersAll})
	})
	if err == nil || !strings.Contains(err.Error(), "/test.v1.TestService/Call") {
		t.Errorf("got %v, want a refusal that names /test.v1.TestService/Call", err)
	}
}

func TestAServerTellsWhatItServes(t *testing.T) {
	t.Parallel()
	server := newServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
		usersv1.RegisterRelayServiceHandler(server, usersv1.UnimplementedRelayServiceHandler{})
		registerProfiles(found)(server)
	})
	if got, want := server.Services(), []string{"users.v1.ProfileService", "users.v1.RelayService"}; !slices.Equal(got, want) {
		t.Errorf("got the services %q, want %q", got, want)
	}
	plans := map[string]*rpc.Plan{}
	for _, plan := range server.Plans() {
		plans[plan.Procedure] = plan
	}
	if len(plans) != 4 {
		t.Errorf("got %d plans, want 4: %v", len(plans), plans)
	}
	if got := plans[usersv1.RelayServiceApplyAccountProcedure].Access.GetServices().GetAnyOf(); !slices.Equal(got, []string{"auth"}) {
		t.Errorf("ApplyAccount: got a policy for %q, want auth", got)
	}
}
