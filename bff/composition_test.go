package bff

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/compose"
	"gatehouse/internal/fault"
)

// remote is an error as a service gives it.
func remote(err *connect.Error) error { return err.WithRemote() }

func TestWhatMayBeRetried(t *testing.T) {
	t.Parallel()
	for code, want := range map[connect.Code]bool{
		connect.CodeUnavailable: true, connect.CodeResourceExhausted: true,
		connect.CodeNotFound: false, connect.CodeInternal: false, connect.CodePermissionDenied: false, connect.CodeInvalidArgument: false,
	} {
		composed := compose.New(t.Context(), fromBackend)
		compose.Optional(composed, "part", readLimit, func(context.Context) (string, error) {
			return "", remote(fault.New(code, "NOT_NOW", "Not now."))
		})
		wantNoError(t, "wait", composed.Wait())
		if missing := partErrors(t.Context(), composed, discard); len(missing) != 1 || missing[0].GetRetryable() != want || missing[0].GetReason() == "" {
			t.Errorf("%s: got %v, want retryable %v, and a reason", code, missing, want)
		}
	}
}

// panicking is a way to a service that has a bug.
type panicking struct{}

func (panicking) NewClientStream(context.Context, connect.Spec) (connect.ClientStream, error) {
	panic("boom")
}

func TestAPanicInAPartDoesNotStopTheGateway(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, users: connect.NewClient(panicking{})})
	_, got := h.getMe(t, h.token(alice))
	wantError(t, "GetMe", got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
	if log := h.log.String(); !strings.Contains(log, "panic: boom") || !strings.Contains(log, "composition_test.go") {
		t.Errorf("got log %s, want the panic and where it came from", log)
	}
	_, got = ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{}, h.token(alice, "admin")) // on the call's own goroutine
	wantError(t, "ListUsers", got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
	res, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
	wantNoError(t, "Login", got.err)
	wantMissing(t, "Login", res.GetErrors(), &bffv1.PartError{Part: "profile", Code: "internal", Reason: fault.ReasonInternal})
}

func TestServerTimingHasTheDurationOfEachPart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	_, got := h.getMe(t, h.token(alice))
	wantNoError(t, "GetMe", got.err)
	timing := got.header.Get("Server-Timing")
	if !regexp.MustCompile(`^account;dur=[0-9.]+, profile;dur=[0-9.]+, sessions;dur=[0-9.]+$`).MatchString(timing) {
		t.Errorf("GetMe: got Server-Timing %q, want each part's duration", timing)
	}

	_, got = ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice))
	wantNoError(t, "UpdateMe", got.err)
	if timing := got.header.Get("Server-Timing"); !regexp.MustCompile(`^account;dur=[0-9.]+, profile;dur=[0-9.]+$`).MatchString(timing) {
		t.Errorf("UpdateMe: got Server-Timing %q, want each part's duration", timing)
	}

	h.fail(authv1.AccountServiceGetAccountProcedure, errNoUser)
	_, got = ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: bob}, h.token(bob))
	if fault.Reason(got.err) != "USER_NOT_FOUND" || !strings.Contains(got.header.Get("Server-Timing"), "account;dur=") {
		t.Errorf("GetUser: got %v with Server-Timing %q, want the failing part's duration", got.err, got.header.Get("Server-Timing"))
	}

	h.fail(authv1.SessionServiceLoginProcedure, fault.New(5, "NOT_NOW", "No."))
	_, got = ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
	if timing := got.header.Get("Server-Timing"); got.err == nil || timing != "" {
		t.Errorf("a refused Login: got Server-Timing %q, want none: how long auth took tells who has an account", timing)
	}
}
