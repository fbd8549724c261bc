package bff

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// protocols are the ways to speak to the gateway.
var protocols = map[string][]connecthttp.Option{
	"connect":       {connecthttp.WithProtoJSON()},
	"connect-proto": {},
	"grpc":          {connecthttp.WithGRPC()},
	"grpc-web":      {connecthttp.WithGRPCWeb()},
}

// hasStatus reports whether a protocol's errors have an HTTP status of their own.
func hasStatus(protocol string) bool { return strings.HasPrefix(protocol, "connect") }

// Callers receive the same unavailable error with a Retry-After on every protocol,
// whatever the reason why a service sends no response.
func TestAServiceThatGivesNoAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, service := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{served: true, users: deadEnd(t, "users", service(t))})
			for protocol, options := range protocols {
				t.Run(protocol, func(t *testing.T) {
					t.Parallel()
					_, got := ask(t, bffv1.NewAccountServiceClient(h.client(options...)).GetMe, &bffv1.GetMeRequest{}, h.token(alice))
					if !hasStatus(protocol) {
						got.status = http.StatusServiceUnavailable
					}
					wantUnavailable(t, "GetMe", got, fault.ReasonUnavailable)
					if got.err != nil && strings.Contains(got.err.Error(), "secret") {
						t.Errorf("GetMe: got %v, want no text from the service", got.err)
					}
				})
			}
			t.Run("grpc-go", func(t *testing.T) {
				t.Parallel()
				wantUnavailableOverGRPC(t, h)
			})
			t.Run("optional", func(t *testing.T) {
				t.Parallel()
				res, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
				wantNoError(t, "Login", got.err)
				wantMissing(t, "Login", res.GetErrors(), away("profile"))
			})
		})
	}
}

// The same without a network: services in one process fail the same way.
func TestAServiceInTheSameProcessThatHangsIsUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		defer h.gateway.verifier.Stop()
		asked, ended := h.hang(usersv1.ProfileServiceGetProfileProcedure)

		began := time.Now()
		_, got := h.getMe(t, h.token(alice))
		wantUnavailable(t, "GetMe", got, fault.ReasonUnavailable)
		if took := time.Since(began); took > readLimit || took < readLimit-deadlineSlack {
			t.Errorf("GetMe waited %s for a part, want its limit %s", took, readLimit)
		}
		<-asked
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the part's context ended with %v, want its deadline", err)
		}
	})
}

// What writes may wait for a password to be hashed, and no longer.
func TestAWriteHasATimeLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		defer h.gateway.verifier.Stop()
		h.hang(authv1.SessionServiceLoginProcedure)
		began := time.Now()
		_, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
		wantUnavailable(t, "Login", got, fault.ReasonUnavailable)
		if took := time.Since(began); took > writeLimit || took < writeLimit-deadlineSlack {
			t.Errorf("Login waited %s for auth, want its limit %s", took, writeLimit)
		}
	})
}

func TestACallersOwnDeadlineIsDeadlineExceeded(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		for protocol, clientOptions := range protocols {
			t.Run(fmt.Sprintf("apart=%v/%s", apart, protocol), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t, options{served: true, apart: apart})
				asked, ended := h.hang(usersv1.ProfileServiceGetProfileProcedure)
				if hasStatus(protocol) {
					h.setDeadline("Connect-Timeout-Ms", "50")
				} else {
					h.setDeadline("Grpc-Timeout", "50m")
				}
				began := time.Now()
				_, got := ask(t, bffv1.NewAccountServiceClient(h.client(clientOptions...)).GetMe, &bffv1.GetMeRequest{}, h.token(alice))
				if !hasStatus(protocol) {
					got.status = http.StatusGatewayTimeout
				}
				wantError(t, "GetMe", got, http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, fault.ReasonDeadline)
				if took := time.Since(began); took >= readLimit {
					t.Errorf("GetMe took %s with a deadline of 50ms", took)
				}
				select {
				case <-asked: // unless the time was over before
					<-ended
				default:
				}
			})
		}
	}
}

