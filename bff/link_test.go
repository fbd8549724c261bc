package bff

import (
	"context"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// A signed-in user may verify their email without a password. The gateway sends auth
// the caller's session, and only if it is still valid.
func TestVerifyEmailSendsTheCallersSessionToAuth(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	var mu sync.Mutex
	var by *authv1.Origin
	answer(h.backend, authv1.LinkServiceVerifyEmailProcedure, func(_ context.Context, req *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		by = req.GetOrigin()
		if by.GetAccountId() == "" {
			return nil, fault.New(connect.CodeInvalidArgument, "PASSWORD_TOO_SHORT", "too short")
		}
		return &authv1.VerifyEmailResponse{Account: accountOf(alice)}, nil
	})
	good := h.token(alice)
	req := &bffv1.VerifyEmailRequest{Token: "ghl_x"}
	for name, one := range map[string]struct {
		token   string
		headers []string
		known   bool
	}{
		"a token":       {token: good, known: true},
		"cookies":       {headers: jar(good, ""), known: true},
		"nothing":       {},
		"a wrong token": {token: "wrong"},
		"an old token":  {token: h.dated(-1)},
	} {
		got, reply := ask(t, h.auth.VerifyEmail, req, one.token, one.headers...)
		if (reply.err == nil) != one.known || (by.GetAccountId() == alice) != one.known || (by.GetSessionId() != "") != one.known {
			t.Errorf("%s: got %v, %v; auth received %v, want the caller: %t", name, got, reply.err, by, one.known)
		}
		if one.known && (got.GetUser().GetId() != alice || got.GetTokens() != nil || len(reply.header.Values("Set-Cookie")) != 0) {
			t.Errorf("%s: got %v and the cookies %v, want the user and no other session", name, got, reply.header.Values("Set-Cookie"))
		}
	}
	// A password stands on its own.
	_, _ = ask(t, h.auth.VerifyEmail, &bffv1.VerifyEmailRequest{Token: "ghl_x", Password: "long enough"}, good)
	if by.GetAccountId() != "" {
		t.Errorf("auth received the caller %v with a password, want none", by)
	}
}
