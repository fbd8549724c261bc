package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// The tests of this file run over every topology with the same expectations.

func TestACallIsAnswered(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, rpctest.Found))
			res, err := rpctest.Get(t.Context(), client)
			if err != nil || res.GetProfile().GetFirstName() != "Ada" {
				t.Errorf("GetProfile: got %v, %v, want Ada's profile", res, err)
			}
		})
	}
}

// Each case is what a method does, and what its caller must see of it.
func TestAnErrorReachesItsCallerAlike(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-s3cret"
	cause := errors.New("row of " + secret)
	taken := fault.WithRetry(fault.New(connect.CodeAlreadyExists, "EMAIL_TAKEN", "Use another email."), 1500*time.Millisecond).WithCause(cause)
	const internal, unavailable = connect.CodeInternal, connect.CodeUnavailable

	cases := []struct {
		name    string
		fail    func() error
		code    connect.Code
		reason  string
		message string // where it matters
		retry   time.Duration
		header  string // Retry-After
	}{
		{"a typed error", func() error { return taken }, connect.CodeAlreadyExists, "EMAIL_TAKEN", "Use another email.", 1500 * time.Millisecond, "2"},
		{"a wrapped typed error", func() error { return fmt.Errorf("save %s: %w", secret, taken) }, connect.CodeAlreadyExists, "EMAIL_TAKEN", "Use another email.", 1500 * time.Millisecond, "2"},
		{"a fault of a field", func() error { return fault.Invalid("NAME_TAKEN", "first_name", "is taken") }, connect.CodeInvalidArgument, "NAME_TAKEN", "first_name: is taken", 0, ""},
		{"a plain error", func() error { return cause }, internal, fault.ReasonInternal, "", 0, ""},
		{"a typed error without a reason", func() error { return connect.NewError(connect.CodeNotFound, secret) }, internal, fault.ReasonInternal, "", 0, ""},
		{"a typed nil", func() error { var none *connect.Error; return none }, internal, fault.ReasonInternal, "", 0, ""},
		{"a wrapped typed nil", func() error { var none *connect.Error; return fmt.Errorf("%s: %w", secret, none) }, internal, fault.ReasonInternal, "", 0, ""},
		{"another service's error", func() error { return taken.WithRemote() }, internal, fault.ReasonInternal, "", 0, ""},
		{"another service's error, wrapped", func() error { return fmt.Errorf("ask: %w", taken.WithRemote()) }, internal, fault.ReasonInternal, "", 0, ""},
		{"another service's deadline", func() error { return connect.NewError(connect.CodeDeadlineExceeded, secret).WithRemote() }, internal, fault.ReasonInternal, "", 0, ""},
		{"an answer of another service that can't be read", func() error { return connect.NewError(connect.CodeInvalidArgument, "unmarshal message: "+secret) }, internal, fault.ReasonInternal, "", 0, ""},
		{"an answer of another service that is too large", func() error { return connect.NewError(connect.CodeResourceExhausted, "message is larger") }, internal, fault.ReasonInternal, "", 0, ""},
		{"a panic", func() error { panic(secret) }, internal, fault.ReasonInternal, "", 0, ""},
		{"a panic with a typed error", func() error { panic(taken) }, internal, fault.ReasonInternal, "", 0, ""},
		{"a nil dereference", func() error { var p *struct{ err error }; return p.err }, internal, fault.ReasonInternal, "", 0, ""},
		{"no store", func() error { return unreachableStore(t) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"the store refuses our password", func() error { return refusedByPostgres(t, "28P01") }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that shuts down", func() error { return postgresError("57P01", secret) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that lost the connection", func() error { return fmt.Errorf("load: %w", postgresError("08006", secret)) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that is full", func() error { return postgresError("53300", secret) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that only reads", func() error { return postgresError("25006", secret) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that asks for another try", func() error { return postgresError("40001", secret) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that broke a deadlock", func() error { return fmt.Errorf("save: %w", postgresError("40P01", secret)) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store's plan that is stale", func() error { return stalePlan(secret) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store's lock that isn't free", func() error { return postgresError("55P03", secret) }, unavailable, fault.ReasonUnavailable, "", time.Second, "1"},
		{"a store that can't do what was asked", func() error { return postgresError("0A000", secret) }, internal, fault.ReasonInternal, "", 0, ""},
		{"a text that Postgres does not store", func() error { return postgresError("22021", secret) }, connect.CodeInvalidArgument, fault.ReasonInvalid, "", 0, ""},
		{"JSON that Postgres does not store", func() error { return fmt.Errorf("save: %w", postgresError("22P05", secret)) }, connect.CodeInvalidArgument, fault.ReasonInvalid, "", 0, ""},
		{"a violation that nobody handled", func() error { return postgresError("23505", secret) }, internal, fault.ReasonInternal, "", 0, ""},
		{"a store's error without a code", func() error { return postgresError("", secret) }, internal, fault.ReasonInternal, "", 0, ""},
		{"a deadline of the method's own", func() error { return fmt.Errorf("%s: %w", secret, context.DeadlineExceeded) }, connect.CodeDeadlineExceeded, fault.ReasonDeadline, "", 0, ""},
	}
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			var fail func() error
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				if fail != nil {
					return nil, fail()
				}
				return rpctest.Found(ctx, req)
			}))
			for _, test := range cases {
				ctx, info := connect.NewClientContext(t.Context())
				fail = test.fail
				_, err := rpctest.Get(ctx, client)
				rpctest.WantError(t, test.name, err, test.code, test.reason)
				failure, ok := errors.AsType[*connect.Error](err)
				if !ok {
					continue
				}
				if test.message != "" && failure.Message() != test.message {
					t.Errorf("%s: got message %q, want %q", test.name, failure.Message(), test.message)
				}
				if failure.Message() == "" {
					t.Errorf("%s: got no message, want a sentence", test.name)
				}
				if text := rpctest.Text(err); strings.Contains(text, secret) || strings.Contains(text, "panic") || strings.Contains(text, "nil pointer") {
					t.Errorf("%s: got %q, want nothing that wasn't written for the caller", test.name, text)
				}
				if errors.Is(err, cause) || errors.Unwrap(failure) != nil {
					t.Errorf("%s: got the cause %v, want none to reach the caller", test.name, errors.Unwrap(failure))
				}
				if !failure.IsRemote() {
					t.Errorf("%s: got an error that isn't marked as another's, want it marked", test.name)
				}
				if retry, _ := fault.RetryDelay(err); retry != test.retry {
					t.Errorf("%s: got RetryInfo of %v, want %v", test.name, retry, test.retry)
				}
				if got := info.ResponseHeader().Get("Retry-After"); got != test.header {
					t.Errorf("%s: got Retry-After %q, want %q", test.name, got, test.header)
				}
				if id := info.ResponseHeader().Get("X-Request-Id"); id == "" {
					t.Errorf("%s: got no X-Request-Id with the error", test.name)
				}
				fail = nil
				if _, err := rpctest.Get(t.Context(), client); err != nil {
					t.Fatalf("the call after %s: got %v, want the server to live on", test.name, err)
				}
			}
		})
	}
}