// A part that exceeds its own limit before the caller's deadline is an unavailable
// service, not an exceeded deadline.
func TestACallersLongDeadlineDoesNotExtendAPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		defer h.gateway.verifier.Stop()
		h.hang(usersv1.ProfileServiceGetProfileProcedure)
		h.setDeadline("Connect-Timeout-Ms", "9000")
		began := time.Now()
		_, got := h.getMe(t, h.token(alice))
		wantUnavailable(t, "GetMe", got, fault.ReasonUnavailable)
		if took := time.Since(began); took > readLimit {
			t.Errorf("GetMe waited %s for a part, want its limit %s", took, readLimit)
		}
	})
}

// The gateway reports an optional part as missing when the caller's deadline leaves no
// time for it, and returns the other parts.
func TestAnOptionalPartMayExceedTheCallersDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		defer h.gateway.verifier.Stop()
		h.hang(authv1.SessionServiceListSessionsProcedure)
		h.setDeadline("Connect-Timeout-Ms", "200")
		res, got := h.getMe(t, h.token(alice))
		wantNoError(t, "GetMe", got.err)
		wantMissing(t, "GetMe", res.GetErrors(), &bffv1.PartError{
			Part: "sessions", Code: "deadline_exceeded", Reason: fault.ReasonDeadline, Retryable: true,
		})
	})
}

func TestACancelledCallCancelsItsCallsToServices(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart=%v", apart), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{served: true, apart: apart})
			asked, ended := h.hang(usersv1.ProfileServiceGetProfileProcedure)
			ctx, leave := context.WithCancel(t.Context())
			ctx, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+h.token(alice))
			over := make(chan error, 1)
			go func() {
				_, err := h.accounts.GetMe(ctx, &bffv1.GetMeRequest{})
				over <- err
			}()
			select {
			case <-asked:
			case err := <-over:
				t.Fatalf("the call ended before anybody left: %v", err)
			}
			leave()
			if err := <-over; connect.CodeOf(err) != connect.CodeCanceled {
				t.Errorf("the caller got %v, want canceled", err)
			}
			if err := <-ended; !errors.Is(err, context.Canceled) { // not the part's limit
				t.Errorf("the service's context ended with %v, want canceled", err)
			}
			eventually(t, "the gateway logs the call as canceled", func() bool {
				for _, line := range h.log.lines(t, "call") {
					if line["method"] == bffv1.AccountServiceGetMeProcedure {
						return line["code"] == "canceled" && line["reason"] == fault.ReasonCanceled
					}
				}
				return false
			})
		})
	}
}

// eventually waits for what happens elsewhere in this process.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30s", what)
		}
	}
}

func TestAPublicErrorOfAServiceIsPassedOn(t *testing.T) {
	t.Parallel()
	throttled := fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_PASSWORD_CHECKS", "Many sign in just now. Try again in 3 seconds."), 3*time.Second)
	for _, apart := range []bool{false, true} {
		for protocol, clientOptions := range protocols {
			t.Run(fmt.Sprintf("apart=%v/%s", apart, protocol), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t, options{served: true, apart: apart})
				login := bffv1.NewAuthServiceClient(h.client(clientOptions...)).Login
				request := &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}

				h.fail(authv1.SessionServiceLoginProcedure, throttled)
				_, got := ask(t, login, request, "")
				if code, reason := connect.CodeOf(got.err), fault.Reason(got.err); code != connect.CodeResourceExhausted || reason != "TOO_MANY_PASSWORD_CHECKS" {
					t.Errorf("got %s %s, want resource_exhausted TOO_MANY_PASSWORD_CHECKS", code, reason)
				}
				if failure, ok := errors.AsType[*connect.Error](got.err); ok && failure.Message() != throttled.Message() {
					t.Errorf("got %q, want %q", failure.Message(), throttled.Message())
				}
				if after, _ := fault.RetryDelay(got.err); after != 3*time.Second {
					t.Errorf("got RetryInfo %s, want 3s", after)
				}
				if after := got.header.Get("Retry-After"); after != "3" {
					t.Errorf("got Retry-After %q, want 3", after)
				}

				h.fail(authv1.SessionServiceLoginProcedure, fault.Invalid("PASSWORD_WRONG", "password", "is wrong"))
				_, got = ask(t, login, request, "")
				if bad := violations(t, got.err); len(bad) != 1 || bad[0].GetField() != "password" || bad[0].GetDescription() != "is wrong" {
					t.Errorf("got violations %v, want one of password", bad)
				}
			})
		}
	}
}

