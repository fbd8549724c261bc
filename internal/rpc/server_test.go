package rpc_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

func TestAServerWithoutAPolicyIsNotBuilt(t *testing.T) {
	t.Parallel()
	spec := rpctest.Method(t, rpctest.ForServices("bff"), connect.StreamTypeUnary)
	withoutSchema := spec
	withoutSchema.Schema = nil
	who := func(access *policyv1.Access) connect.Spec {
		return rpctest.Method(t, &policyv1.Method{Access: access}, connect.StreamTypeUnary)
	}
	anyone := who(&policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}})
	signedIn := who(&policyv1.Access{Who: &policyv1.Access_SignedIn{SignedIn: &policyv1.SignedIn{}}})
	admins := who(&policyv1.Access{Who: &policyv1.Access_Roles{Roles: &policyv1.Roles{AnyOf: []string{"admin"}}}})
	self := who(&policyv1.Access{Who: &policyv1.Access_Self{Self: &policyv1.Self{Field: "value"}}})
	refuses := func(*policy.Method) (rpc.Admission, error) { return rpc.Admission{}, errors.New("no such role") }
	forgets := func(*policy.Method) (rpc.Admission, error) { return rpc.Admission{}, nil }

	for _, test := range []struct {
		name       string
		spec       connect.Spec
		authorizer rpc.Authorizer
		fault      string // "" for none
	}{
		{"a policy", spec, rpc.ServicesOnly(rpctest.Keys, "users"), ""},
		{"a public policy behind a gateway", anyone, rpctest.AllowAll, ""},
		{"no schema", withoutSchema, rpctest.AllowAll, "it has no schema"},
		{"no policy", rpctest.Method(t, nil, connect.StreamTypeUnary), rpctest.AllowAll, "does not declare who may call"},
		{"no policy for a stream", rpctest.Method(t, nil, connect.StreamTypeServer), rpctest.AllowAll, "does not declare who may call"},
		{"an empty policy", rpctest.Method(t, &policyv1.Method{}, connect.StreamTypeUnary), rpctest.AllowAll, "does not declare who may call"},
		{"nobody named", who(&policyv1.Access{}), rpctest.AllowAll, "does not declare who may call"},
		{"anyone, among services", anyone, rpc.ServicesOnly(rpctest.Keys, "users"), "must name the services"},
		{"the signed in, among services", signedIn, rpc.ServicesOnly(rpctest.Keys, "users"), "must name the services"},
		{"roles, among services", admins, rpc.ServicesOnly(rpctest.Keys, "users"), "must name the services"},
		{"oneself, among services", self, rpc.ServicesOnly(rpctest.Keys, "users"), "must name the services"},
		{"no service", rpctest.Method(t, rpctest.ForServices(), connect.StreamTypeUnary), rpc.ServicesOnly(rpctest.Keys, "users"), "names no service"},
		{"no authentication", spec, forgets, "no interceptor authenticates the caller"},
		{"a policy that can't be enforced", spec, refuses, "no such role"},
	} {
		_, err := rpc.NewServer(rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: test.authorizer}, func(server *connect.Server) {
			server.Register(connect.Method{Spec: test.spec, Handler: rpctest.Succeed})
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
	_, err := rpc.NewServer(rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: rpctest.AllowAll}, func(server *connect.Server) {
		rpctest.RegisterProfiles(rpctest.Found)(server)
		server.Register(connect.Method{Spec: rpctest.Method(t, nil, connect.StreamTypeUnary), Handler: rpctest.Succeed})
	})
	if err == nil || !strings.Contains(err.Error(), "/test.v1.TestService/Call") {
		t.Errorf("got %v, want a refusal that names /test.v1.TestService/Call", err)
	}
}

func TestAServerTellsWhatItServes(t *testing.T) {
	t.Parallel()
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
		usersv1.RegisterRelayServiceHandler(server, usersv1.UnimplementedRelayServiceHandler{})
		rpctest.RegisterProfiles(rpctest.Found)(server)
	})
	if got, want := server.Services(), []string{"users.v1.ProfileService", "users.v1.RelayService"}; !slices.Equal(got, want) {
		t.Errorf("got the services %q, want %q", got, want)
	}
	plans := map[string]*policy.Method{}
	for _, plan := range server.Methods() {
		plans[plan.Procedure] = plan
	}
	if len(plans) != 6 {
		t.Errorf("got %d plans, want 6: %v", len(plans), plans)
	}
	if got := plans[usersv1.RelayServiceApplyAccountProcedure].Access.GetServices().GetAnyOf(); !slices.Equal(got, []string{"auth"}) {
		t.Errorf("ApplyAccount: got a policy for %q, want auth", got)
	}
}