func TestACallWithAnEndedContextDoesNotBegin(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
			defer cancel()
			nearly, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			ran := false
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				ran = true
				return rpctest.Found(ctx, req)
			}))
			for _, test := range []struct {
				name string
				ctx  context.Context
				code connect.Code
				bare error
			}{
				{"an expired deadline", expired, connect.CodeDeadlineExceeded, context.DeadlineExceeded},
				{"a deadline within the hop's margin", nearly, connect.CodeDeadlineExceeded, context.DeadlineExceeded},
				{"a cancelled context", canceled, connect.CodeCanceled, context.Canceled},
			} {
				_, err := rpctest.Get(test.ctx, client)
				rpctest.WantError(t, test.name, err, test.code, "")
				if !errors.Is(err, test.bare) {
					t.Errorf("%s: got %v, want one that errors.Is finds %v in", test.name, err, test.bare)
				}
				if ran {
					t.Errorf("%s: the method ran, want it not to", test.name)
				}
			}
		})
	}
}

// Other clients than ours let such a call begin.
func TestACallThatArrivesTooLateDoesNotRun(t *testing.T) {
	t.Parallel()
	url := rpctest.Serve(t, rpctest.NewProfiles(t, func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		t.Error("the method ran, want it not to")
		return nil, nil
	}).Mux(rpctest.IsReady))
	request := rpctest.PostRequest(t, url, jsonType, `{"profileId":"`+rpctest.ProfileID+`"}`)
	request.Header.Set("Connect-Timeout-Ms", "0")
	got := rpctest.Send(t, request)
	if _, reason, _ := wireErrorOf(t, got); got.Status != http.StatusGatewayTimeout || reason != fault.ReasonDeadline {
		t.Errorf("no time left: got %d %s, want 504 with %s", got.Status, got.Body, fault.ReasonDeadline)
	}
}