// violations returns the fields that an error is about.
func violations(t testing.TB, err error) []*errdetails.BadRequest_FieldViolation {
	t.Helper()
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok {
		t.Fatalf("got %v, want an error with details", err)
	}
	for _, detail := range failure.Details() {
		if message, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
			if bad, ok := message.(*errdetails.BadRequest); ok {
				return bad.GetFieldViolations()
			}
		}
	}
	return nil
}

// What a service says to the gateway, rather than to callers, stays here: it is
// our fault, and above all no reason to sign anybody out.
func TestAnInternalErrorOfAServiceIsHidden(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"a plain error":             errors.New("pq: secret"),
		"internal":                  connect.NewError(connect.CodeInternal, "secret"),
		"internal with a reason":    fault.New(connect.CodeInternal, "SECRET", "secret"),
		"unknown":                   connect.NewError(connect.CodeUnknown, "secret"),
		"data loss":                 fault.New(connect.CodeDataLoss, "SECRET", "secret"),
		"unimplemented":             connect.NewError(connect.CodeUnimplemented, "secret"),
		"the gateway's own token":   fault.New(connect.CodeUnauthenticated, fault.ReasonInternalToken, "secret"),
		"the gateway's permission":  fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "secret"),
		"the gateway's message":     fault.New(connect.CodeInvalidArgument, fault.ReasonMalformed, "secret"),
		"the gateway's size":        fault.New(connect.CodeResourceExhausted, fault.ReasonTooLarge, "secret"),
		"a panic":                   nil,
		"a 401 of another's making": withDomain(connect.CodeUnauthenticated, "elsewhere"),
	} {
		for _, apart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/apart=%v", name, apart), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t, options{apart: apart})
				for _, procedure := range []string{usersv1.ProfileServiceGetProfileProcedure, authv1.SessionServiceListSessionsProcedure} {
					if failure == nil {
						answer(h.backend, procedure, func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
							panic("secret")
						})
					} else {
						h.fail(procedure, failure)
					}
				}
				_, got := h.getMe(t, h.token(alice))
				wantError(t, "GetMe", got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
				if strings.Contains(strings.ToLower(got.err.Error()), "secret") {
					t.Errorf("got %v, want no word of the service's", got.err)
				}
				if got.header.Get("Www-Authenticate") != "" {
					t.Error("the response asks the caller to sign in again")
				}

				res, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
				wantNoError(t, "Login", got.err)
				wantMissing(t, "Login", res.GetErrors(), &bffv1.PartError{Part: "profile", Code: "internal", Reason: fault.ReasonInternal})
			})
		}
	}
}

func withDomain(code connect.Code, domain string) error {
	detail, err := connectproto.NewErrorDetail(&errdetails.ErrorInfo{Reason: "TOKEN_INVALID", Domain: domain})
	if err != nil {
		panic(err)
	}
	return connect.NewError(code, "secret").WithDetail(detail)
}

