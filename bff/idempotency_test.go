package bff

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// keyPassed calls a method with a key and returns what auth got of it.
func keyPassed(t *testing.T, h *harness, call func() error) *authv1.IdempotencyKey {
	t.Helper()
	var got *authv1.IdempotencyKey
	answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
		got = req.GetIdempotencyKey()
		return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
	})
	answer(h.backend, authv1.LinkServiceVerifyEmailProcedure, func(_ context.Context, req *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
		got = req.GetIdempotencyKey()
		return &authv1.VerifyEmailResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
	})
	wantNoError(t, "the call", call())
	return got
}

func TestMethodsThatCreateAccountsPassTheKeyOn(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		h := newHarness(t, options{apart: apart})
		admin := h.token(alice, "admin")
		for _, key := range []string{"", "k-1", "clé", strings.Repeat("k", maxIdempotencyKey)} {
			for procedure, call := range map[string]func() error{
				bffv1.AuthServiceRegisterProcedure: func() error {
					_, got := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"}, "", idempotencyHeader, key)
					return got.err
				},
				bffv1.UserServiceCreateUserProcedure: func() error {
					_, got := ask(t, h.users.CreateUser, &bffv1.CreateUserRequest{User: &bffv1.User{Email: "ada@example.com"}, Password: "long enough"}, admin, idempotencyHeader, key)
					return got.err
				},
				bffv1.AuthServiceVerifyEmailProcedure: func() error {
					_, got := ask(t, h.auth.VerifyEmail, &bffv1.VerifyEmailRequest{Token: "ghl_x", Password: "long enough"}, "", idempotencyHeader, key)
					return got.err
				},
			} {
				got := keyPassed(t, h, call)
				switch {
				case key == "" && got != nil:
					t.Errorf("%s without a key passed on %v", procedure, got)
				case key != "" && (got.GetKey() != key || got.GetProcedure() != procedure || len(got.GetRequestHash()) != 32):
					t.Errorf("%s with the key %q passed on %v", procedure, key, got)
				}
			}
		}
	}
}

func TestTheRequestHashOmitsSecrets(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	hash := func(req *bffv1.RegisterRequest) []byte {
		return keyPassed(t, h, func() error {
			_, got := ask(t, h.auth.Register, req, "", idempotencyHeader, "k-1")
			return got.err
		}).GetRequestHash()
	}
	first := hash(&bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"})
	for what, test := range map[string]struct {
		request *bffv1.RegisterRequest
		same    bool
	}{
		"the same":         {&bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"}, true},
		"another spelling": {&bffv1.RegisterRequest{Email: " ada@EXAMPLE.com", Password: "long enough", FirstName: "Ada ", LastName: "L"}, true},
		"another password": {&bffv1.RegisterRequest{Email: "ada@example.com", Password: "other enough", FirstName: "Ada", LastName: "L"}, true},
		"another email":    {&bffv1.RegisterRequest{Email: "bob@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"}, false},
		"another name":     {&bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "AdaL", LastName: ""}, false},
	} {
		if got := bytes.Equal(hash(test.request), first); got != test.same {
			t.Errorf("%s: counts as the same request: %v, want %v", what, got, test.same)
		}
	}
}

func TestMalformedIdempotencyKeysAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for _, keys := range [][]string{{strings.Repeat("k", maxIdempotencyKey+1)}, {strings.Repeat("é", maxIdempotencyKey)}, {"k\xff"}, {"k\tk"}, {"k\u200b"}, {"k-1", "k-2"}, {"k-1", ""}} {
		var headers []string
		for _, key := range keys {
			headers = append(headers, idempotencyHeader, key)
		}
		_, got := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"}, "", headers...)
		wantError(t, strings.Join(keys, ", "), got, http.StatusBadRequest, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_INVALID")
	}
	if n := h.called(authv1.AccountServiceCreateAccountProcedure); n != 0 {
		t.Errorf("auth was asked %d times", n)
	}
}

// By this header the client of auth tells what may be asked again when it gets
// no answer: see rpc's tests.
func TestOnlyCallsWithAKeyAreRetried(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		h := newHarness(t, options{apart: apart})
		for _, key := range []string{"", "k-1"} {
			var got string
			answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(ctx context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
				info, _ := connect.CallInfoForServerContext(ctx)
				got = info.RequestHeader().Get(idempotencyHeader)
				return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
			})
			_, answered := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"}, "", idempotencyHeader, key)
			wantNoError(t, "Register", answered.err)
			if got != key {
				t.Errorf("with the key %q auth got the key %q", key, got)
			}
		}
	}
}

func TestErrorsOfAnIdempotencyKeyArePassedOn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for reason, test := range map[string]struct {
		code   connect.Code
		status int
	}{
		"IDEMPOTENCY_KEY_REUSED":  {connect.CodeInvalidArgument, http.StatusBadRequest},
		"REQUEST_IN_PROGRESS":     {connect.CodeAborted, http.StatusConflict},
		"IDEMPOTENCY_TARGET_GONE": {connect.CodeFailedPrecondition, http.StatusBadRequest},
	} {
		failure := fault.New(test.code, reason, "No.")
		if test.code == connect.CodeAborted {
			failure = fault.WithRetry(failure, 1e9)
		}
		h.fail(authv1.AccountServiceCreateAccountProcedure, failure)
		_, got := ask(t, h.auth.Register, &bffv1.RegisterRequest{Email: "ada@example.com", Password: "long enough", FirstName: "Ada", LastName: "L"}, "", idempotencyHeader, "k-1")
		wantError(t, reason, got, test.status, test.code, reason)
		if after := got.header.Get("Retry-After"); (after == "1") != (test.code == connect.CodeAborted) {
			t.Errorf("%s: Retry-After is %q", reason, after)
		}
	}
}