func TestAContextsEndReachesBothSides(t *testing.T) {
	t.Parallel()
	const limit = 100 * time.Millisecond
	late := func(ctx context.Context) (*usersv1.GetProfileResponse, error) { return nil, ctx.Err() }
	ignoring := func(ctx context.Context) (*usersv1.GetProfileResponse, error) {
		<-time.After(limit) // the deadline of the callee is earlier
		return rpctest.Found(ctx, nil)
	}

	for _, topology := range rpctest.Topologies {
		for _, test := range []struct {
			name   string
			cancel bool
			answer func(context.Context) (*usersv1.GetProfileResponse, error)
			code   connect.Code
		}{
			{"a deadline", false, late, connect.CodeDeadlineExceeded},
			{"a deadline that the method ignores", false, ignoring, connect.CodeDeadlineExceeded},
			{"a cancellation", true, late, connect.CodeCanceled},
			{"a cancellation that the method ignores", true, ignoring, connect.CodeCanceled},
		} {
			t.Run(topology.Name+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				begun, ended := make(chan struct{}), make(chan struct{})
				client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
					close(begun)
					<-ctx.Done()
					close(ended)
					return test.answer(ctx)
				}))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.cancel {
					go func() { <-begun; cancel() }()
				} else {
					ctx, cancel = context.WithTimeout(ctx, limit)
					defer cancel()
				}
				start := time.Now()
				_, err := rpctest.Get(ctx, client)
				took := time.Since(start)
				// Over HTTP either side may be the first to say so.
				if connect.CodeOf(err) != test.code {
					t.Errorf("%s: got error %v, want %v", test.name, err, test.code)
				}
				if took > 20*limit {
					t.Errorf("%s: the caller waited %v, want about %v", test.name, took, limit)
				}
				select {
				case <-ended:
				case <-time.After(5 * time.Second):
					t.Errorf("%s: the method's context never ended", test.name)
				}
			})
		}
	}
}

func TestADeadlineShrinksWithEachHop(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			var left time.Duration
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				deadline, ok := ctx.Deadline()
				if !ok {
					return nil, errors.New("no deadline")
				}
				left = time.Until(deadline)
				if !rpc.CallFrom(ctx).CallersDeadline {
					return nil, errors.New("not the caller's deadline")
				}
				return rpctest.Found(ctx, req)
			}))

			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			deadline, _ := ctx.Deadline()
			callers := time.Until(deadline)
			if _, err := rpctest.Get(ctx, client); err != nil {
				t.Fatalf("GetProfile: %v", err)
			}
			if left > callers-10*time.Millisecond || left < callers-time.Second {
				t.Errorf("of the caller's %v the method had %v, want at least 10ms less", callers, left)
			}
			if _, err := rpctest.Get(t.Context(), client); err != nil {
				t.Fatalf("GetProfile without a deadline: %v", err)
			}
			if left > 5*time.Second || left < 4*time.Second {
				t.Errorf("without a caller's deadline the method had %v, want 5s", left)
			}
		})
	}
}

func TestACallIsBoundedByTheServersLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			name            string
			limit, given    time.Duration
			want            time.Duration
			callersDeadline bool
		}{
			{"the default limit", 0, time.Minute, 10 * time.Second, false},
			{"a limit", 2 * time.Second, time.Minute, 2 * time.Second, false},
			{"the caller's deadline", 2 * time.Second, time.Second, 990 * time.Millisecond, true},
			{"no deadline at all", 0, 0, 5 * time.Second, true},
		} {
			var took time.Duration
			var callers bool
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Limit: test.limit}, rpctest.RegisterProfiles(func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				start := time.Now()
				<-ctx.Done()
				took, callers = time.Since(start), rpc.CallFrom(ctx).CallersDeadline
				return nil, ctx.Err()
			}))
			client, err := dial.InProcess(rpctest.BFFToUsers, server)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if test.given > 0 {
				ctx, cancel = context.WithTimeout(ctx, test.given)
			}
			_, err = rpctest.Get(ctx, client)
			cancel()
			want := connect.CodeUnavailable // the limit is ours, not the caller's
			if test.callersDeadline {
				want = connect.CodeDeadlineExceeded
			}
			if connect.CodeOf(err) != want {
				t.Errorf("%s: got error %v, want %s", test.name, err, want)
			}
			if took != test.want || callers != test.callersDeadline {
				t.Errorf("%s: the method had %v, the caller's own: %v; want %v, %v", test.name, took, callers, test.want, test.callersDeadline)
			}
		}
	})
}

type ownKey struct{}

// keyService is auth's KeyService, whose method is list.
type keyService struct {
	list func(context.Context) error
}

