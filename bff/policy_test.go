package bff

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

// Every public method says all that it can: a default is somebody's oversight.
func TestEveryPublicMethodHasACompletePolicy(t *testing.T) {
	t.Parallel()
	for _, plan := range newHarness(t, options{}).gateway.rpc.Methods() {
		policy, _ := proto.GetExtension(plan.Descriptor.Options(), policyv1.E_Method).(*policyv1.Method)
		for knob, said := range map[string]bool{
			"time_limit": policy.GetTimeLimit() != nil || plan.Descriptor.IsStreamingServer(),
			"rate":       policy.GetRate() != nil, "criticality": policy.Criticality != nil,
		} {
			if !said {
				t.Errorf("%s: its policy doesn't say %s", plan.Procedure, knob)
			}
		}
		// A UUID is the same in upper case, and a tag isn't.
		tags := slices.Clone(plan.Invalidates)
		if plan.Cache != nil {
			tags = append(tags, plan.Cache.Tags...)
		}
		for _, tag := range tags {
			if field := tag.Field(); field != nil && !lowered(field[len(field)-1]) {
				t.Errorf("%s: the tag %s takes its ID from a field that is not normalized to lower case", plan.Procedure, tag)
			}
		}
	}
}

func lowered(field protoreflect.FieldDescriptor) bool {
	policy, _ := proto.GetExtension(field.Options(), policyv1.E_Field).(*policyv1.Field)
	return policy.GetNormalize().GetLowerCase()
}

// Whatever is at a path that we know of is listed, and what is listed is there.
func TestEveryServedPathIsListed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	mux := h.gateway.mux(Config{PublicURL: publicURL})
	policy, err := PolicyOf("", nil, backends(nil, nil)...)
	wantNoError(t, "PolicyOf", err)
	listed := map[string]bool{}
	for _, method := range policy.Methods {
		listed[method.Path] = true
	}
	for _, page := range policy.Pages {
		listed[page.Pattern] = true
	}
	for _, pattern := range mux.Patterns() {
		if service := strings.TrimSuffix(pattern, "/"); !listed[pattern] && !slices.Contains(h.gateway.rpc.Services(), strings.TrimPrefix(service, "/")) {
			t.Errorf("%s is served and not listed", pattern)
		}
		delete(listed, pattern)
	}
	for pattern := range listed {
		t.Errorf("%s is listed and not served", pattern)
	}
	// A mux of one's own would go round the list.
	own := regexp.MustCompile(`http\.(NewServeMux|Handle|HandleFunc|DefaultServeMux)\b`)
	files, err := filepath.Glob("*.go")
	wantNoError(t, "list the files", err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		wantNoError(t, "read", err)
		if !strings.HasSuffix(file, "_test.go") && own.Match(text) {
			t.Errorf("%s serves by a mux of its own: use rpc.Mux.Handle, which lists what it serves", file)
		}
	}
}

// Services receive fields as the schema normalizes them.
func TestRequestsAreNormalized(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]options{"in process": {}, "apart": {apart: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, w)
			var account *authv1.CreateAccountRequest
			answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
				account = proto.CloneOf(req)
				return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
			})
			const password = "  correct horse \u0065\u0301 "
			_, got := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: " Ada@EXAMPLE.com ", Password: password, FirstName: " Zoe\u0308 ", LastName: "\tde  Vries\u00a0"}, "")
			wantNoError(t, "Register", got.err)
			if account.GetEmail() != "Ada@example.com" || account.GetProfile().GetFirstName() != "Zo\u00eb" || account.GetProfile().GetLastName() != "de  Vries" {
				t.Errorf("Register: auth got %q, %q and %q, want the email and the names in their forms", account.GetEmail(), account.GetProfile().GetFirstName(), account.GetProfile().GetLastName())
			}
			if account.GetPassword() != password {
				t.Errorf("Register: auth got the password %q, want it as it came: %q", account.GetPassword(), password)
			}
			_, got = ask(t, h.users.CreateUser, &bffv1.CreateUserRequest{User: &bffv1.User{Email: "eve@bu\u0308cher.example ", FirstName: " E "}, Password: password}, h.token(alice, "admin"))
			wantNoError(t, "CreateUser", got.err)
			if account.GetEmail() != "eve@xn--bcher-kva.example" || account.GetProfile().GetFirstName() != "E" {
				t.Errorf("CreateUser: auth got %q and %q, want the email and the name in their forms", account.GetEmail(), account.GetProfile().GetFirstName())
			}
			// What the form makes of it has to keep the rules.
			_, got = ask(t, h.users.UpdateUser, &bffv1.UpdateUserRequest{User: &bffv1.User{Id: alice, FirstName: "a\u0000b"}}, h.token(alice))
			wantError(t, "a control character", got, http.StatusBadRequest, connect.CodeInvalidArgument, fault.ReasonInvalid)
		})
	}
}

func TestATightenedTimeLimitHolds(t *testing.T) {
	t.Parallel()
	const limit = 1500 * time.Millisecond // sooner than a part's own
	h := newHarness(t, options{policy: "bff.v1.UserService/GetUser limit=" + limit.String()})
	left := make(chan time.Duration, 1)
	answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		return &usersv1.GetProfileResponse{Profile: profileOf(req.GetProfileId())}, nil
	})
	_, got := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: alice}, h.token(alice))
	wantNoError(t, "GetUser, tightened", got.err)
	if got := <-left; got > limit || got <= 0 {
		t.Errorf("users had %s left, want no more than the tightened %s", got, limit)
	}
	_, err := New(Config{Backends: backends(h.backend.reach(t, "auth", options{}), h.backend.reach(t, "users", options{})), PublicURL: publicURL, Logger: discard, Policy: "bff.v1.UserService/GetUser limit=6s"})
	if err == nil || !strings.Contains(err.Error(), "bff.v1.UserService/GetUser: limit=6s is looser than the schema's 5s") {
		t.Errorf("a gateway with a looser limit: got %v, want a refusal to start", err)
	}
}

// auth decides whether a sign-in is recent; the schema says where it must be.
func TestARecentSignInIsRequiredWhereTheSchemaDeclaresIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := map[string]bool{}
	answer(h.backend, authv1.AccountServiceSetAccountStatusProcedure, func(_ context.Context, req *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
		asked[req.GetStatus().String()] = req.GetOrigin().GetRequireRecentSignIn()
		return &authv1.SetAccountStatusResponse{Account: accountOf(bob)}, nil
	})
	_, got := ask(t, h.users.EnableUser, &bffv1.EnableUserRequest{UserId: bob}, h.token(alice, "admin"))
	wantNoError(t, "EnableUser", got.err)
	_, got = ask(t, h.users.DisableUser, &bffv1.DisableUserRequest{UserId: bob}, h.token(alice, "admin"))
	wantNoError(t, "DisableUser", got.err)
	if enable, disable := asked["ACCOUNT_STATUS_ACTIVE"], asked["ACCOUNT_STATUS_DISABLED"]; !enable || disable {
		t.Errorf("auth was asked for a recent sign-in by EnableUser: %v, by DisableUser: %v; want it by the first alone, as their policies say", enable, disable)
	}
}
