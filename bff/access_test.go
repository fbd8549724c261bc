package bff

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/rpc"
)

var update = flag.Bool("update", false, "write testdata/methods.txt anew")

// A policy that is loosened shows in review, as a change of the file.
func TestWhoMayCallWhat(t *testing.T) {
	t.Parallel()
	const golden = "testdata/methods.txt"
	methods, err := Methods()
	wantNoError(t, "Methods", err)
	var got strings.Builder
	for _, method := range methods {
		line := fmt.Sprintf("%-46s %-21s %s", method.Path, method.Who, method.Fields)
		got.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if *update {
		wantNoError(t, "write", os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	wantNoError(t, "read", err)
	if got.String() != string(want) {
		t.Errorf("who may call what is not as in %s. If that is meant: go test ./bff -run %s -update\ngot:\n%swant:\n%s", golden, t.Name(), got.String(), want)
	}
}

// Every method is called by everybody, straight from the schema: what the page
// says of it must be what it does.
func TestEveryMethodsPolicyIsEnforced(t *testing.T) {
	t.Parallel()
	h := open(t, world{})
	methods, err := Methods()
	wantNoError(t, "Methods", err)
	tokens := map[string]string{"nobody": "", "a user": h.token(bob, "user"), "an administrator": h.token(bob, "user", "admin")}
	for _, method := range methods {
		for who, token := range tokens {
			var headers []string
			if token != "" {
				headers = append(headers, "Authorization", "Bearer "+token)
			}
			before := h.called("")
			// Empty, so that no method does what it is for: whoever is admitted
			// meets the validator, or a service.
			response, body := h.send(t, method.Path, "{}", headers...)
			want := 0 // admitted
			switch {
			case method.Who != "anyone" && who == "nobody":
				want = http.StatusUnauthorized
			case method.Who == "admin" && who == "a user":
				want = http.StatusForbidden
			case method.Who == "oneself or admin":
				want = http.StatusBadRequest // it says nobody
			}
			refused := response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden
			if want != 0 && response.StatusCode != want || want == 0 && refused {
				t.Errorf("%s, for %s, by %s: got %d %s, want %d", method.Path, method.Who, who, response.StatusCode, body, want)
			}
			if want != 0 && h.called("") != before {
				t.Errorf("%s by %s: refused, and yet a service was called", method.Path, who)
			}
		}
	}
}

func TestSelfIsTheOneWhomTheRequestIsAbout(t *testing.T) {
	t.Parallel()
	h := open(t, world{})
	get := func(token, id string) reply {
		_, got := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: id}, token)
		return got
	}
	update := func(token string, user *bffv1.User) reply {
		_, got := ask(t, h.users.UpdateUser, &bffv1.UpdateUserRequest{User: user}, token)
		return got
	}
	own, admin := h.token(alice), h.token(bob, "admin")
	for what, got := range map[string]reply{
		"get oneself":                      get(own, alice),
		"get oneself in upper case":        get(own, strings.ToUpper(alice)),
		"get another as administrator":     get(admin, alice),
		"update oneself":                   update(own, &bffv1.User{Id: alice, FirstName: "A"}),
		"update oneself in upper case":     update(own, &bffv1.User{Id: strings.ToUpper(alice), FirstName: "A"}),
		"update another as administrator":  update(admin, &bffv1.User{Id: alice, FirstName: "A"}),
		"update oneself as administrator":  update(admin, &bffv1.User{Id: bob, FirstName: "A"}),
		"get oneself with another role":    get(h.token(alice, "editor"), alice),
		"get oneself without a role":       get(h.token(alice), alice),
		"get another with admin among all": get(h.token(alice, "a", "admin", "z"), bob),
	} {
		if got.err != nil {
			t.Errorf("%s: %v", what, got.err)
		}
	}
	before := h.called("")
	for what, got := range map[string]reply{
		"get another":                       get(own, bob),
		"get another with the user role":    get(h.token(alice, "user"), bob),
		"get another with a role like it":   get(h.token(alice, "Admin", "admin ", "administrator", "admi", ""), bob),
		"update another":                    update(own, &bffv1.User{Id: bob, FirstName: "A"}),
		"update another by one's own email": update(own, &bffv1.User{Id: bob, Email: "ada@example.com"}),
	} {
		wantError(t, what, got, http.StatusForbidden, connect.CodePermissionDenied, rpc.ReasonPermissionDenied)
	}
	for _, token := range []string{own, admin} {
		for what, got := range map[string]reply{
			"get nobody":                 get(token, ""),
			"get what is no id":          get(token, "alice"),
			"get oneself and more":       get(token, alice+" "),
			"get oneself as a URN":       get(token, "urn:uuid:"+alice),
			"get oneself without dashes": get(token, strings.ReplaceAll(alice, "-", "")),
			"update without a user":      update(token, nil),
			"update nobody":              update(token, &bffv1.User{FirstName: "A"}),
		} {
			wantError(t, what, got, http.StatusBadRequest, connect.CodeInvalidArgument, rpc.ReasonInvalid)
		}
	}
	if after := h.called(""); after != before {
		t.Errorf("refused callers led to %d calls of services", after-before)
	}
}

// The gate doesn't lean on the validator: what names nobody isn't oneself.
func TestTheGateOfSelfIsShutToWhatNamesNobody(t *testing.T) {
	t.Parallel()
	gate, err := newGate(bffv1.UserServiceUpdateUserProcedure, &policyv1.Access{Who: &policyv1.Access_Self{Self: &policyv1.Self{Field: "user.id"}}})
	wantNoError(t, "newGate", err)
	who := &principal{userID: alice, roles: []string{"admin"}}
	for name, request := range map[string]*bffv1.UpdateUserRequest{
		"no request": nil, "no user": {}, "no id": {User: &bffv1.User{}}, "another": {User: &bffv1.User{Id: bob}},
		"a URN": {User: &bffv1.User{Id: "urn:uuid:" + alice}}, "a space": {User: &bffv1.User{Id: alice + " "}},
	} {
		if gate.admits(who, request) {
			t.Errorf("%s: admitted", name)
		}
	}
	if !gate.admits(who, &bffv1.UpdateUserRequest{User: &bffv1.User{Id: alice}}) {
		t.Error("oneself: not admitted")
	}
}

func TestRolesAreThoseOfTheToken(t *testing.T) {
	t.Parallel()
	h := open(t, world{})
	answer(h.backend, usersv1.ProfileServiceListProfilesProcedure, func(context.Context, *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
		return &usersv1.ListProfilesResponse{}, nil
	})
	for _, test := range []struct {
		roles []string
		may   bool
	}{{[]string{"admin"}, true}, {[]string{"user", "admin"}, true}, {nil, false}, {[]string{"user"}, false}, {[]string{"ADMIN"}, false}, {[]string{""}, false}, {[]string{"admin,user"}, false}} {
		before := h.called("")
		_, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{}, h.token(alice, test.roles...))
		if test.may && got.err != nil {
			t.Errorf("ListUsers with roles %q: %v", test.roles, got.err)
		}
		if !test.may {
			wantError(t, fmt.Sprintf("ListUsers with roles %q", test.roles), got, http.StatusForbidden, connect.CodePermissionDenied, rpc.ReasonPermissionDenied)
			if h.called("") != before {
				t.Errorf("ListUsers with roles %q: refused, and yet a service was called", test.roles)
			}
		}
	}
}

