package bff

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/apikey"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

const stepUp = `Bearer error="insufficient_user_authentication", acr_values="aal2"`

// tokenAt is an access token with the claims that say how alice signed in.
func (h *harness) tokenAt(acr string, amr []string, roles ...string) string {
	return h.signer.token(func(_, claims map[string]any) {
		claims["roles"] = roles
		if acr != "" {
			claims["acr"], claims["amr"], claims["auth_time"] = acr, amr, claims["iat"]
		}
	})
}

// A token without a level is at level 1; so is one with a level that we do not know.
func TestALevelIsCheckedAsThePolicySays(t *testing.T) {
	t.Parallel()
	for _, required := range []bool{false, true} {
		h := newHarness(t, options{secondFactor: required})
		identity := h.gateway.identity
		for name, credential := range map[string]struct {
			token           string
			two, remembered bool
		}{
			"no acr":            {token: h.tokenAt("", nil)},
			"aal1":              {token: h.tokenAt("aal1", []string{"pwd"})},
			"another acr":       {token: h.tokenAt("aal3", []string{"pwd"})},
			"remembered device": {token: h.tokenAt("aal1", []string{"pwd", "rba"}), remembered: true},
			"aal2":              {token: h.tokenAt("aal2", []string{"mfa", "otp", "pwd"}), two: true},
		} {
			who, err := h.gateway.verifier.Verify(credential.token)
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.WithValue(t.Context(), principalKey{}, who)
			for assurance, want := range map[policyv1.Assurance]bool{
				policyv1.Assurance_ASSURANCE_UNSPECIFIED: !required || credential.two || credential.remembered,
				policyv1.Assurance_ASSURANCE_ONE:         true,
				policyv1.Assurance_ASSURANCE_TWO:         credential.two,
				policyv1.Assurance_ASSURANCE_OWN:         !required || credential.two || credential.remembered, // and auth decides
			} {
				if err := identity.checkLevel(&policy.Method{Assurance: assurance})(ctx); (err == nil) != want {
					t.Errorf("required %t, %s at %s: got %v, want admitted %t", required, name, assurance, err, want)
				}
			}
		}
	}
}

func TestEveryMethodThatIsNotOpenToLevelOneAsksASecondFactorWhereItIsRequired(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{secondFactor: true})
	for _, plan := range h.gateway.rpc.Methods() {
		admission, err := h.gateway.identity.admit(plan)
		if err != nil {
			t.Fatal(err)
		}
		if _, anyone := plan.Access.GetWho().(*policyv1.Access_Anyone); anyone {
			continue
		}
		who, err := h.gateway.verifier.Verify(h.tokenAt("", nil, "admin", "user"))
		if err != nil {
			t.Fatal(err)
		}
		err = admission.Authorize(context.WithValue(t.Context(), principalKey{}, who))
		open := plan.Assurance == policyv1.Assurance_ASSURANCE_ONE
		if (err == nil) != open || !open && fault.Reason(err) != accesstoken.ReasonSecondFactor {
			t.Errorf("%s: got %v, want open %t", plan.Procedure, err, open)
		}
	}
	_, got := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, h.tokenAt("aal1", []string{"pwd"}))
	if fault.Reason(got.err) != accesstoken.ReasonSecondFactor {
		t.Errorf("ListSessions: got %v, want %s", got.err, accesstoken.ReasonSecondFactor)
	}
	if header := got.header.Get("Www-Authenticate"); header != stepUp {
		t.Errorf("ListSessions: got the header %q, want %q", header, stepUp)
	}
}

// auth decides for the level of the account; its refusal has the same header.
func TestTheAccountsOwnLevelIsAskedOfAuthWhereTheSchemaDeclaresIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := map[string]bool{}
	answer(h.backend, authv1.AccountServiceSetAccountRolesProcedure, func(_ context.Context, req *authv1.SetAccountRolesRequest) (*authv1.SetAccountRolesResponse, error) {
		asked["SetUserRoles"] = req.GetOrigin().GetRequireOwnLevel()
		return nil, accesstoken.ErrSecondFactor
	})
	answer(h.backend, authv1.AccountServiceSetAccountStatusProcedure, func(_ context.Context, req *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
		asked["DisableUser"] = req.GetOrigin().GetRequireOwnLevel()
		return &authv1.SetAccountStatusResponse{Account: accountOf(bob)}, nil
	})
	_, got := ask(t, h.users.SetUserRoles, &bffv1.SetUserRolesRequest{UserId: bob, Roles: []string{"editor"}}, h.token(alice, "admin"))
	if fault.Reason(got.err) != accesstoken.ReasonSecondFactor || got.header.Get("Www-Authenticate") != stepUp {
		t.Errorf("SetUserRoles: got %v with the header %q, want auth's refusal with %q", got.err, got.header.Get("Www-Authenticate"), stepUp)
	}
	_, got = ask(t, h.users.DisableUser, &bffv1.DisableUserRequest{UserId: bob}, h.token(alice, "admin"))
	wantNoError(t, "DisableUser", got.err)
	if !asked["SetUserRoles"] || asked["DisableUser"] {
		t.Errorf("auth was asked for the account's level by %v, want by SetUserRoles alone", asked)
	}
}

