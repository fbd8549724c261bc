package bff

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

// signIns are the ways to get a user with tokens.
var signIns = map[string]func(testing.TB, *harness) (*bffv1.SignedIn, []*bffv1.PartError, reply){
	"Login": func(t testing.TB, h *harness) (*bffv1.SignedIn, []*bffv1.PartError, reply) {
		res, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "a secret of hers"}, "")
		return res.GetSignedIn(), res.GetErrors(), got
	},
	"Register": func(t testing.TB, h *harness) (*bffv1.SignedIn, []*bffv1.PartError, reply) {
		res, got := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: "ada@example.com", Password: "a secret of hers", FirstName: "Ada"}, "")
		return res.GetSignedIn(), res.GetErrors(), got
	},
}

func TestSigningInWorksWithoutUsers(t *testing.T) {
	t.Parallel()
	for name, signIn := range signIns {
		h := newHarness(t, options{})
		in, missing, got := signIn(t, h)
		wantNoError(t, name, got.err)
		wantMissing(t, name, missing)
		wantMessage(t, name, in.GetUser(), wantUser(in.GetUser().GetId()))
		tokens := &bffv1.Tokens{AccessToken: "access", RefreshToken: "refresh", TokenType: "Bearer", ExpiresIn: 300, RefreshExpiresIn: 3600}
		wantMessage(t, name, in.GetTokens(), tokens)

		for why, want := range map[error]*bffv1.PartError{
			fault.Unavailable(): away("profile"),
			errNoProfile:        {Part: "profile", Code: "unavailable", Reason: "PROFILE_PENDING", Retryable: true},
		} {
			h.fail(usersv1.ProfileServiceGetProfileProcedure, why)
			in, missing, got = signIn(t, h)
			wantNoError(t, name, got.err)
			wantMissing(t, name+" with "+why.Error(), missing, want)
			wantMessage(t, name, in.GetTokens(), tokens)
			if user := in.GetUser(); user.GetEmail() == "" || user.GetFirstName() != "" || user.GetEtag() != "" {
				t.Errorf("%s with %v: got user %v, want the account's fields alone", name, why, user)
			}
			if got.status != http.StatusOK || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s with %v: got %d, Cache-Control %q, want 200, no-store", name, why, got.status, got.header.Get("Cache-Control"))
			}
		}
		if strings.Contains(h.log.String(), "a secret of hers") {
			t.Errorf("%s: the password is in the log", name)
		}
	}
}

func TestTokensAreKeptOutOfCaches(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for name, signIn := range signIns {
		_, _, got := signIn(t, h)
		if cache := got.header.Get("Cache-Control"); cache != "no-store" {
			t.Errorf("%s: got Cache-Control %q, want no-store", name, cache)
		}
	}
	_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_x"}, "")
	if cache := got.header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Refresh: got Cache-Control %q, want no-store", cache)
	}
}

func TestTheLogSaysWhoSignedIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for _, signIn := range signIns {
		in, _, _ := signIn(t, h)
		lines := h.log.lines(t, "call")
		if got, want := lines[len(lines)-1]["principal"], "user:"+in.GetUser().GetId(); got != want {
			t.Errorf("got principal %v, want %s", got, want)
		}
	}
}

func TestRegisterAsksForASignedInAccountOfANewID(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := make(chan *authv1.CreateAccountRequest, 2)
	answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
		asked <- req
		return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
	})
	ids := map[string]bool{}
	for range 2 {
		_, got := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "F", LastName: "L"}, "")
		wantNoError(t, "Register", got.err)
		req := <-asked
		if id, err := uuid.Parse(req.GetAccountId()); err != nil || id.Version() != 7 || !req.GetSignIn() || len(req.GetRoles()) != 0 ||
			req.GetEmail() != "ada@example.com" || req.GetPassword() != "long enough" || req.GetProfile().GetFirstName() != "F" || req.GetProfile().GetLastName() != "L" ||
			req.GetOrigin().GetIpAddress() != "192.0.2.1" || req.GetOrigin().GetAccountId() != "" {
			t.Errorf("Register asked for %v", req)
		}
		ids[req.GetAccountId()] = true
	}
	if len(ids) != 2 {
		t.Errorf("two registrations asked for the ids %v, want two", ids)
	}
}

func TestIdempotencyKeysArePassedOn(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		h := newHarness(t, options{apart: apart})
		asked := make(chan *authv1.RefreshRequest, 1)
		answer(h.backend, authv1.SessionServiceRefreshProcedure, func(_ context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
			asked <- req
			return &authv1.RefreshResponse{Tokens: someTokens()}, nil
		})
		for _, key := range []string{"", "k-1", "clé", strings.Repeat("k", maxIdempotencyKey)} {
			_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_x"}, "", "Idempotency-Key", key)
			wantNoError(t, "Refresh", got.err)
			if req := <-asked; req.GetIdempotencyKey() != key || req.GetRefreshToken() != "ghr_x" {
				t.Errorf("Idempotency-Key %q: asked for %v", key, req)
			}
		}
		for _, key := range []string{strings.Repeat("k", maxIdempotencyKey+1), strings.Repeat("é", maxIdempotencyKey), "k\xff"} {
			_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_x"}, "", "Idempotency-Key", key)
			wantError(t, "Idempotency-Key "+key, got, http.StatusBadRequest, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_INVALID")
		}
	}
}

func TestSignInErrorsArePassedOn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for _, test := range []struct {
		reason string
		code   connect.Code
		status int
	}{
		{"CREDENTIALS_INVALID", connect.CodeUnauthenticated, 401},
		{"ACCOUNT_DISABLED", connect.CodePermissionDenied, 403},
		{"TOO_MANY_PASSWORD_CHECKS", connect.CodeResourceExhausted, 429},
	} {
		h.fail(authv1.SessionServiceLoginProcedure, fault.New(test.code, test.reason, "No."))
		_, _, got := signIns["Login"](t, h)
		wantError(t, "Login", got, test.status, test.code, test.reason)
		if h.called(usersv1.ProfileServiceGetProfileProcedure) != 0 {
			t.Errorf("%s: the profile was asked for", test.reason)
		}
	}
	for _, reason := range []string{"REFRESH_TOKEN_INVALID", "REFRESH_TOKEN_REUSED", "SESSION_ENDED"} {
		h.fail(authv1.SessionServiceRefreshProcedure, fault.New(connect.CodeUnauthenticated, reason, "No."))
		_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_x"}, "")
		wantError(t, "Refresh", got, http.StatusUnauthorized, connect.CodeUnauthenticated, reason)
	}
}
