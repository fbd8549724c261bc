package bff

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// streamPaths are the REST paths of the methods that stream.
var streamPaths = map[string]string{
	bffv1.AccountServiceWatchMeProcedure: "/api/v1/me:watch", bffv1.UserServiceWatchUsersProcedure: "/api/v1/users:watch",
	bffv1.UserServiceWatchTracesProcedure: "/api/v1/traces:watch", bffv1.WebhookServiceListenEventsProcedure: "/api/v1/webhooks:listen",
}

// Every method is called by everybody, straight from the schema: what the page
// says of it must be what it does.
func TestEveryMethodsPolicyIsEnforced(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	policy, err := PolicyOf("", nil, backends(nil, nil)...)
	wantNoError(t, "PolicyOf", err)
	tokens := map[string]string{"nobody": "", "a user": h.token(bob, "user"), "an administrator": h.token(bob, "user", "admin")}
	for _, method := range policy.Methods {
		for who, token := range tokens {
			var headers []string
			if token != "" {
				headers = append(headers, "Authorization", "Bearer "+token)
			}
			before := h.called("")
			// The message is empty, so that no method has an effect: an admitted call
			// reaches the validator or a service.
			response, body := h.send(t, method.Path, "{}", headers...)
			if path := streamPaths[method.Path]; path != "" { // a stream's status is 200 but at its REST path
				response, body = h.fetch(t, http.MethodGet, path, "", headers...)
			}
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

func TestSelfAdmitsTheAccountInTheRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
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
		wantError(t, what, got, http.StatusForbidden, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
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
			wantError(t, what, got, http.StatusBadRequest, connect.CodeInvalidArgument, fault.ReasonInvalid)
		}
	}
	if after := h.called(""); after != before {
		t.Errorf("refused callers led to %d calls of services", after-before)
	}
}

// The check of oneself doesn't lean on the validator: what names nobody isn't
// oneself.
func TestSelfAdmitsNobodyIfTheRequestNamesNoAccount(t *testing.T) {
	t.Parallel()
	gateway := newHarness(t, options{}).gateway
	var admit func(context.Context, proto.Message) error
	for _, plan := range gateway.rpc.Methods() {
		if plan.Procedure == bffv1.UserServiceUpdateUserProcedure {
			admission, err := gateway.identity.admit(plan)
			wantNoError(t, "admit", err)
			admit = admission.AuthorizeMessage
		}
	}
	ctx := context.WithValue(t.Context(), principalKey{}, &access.Principal{UserID: alice, Roles: []string{"user"}})
	for name, request := range map[string]*bffv1.UpdateUserRequest{
		"no request": nil, "no user": {}, "no id": {User: &bffv1.User{}}, "another": {User: &bffv1.User{Id: bob}},
		"a URN": {User: &bffv1.User{Id: "urn:uuid:" + alice}}, "a space": {User: &bffv1.User{Id: alice + " "}},
	} {
		if err := admit(ctx, request); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s: got %v, want permission_denied", name, err)
		}
	}
	if err := admit(ctx, &bffv1.UpdateUserRequest{User: &bffv1.User{Id: alice}}); err != nil {
		t.Errorf("oneself: %v", err)
	}
}

func TestRolesAreThoseOfTheToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
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
			wantError(t, fmt.Sprintf("ListUsers with roles %q", test.roles), got, http.StatusForbidden, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
			if h.called("") != before {
				t.Errorf("ListUsers with roles %q: refused, and yet a service was called", test.roles)
			}
		}
	}
}

// The roles of a GET over the wire are no looser.
func TestConnectGETIsAdmittedLikePOST(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
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
	const procedure = "/odd.v1.OddService/Odd"
	self := func(field string) *policyv1.Access {
		return &policyv1.Access{Who: &policyv1.Access_Self{Self: &policyv1.Self{Field: field, OrRoles: []string{"admin"}}}}
	}
	gateway := newHarness(t, options{}).gateway
	start := func(access *policyv1.Access) error {
		_, err := rpc.NewServer(rpc.ServerConfig{Logger: discard, Authorizer: gateway.identity.admit}, func(server *connect.Server) {
			server.Register(connect.Method{Spec: connect.Spec{Procedure: procedure, Schema: updateUserFor(t, access)}})
		})
		return err
	}
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
		if err := start(access); err == nil || !strings.Contains(err.Error(), procedure) {
			t.Errorf("a policy of %s: got %v, want an error that names %s", name, err, procedure)
		}
	}
	for name, access := range map[string]*policyv1.Access{
		"a nested field": self("user.id"), "anyone": policy.Anyone(), "every signed-in user": {Who: &policyv1.Access_SignedIn{SignedIn: &policyv1.SignedIn{}}},
	} {
		if err := start(access); err != nil {
			t.Errorf("a policy of %s: %v", name, err)
		}
	}
}

// updateUserFor is a method that takes what UpdateUser takes, with an access of
// its own; nil for one whose author forgot who may call it.
func updateUserFor(t testing.TB, access *policyv1.Access) protoreflect.MethodDescriptor {
	t.Helper()
	described := &descriptorpb.MethodDescriptorProto{
		Name: proto.String("Odd"), InputType: proto.String(".bff.v1.UpdateUserRequest"), OutputType: proto.String(".bff.v1.UpdateUserResponse"),
	}
	if access != nil {
		described.Options = &descriptorpb.MethodOptions{}
		proto.SetExtension(described.Options, policyv1.E_Method, &policyv1.Method{Access: access})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Syntax: proto.String("proto3"), Name: proto.String("odd/v1/odd.proto"), Package: proto.String("odd.v1"),
		Dependency: []string{"bff/v1/user_service.proto"},
		Service:    []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("OddService"), Method: []*descriptorpb.MethodDescriptorProto{described}}},
	}, protoregistry.GlobalFiles)
	wantNoError(t, "describe a method", err)
	return file.Services().Get(0).Methods().Get(0)
}

func TestAServerOfMethodsThatAreNotPublicDoesNotStart(t *testing.T) {
	t.Parallel()
	gateway := newHarness(t, options{}).gateway
	for name, register := range map[string]func(*connect.Server){
		usersv1.ProfileServiceGetProfileProcedure: func(server *connect.Server) {
			usersv1.RegisterProfileServiceHandler(server, usersv1.UnimplementedProfileServiceHandler{})
		},
		authv1.KeyServiceListSigningKeysProcedure: func(server *connect.Server) {
			authv1.RegisterKeyServiceHandler(server, authv1.UnimplementedKeyServiceHandler{})
		},
		"/odd.v1.OddService/Odd": func(server *connect.Server) {
			server.Register(connect.Method{Spec: connect.Spec{Procedure: "/odd.v1.OddService/Odd", Schema: updateUserFor(t, nil)}})
		},
		"/odd.v1.OddService/Untold": func(server *connect.Server) {
			server.Register(connect.Method{Spec: connect.Spec{Procedure: "/odd.v1.OddService/Untold"}})
		},
	} {
		_, err := rpc.NewServer(rpc.ServerConfig{Logger: discard, Authorizer: gateway.identity.admit}, register)
		// Of several, any may be named first.
		service, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if err == nil || !strings.Contains(err.Error(), service) {
			t.Errorf("a server of %s: got %v, want an error that names it", name, err)
		}
	}
}

func TestUnknownMethodsAreUnimplemented(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
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