// An auth older than schema number 8 still puts the role into a token of level 1.
func TestARoleThatNeedsASecondFactorDoesNotCountAtLevelOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{secondFactorRoles: []string{"admin"}})
	answer(h.backend, authv1.AccountServiceSetAccountStatusProcedure, func(context.Context, *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
		return &authv1.SetAccountStatusResponse{Account: accountOf(bob)}, nil
	})
	for name, test := range map[string]struct {
		token string
		code  connect.Code
	}{
		"no acr": {h.tokenAt("", nil, "admin"), connect.CodePermissionDenied},
		"aal1":   {h.tokenAt("aal1", []string{"pwd"}, "admin"), connect.CodePermissionDenied},
		"aal2":   {h.tokenAt("aal2", []string{"mfa", "otp", "pwd"}, "admin"), 0},
	} {
		_, got := ask(t, h.users.DisableUser, &bffv1.DisableUserRequest{UserId: bob}, test.token)
		if got := connect.CodeOf(got.err); test.code != 0 && got != test.code {
			t.Errorf("%s: got %v, want %s", name, got, test.code)
		}
		if test.code == 0 {
			wantNoError(t, name, got.err)
		}
	}
}

// An upstream learns how and when its caller signed in.
func TestAnUpstreamLearnsHowItsCallerSignedIn(t *testing.T) {
	t.Parallel()
	var authorization string
	h := newHarness(t, withShop(t, serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/proto")
	}))))
	for _, test := range []struct {
		acr  string
		amr  []string
		want string
	}{
		{"aal2", []string{"pwd", "otp"}, "aal2 [pwd otp] true"},
		{"aal1", []string{"pwd"}, "aal1 [pwd] true"},
		{"", nil, "aal1 <nil> false"}, // the token of an older auth
	} {
		response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+h.tokenAt(test.acr, test.amr, "user"))
		if response.StatusCode != http.StatusOK {
			t.Fatalf("got %d %s, want 200", response.StatusCode, text)
		}
		claims := h.verifyIdentity(t, strings.TrimPrefix(authorization, "Bearer "))
		if got := fmt.Sprint(claims["acr"], " ", claims["amr"], " ", claims["auth_time"] != nil); got != test.want {
			t.Errorf("signed in by %s %v: the upstream got %s, want %s", test.acr, test.amr, got, test.want)
		}
	}
}

// A key has the level at which its owner made it.
func TestAKeyCountsAtItsOwnLevel(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options options
		level   int32
		disable connect.Code // of a method for administrators
		reason  string
	}{
		"the role needs a factor, level 1":  {options{secondFactorRoles: []string{"admin"}}, 1, connect.CodePermissionDenied, fault.ReasonPermissionDenied},
		"the role needs a factor, level 2":  {options{secondFactorRoles: []string{"admin"}}, 2, 0, ""},
		"everybody needs a factor, level 1": {options{secondFactor: true}, 1, connect.CodeFailedPrecondition, accesstoken.ReasonSecondFactor},
		"everybody needs a factor, level 2": {options{secondFactor: true}, 2, 0, ""},
		"nobody needs a factor, level 1":    {options{}, 1, 0, ""},
	} {
		h := newHarness(t, test.options)
		answer(h.backend, authv1.APIKeyServiceCheckKeyProcedure, func(context.Context, *authv1.CheckKeyRequest) (*authv1.CheckKeyResponse, error) {
			return &authv1.CheckKeyResponse{AccountId: alice, Scopes: []string{"users:write"}, Roles: []string{"admin"}, Level: test.level, ExpiresIn: 3600}, nil
		})
		answer(h.backend, authv1.AccountServiceSetAccountStatusProcedure, func(context.Context, *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
			return &authv1.SetAccountStatusResponse{Account: accountOf(bob)}, nil
		})
		_, got := ask(t, h.users.DisableUser, &bffv1.DisableUserRequest{UserId: bob}, apikey.Format(uuid.New(), [32]byte{1}))
		if code := connect.CodeOf(got.err); got.err == nil != (test.disable == 0) || got.err != nil && (code != test.disable || fault.Reason(got.err) != test.reason) {
			t.Errorf("%s: got %v, want %v %s", name, got.err, test.disable, test.reason)
		}
	}
}