// A refusal without a reason comes from something else in between, or from an
// older service: its text isn't for callers.
func TestARefusalWithoutAReasonIsInternal(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"unauthenticated", "permission_denied", "invalid_argument", "already_exists", "resource_exhausted", "aborted", "nonsense"} {
		h := newHarness(t, options{users: deadEnd(t, "users", broken(t, says(400, "application/json", `{"code":"`+code+`","message":"secret"}`)))})
		_, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{}, h.token(alice, "admin"))
		wantError(t, code, got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
		if strings.Contains(got.err.Error(), "secret") {
			t.Errorf("%s: got %v, want no word of it", code, got.err)
		}
		res, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "x"}, "")
		wantNoError(t, "Login", got.err)
		wantMissing(t, "Login", res.GetErrors(), &bffv1.PartError{Part: "profile", Code: "internal", Reason: fault.ReasonInternal})
	}
}

// Our own limit on a call is not the caller's deadline, even where it is the next to
// end. A caller that has disconnected gets no other error.
func TestTimeoutsAreAttributedToTheCallerOrTheService(t *testing.T) {
	t.Parallel()
	ours, cancel := context.WithTimeout(t.Context(), deadlineSlack/2)
	defer cancel()
	left, leave := context.WithCancel(t.Context())
	leave()
	over := connect.NewError(connect.CodeDeadlineExceeded, "over")
	for _, test := range []struct {
		name     string
		ctx      context.Context
		err      error
		reason   string
		canceled bool
	}{
		{"our limit, here", ours, over, fault.ReasonUnavailable, false},
		{"our limit, there", ours, over.WithRemote(), fault.ReasonUnavailable, false},
		{"our limit, bare", ours, context.DeadlineExceeded, fault.ReasonUnavailable, false},
		{"a part's limit, bare", t.Context(), fmt.Errorf("read: %w", context.DeadlineExceeded), fault.ReasonUnavailable, false},
		{"the caller left", left, over, "", true},
		{"the caller left as a refusal came", left, remote(errNoUser), "", true},
		{"another provider is down", t.Context(), remote(fault.New(connect.CodeUnavailable, fault.ReasonProvider, "down")), fault.ReasonProvider, false},
		{"nothing", left, nil, "", false},
	} {
		err := fromBackend(test.ctx, test.err)
		if fault.Reason(err) != test.reason || (err == context.Canceled) != test.canceled { //nolint:errorlint // bare
			t.Errorf("%s: got %v, want reason %q, canceled %v", test.name, err, test.reason, test.canceled)
		}
	}
}

// Services that don't share the gateway's key refuse it, which is nobody's sign-in.
func TestAWrongInternalKeyIsInternal(t *testing.T) {
	t.Parallel()
	other := newBackend()
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: discard, Authorizer: rpc.ServicesOnly(rpc.InternalKeys{make([]byte, 32)}, "users"),
	}, func(server *connect.Server) { other.register(server, "users") })
	wantNoError(t, "NewServer", err)
	h := newHarness(t, options{served: true, users: deadEnd(t, "users", serveHTTP(t, server.Mux(func() error { return nil })))})
	_, got := h.getMe(t, h.token(alice))
	wantError(t, "GetMe", got, http.StatusInternalServerError, connect.CodeInternal, fault.ReasonInternal)
	if calls := other.called(""); calls != 0 {
		t.Errorf("the service answered %d calls", calls)
	}
}

// The gateway logs the cause of an error, for required and for optional parts.
func TestTheCauseOfAMissingPartIsLogged(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.fail(authv1.SessionServiceListSessionsProcedure, fault.New(connect.CodeDataLoss, "TORN_PAGE", "page 7"))
	_, got := h.getMe(t, h.token(alice), "X-Request-Id", "r-1")
	wantNoError(t, "GetMe", got.err)
	lines := h.log.lines(t, "composition: optional part missing")
	if len(lines) != 1 {
		t.Fatalf("got %d lines of log, want one: %s", len(lines), h.log)
	}
	line := lines[0]
	if line["part"] != "sessions" || line["code"] != "internal" || line["request_id"] != "r-1" || !strings.Contains(fmt.Sprint(line["cause"]), "page 7") {
		t.Errorf("got %v, want the part, code, request id and cause", line)
	}
}