// The roles of a GET over the wire are no looser.
func TestConnectGETIsAdmittedLikePOST(t *testing.T) {
	t.Parallel()
	h := open(t, world{})
	path := bffv1.UserServiceGetUserProcedure + "?connect=v1&encoding=json&message=%7B%22userId%22%3A%22" + bob + "%22%7D"
	for name, test := range map[string]struct {
		token  string
		status int
	}{"nobody": {"", 401}, "another": {h.token(alice), 403}, "oneself": {h.token(bob), 200}, "an administrator": {h.token(alice, "admin"), 200}} {
		var headers []string
		if test.token != "" {
			headers = []string{"Authorization", "Bearer " + test.token}
		}
		if response, body := h.get(t, path, headers...); response.StatusCode != test.status {
			t.Errorf("GET GetUser by %s: got %d %s, want %d", name, response.StatusCode, body, test.status)
		}
	}
	// What changes something takes no GET, which a browser may send unasked.
	for _, procedure := range []string{bffv1.AccountServiceDeleteMeProcedure, bffv1.AccountServiceRevokeOtherSessionsProcedure, bffv1.AuthServiceLogoutProcedure} {
		before := h.called("")
		response, _ := h.get(t, procedure+"?connect=v1&encoding=json&message=%7B%7D", "Authorization", "Bearer "+h.token(alice))
		if response.StatusCode != http.StatusMethodNotAllowed || h.called("") != before {
			t.Errorf("GET %s: got %d, want 405 and no call of a service", procedure, response.StatusCode)
		}
	}
}