func (s keyService) ListSigningKeys(ctx context.Context, _ *authv1.ListSigningKeysRequest) (*authv1.ListSigningKeysResponse, error) {
	return &authv1.ListSigningKeysResponse{}, s.list(ctx)
}

// relayService is users' RelayService, whose method is apply.
type relayService struct {
	apply func(context.Context) error
}

func (s relayService) ApplyAccount(ctx context.Context, _ *usersv1.ApplyAccountRequest) (*usersv1.ApplyAccountResponse, error) {
	return &usersv1.ApplyAccountResponse{}, s.apply(ctx)
}

// What one call knows reaches the call that it makes in headers and messages,
// and in no other way.
func TestANestedCallStandsAlone(t *testing.T) {
	t.Parallel()
	type seen struct {
		call          rpc.Call
		value         any
		authorization string
		custom        string
	}
	look := func(ctx context.Context) seen {
		info, _ := connect.CallInfoForServerContext(ctx)
		return seen{
			call: *rpc.CallFrom(ctx), value: ctx.Value(ownKey{}),
			authorization: info.RequestHeader().Get("Authorization"), custom: info.RequestHeader().Get("X-Custom"),
		}
	}
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			var outer, inner seen
			users := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
				usersv1.RegisterRelayServiceHandler(server, relayService{func(ctx context.Context) error {
					inner = look(ctx)
					if info, ok := connect.CallInfoForClientContext(ctx); ok {
						t.Errorf("the callee sees its caller's call %v", info)
					}
					return nil
				}})
			})
			relay := usersv1.NewRelayServiceClient(topology.Reach(t, dial.Route{Caller: "auth", Callee: "users", Keys: rpctest.Keys}, users))
			auth := rpctest.NewServer(t, "auth", rpc.ServerConfig{}, func(server *connect.Server) {
				authv1.RegisterKeyServiceHandler(server, keyService{func(ctx context.Context) error {
					outer = look(ctx)
					_, err := relay.ApplyAccount(context.WithValue(ctx, ownKey{}, "auth's"), &usersv1.ApplyAccountRequest{
						AccountId: rpctest.ProfileID, Version: 1, State: &usersv1.ApplyAccountRequest_Deleted{Deleted: &usersv1.AccountDeleted{}},
					})
					return err
				}})
			})
			client := authv1.NewKeyServiceClient(topology.Reach(t, dial.Route{Caller: "bff", Callee: "auth", Keys: rpctest.Keys}, auth))

			ctx, info := connect.NewClientContext(context.WithValue(t.Context(), ownKey{}, "the bff's"))
			info.RequestHeader().Set("X-Request-Id", "request-1")
			info.RequestHeader().Set("X-Custom", "for auth alone")
			if _, err := client.ListSigningKeys(ctx, &authv1.ListSigningKeysRequest{}); err != nil {
				t.Fatalf("ListSigningKeys: %v", err)
			}

			for _, got := range []struct {
				name string
				seen
				principal, custom string
			}{{"auth", outer, "service:bff", "for auth alone"}, {"users", inner, "service:auth", ""}} {
				if got.call.RequestID != "request-1" {
					t.Errorf("%s: got request id %q, want the caller's", got.name, got.call.RequestID)
				}
				if got.call.Principal != got.principal {
					t.Errorf("%s: got principal %q, want %q", got.name, got.call.Principal, got.principal)
				}
				if got.value != nil {
					t.Errorf("%s: sees its caller's context value %v", got.name, got.value)
				}
				if got.seen.custom != got.custom {
					t.Errorf("%s: got the header X-Custom %q, want %q", got.name, got.seen.custom, got.custom)
				}
			}
			if topology.Name == "in process" {
				if outer.authorization != "" || inner.authorization != "" {
					t.Errorf("got Authorization %q, then %q, want none: the transport states the caller", outer.authorization, inner.authorization)
				}
				return
			}
			if outer.authorization == "" || inner.authorization == "" || outer.authorization == inner.authorization {
				t.Errorf("got Authorization %q, then %q, want one of each caller's own", outer.authorization, inner.authorization)
			}
		})
	}
}

// A caller's reason for giving up is its own.
func TestACallersCauseStaysWithIt(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			begun, cause := make(chan struct{}), make(chan error, 1)
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				close(begun)
				<-ctx.Done()
				cause <- context.Cause(ctx)
				return nil, ctx.Err()
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() { <-begun; cancel(errors.New("the caller's own")) }()
			_, err := rpctest.Get(ctx, client)
			rpctest.WantError(t, "a cancellation with a cause", err, connect.CodeCanceled, "")
			if got := <-cause; got != context.Canceled { //nolint:errorlint // this very one
				t.Errorf("got the cause %v, want %v", got, context.Canceled)
			}
		})
	}
}

func TestHeadersTravelBothWays(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			var given []string
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				info, _ := connect.CallInfoForServerContext(ctx)
				given = slices.Clone(info.RequestHeader().Values("X-Given"))
				info.RequestHeader().Set("X-Given", "changed")
				info.ResponseHeader().Add("X-Answer", "one")
				info.ResponseHeader().Add("X-Answer", "two")
				info.ResponseTrailer().Set("X-Last", "three")
				return rpctest.Found(ctx, req)
			}))
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Add("X-Given", "a")
			info.RequestHeader().Add("X-Given", "b")
			if _, err := rpctest.Get(ctx, client); err != nil {
				t.Fatalf("GetProfile: %v", err)
			}
			for _, test := range []struct {
				name      string
				got, want []string
			}{
				{"at the callee", given, []string{"a", "b"}},
				{"the answer's header", info.ResponseHeader().Values("X-Answer"), []string{"one", "two"}},
				{"the answer's trailer", info.ResponseTrailer().Values("X-Last"), []string{"three"}},
				{"what the caller sent, after the callee changed it", info.RequestHeader().Values("X-Given"), []string{"a", "b"}},
			} {
				if !slices.Equal(test.got, test.want) {
					t.Errorf("%s: got %q, want %q", test.name, test.got, test.want)
				}
			}
		})
	}
}

func TestMessagesAreNotShared(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			kept := &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: rpctest.ProfileID, FirstName: "Ada"}}
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				req.ProfileId = "changed"
				return kept, nil
			}))
			request := rpctest.GetRequest()
			res, err := usersv1.NewProfileServiceClient(client).GetProfile(t.Context(), request)
			if err != nil {
				t.Fatalf("GetProfile: %v", err)
			}
			if !proto.Equal(request, rpctest.GetRequest()) {
				t.Errorf("the callee changed its request; the caller's is now %v", request)
			}
			res.Profile.FirstName = "changed"
			if got := kept.GetProfile().GetFirstName(); got != "Ada" {
				t.Errorf("the caller changed its answer; the callee's is now %q, want Ada", got)
			}
		})
	}
}

func TestAnInvalidRequestNamesItsFields(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			client := usersv1.NewProfileServiceClient(topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, rpctest.Found)))
			_, err := client.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: "nobody"})
			rpctest.WantError(t, "an id that is no UUID", err, connect.CodeInvalidArgument, fault.ReasonInvalid)
			if got := rpctest.BadFields(err); !slices.Equal(got, []string{"profile_id"}) {
				t.Errorf("an id that is no UUID: got the fields %q, want profile_id", got)
			}
			if strings.Contains(rpctest.Text(err), "nobody") {
				t.Errorf("an id that is no UUID: got %q, want it without the value", rpctest.Text(err))
			}

			_, err = client.UpdateProfile(t.Context(), &usersv1.UpdateProfileRequest{Profile: &usersv1.Profile{Id: "nobody"}})
			rpctest.WantError(t, "two faults", err, connect.CodeInvalidArgument, fault.ReasonInvalid)
			if got := rpctest.BadFields(err); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"profile.id", "update_mask"}) {
				t.Errorf("two faults: got the fields %q, want profile.id and update_mask", got)
			}
			_, err = client.UpdateProfile(t.Context(), &usersv1.UpdateProfileRequest{
				Profile: &usersv1.Profile{Id: rpctest.ProfileID}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"first_name"}},
			})
			if err != nil {
				t.Errorf("a valid request: got %v", err)
			}
		})
	}
}

func TestAnUnknownMethodIsUnimplemented(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			client := topology.Reach(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, rpctest.Found))
			for _, streamType := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer} {
				spec := connect.Spec{Procedure: "/users.v1.ProfileService/ForgetProfile", StreamType: streamType}
				err := rpctest.Exhaust(t, client, spec)
				rpctest.WantError(t, streamType.String(), err, connect.CodeUnimplemented, fault.ReasonUnknownMethod)
			}
			// It is registered, but its service doesn't implement it.
			_, err := usersv1.NewProfileServiceClient(client).ListProfiles(t.Context(), &usersv1.ListProfilesRequest{})
			rpctest.WantError(t, "a method that isn't implemented", err, connect.CodeUnimplemented, fault.ReasonUnknownMethod)
		})
	}
}