func TestAPolicyThatCantBeEnforcedKeepsTheGatewayFromStarting(t *testing.T) {
	t.Parallel()
	const procedure = bffv1.UserServiceUpdateUserProcedure
	self := func(field string) *policyv1.Access {
		return &policyv1.Access{Who: &policyv1.Access_Self{Self: &policyv1.Self{Field: field, OrRoles: []string{"admin"}}}}
	}
	gateway := open(t, world{}).gateway
	for name, access := range map[string]*policyv1.Access{
		"none":                       nil,
		"empty":                      {},
		"a field that isn't there":   self("user_id"),
		"no field":                   self(""),
		"a JSON name":                self("updateMask"),
		"a nested field not there":   self("user.uid"),
		"a field of a string":        self("user.id.x"),
		"a message":                  self("user"),
		"a list":                     self("user.roles"),
		"a bool":                     self("user.email_verified"),
		"an enum":                    self("user.status"),
		"a path with a dot too many": self("user.id."),
		"no roles":                   {Who: &policyv1.Access_Roles{Roles: &policyv1.Roles{}}},
		"no role's message":          {Who: &policyv1.Access_Roles{}},
		"services":                   {Who: &policyv1.Access_Services{Services: &policyv1.Services{AnyOf: []string{"bff"}}}},
	} {
		_, err := gateway.admit(rpc.Policies{procedure: {Access: access}})
		if err == nil || !strings.Contains(err.Error(), procedure) {
			t.Errorf("a policy of %s: got %v, want an error that names %s", name, err, procedure)
		}
	}
	for name, access := range map[string]*policyv1.Access{
		"a nested field": self("user.id"), "anyone": {Who: &policyv1.Access_Anyone{}}, "whoever is signed in": {Who: &policyv1.Access_SignedIn{}},
	} {
		if _, err := gateway.admit(rpc.Policies{procedure: {Access: access}}); err != nil {
			t.Errorf("a policy of %s: %v", name, err)
		}
	}
	if _, err := gateway.admit(rpc.Policies{"/bff.v1.UserService/Nothing": {Access: self("id")}}); err == nil {
		t.Error("a policy of a method that isn't in the schema was taken")
	}
}

func TestAServerOfMethodsThatAreNotPublicDoesNotStart(t *testing.T) {
	t.Parallel()
	gateway := open(t, world{}).gateway
	for name, register := range map[string]func(*connect.Server){
		usersv1.ProfileServiceGetProfileProcedure: func(server *connect.Server) {
			usersv1.RegisterProfileServiceHandler(server, usersv1.UnimplementedProfileServiceHandler{})
		},
		authv1.KeyServiceListSigningKeysProcedure: func(server *connect.Server) {
			authv1.RegisterKeyServiceHandler(server, authv1.UnimplementedKeyServiceHandler{})
		},
		"/odd.v1.OddService/Odd": func(server *connect.Server) {
			server.Register(connect.Method{Spec: connect.Spec{Procedure: "/odd.v1.OddService/Odd", Schema: withoutPolicy(t)}})
		},
		"/odd.v1.OddService/Untold": func(server *connect.Server) {
			server.Register(connect.Method{Spec: connect.Spec{Procedure: "/odd.v1.OddService/Untold"}})
		},
	} {
		_, err := rpc.NewServer(rpc.ServerConfig{Logger: discard, Authorizer: gateway.admit}, register)
		// Of several, any may be named first.
		service, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if err == nil || !strings.Contains(err.Error(), service) {
			t.Errorf("a server of %s: got %v, want an error that names it", name, err)
		}
	}
}

// withoutPolicy is a method whose author forgot who may call it.
func withoutPolicy(t testing.TB) any {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("odd.proto"), Package: proto.String("odd.v1"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Empty")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("OddService"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Odd"), InputType: proto.String(".odd.v1.Empty"), OutputType: proto.String(".odd.v1.Empty")},
		}}},
	}, nil)
	wantNoError(t, "describe a method", err)
	return file.Services().Get(0).Methods().Get(0)
}

// Were a method ever to be served without a gate, it would be shut.
func TestAMethodWithoutAGateIsShut(t *testing.T) {
	t.Parallel()
	gateway := open(t, world{}).gateway
	admit, err := gateway.admit(rpc.Policies{})
	wantNoError(t, "admit", err)
	reached := false
	err = admit(func(context.Context, connect.Spec, connect.ServerStream) error { reached = true; return nil })(t.Context(), connect.Spec{Procedure: bffv1.AccountServiceGetMeProcedure}, nil)
	if err == nil || reached {
		t.Errorf("got %v, reached: %v, want a refusal", err, reached)
	}
}

func TestUnknownMethodsAreUnimplemented(t *testing.T) {
	t.Parallel()
	h := open(t, world{})
	for _, path := range []string{"/bff.v1.UserService/Nothing", "/bff.v1.UserService/getUser", "/bff.v1.UserService/"} {
		response, body := h.send(t, path, "{}", "Authorization", "Bearer "+h.token(alice, "admin"))
		if response.StatusCode != http.StatusNotImplemented || !strings.Contains(body, "unimplemented") {
			t.Errorf("POST %s: got %d %s, want 501", path, response.StatusCode, body)
		}
	}
	// The services behind are not to be had from the front.
	for _, path := range []string{usersv1.ProfileServiceGetProfileProcedure, authv1.AccountServiceGetAccountProcedure, authv1.KeyServiceListSigningKeysProcedure} {
		response, body := h.send(t, path, "{}", "Authorization", "Bearer "+h.token(alice, "admin"))
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("POST %s: got %d %s, want 404", path, response.StatusCode, body)
		}
	}
}
