package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// diary notes what happened, in order.
type diary struct {
	mu    sync.Mutex
	notes []string
}

func (d *diary) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes = append(d.notes, what)
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.notes)
}

// step notes when a call passes.
func (d *diary) step(name string) rpc.Interceptor {
	return func(*policy.Method) (connect.ServerInterceptor, error) {
		return func(next connect.ServerFunc) connect.ServerFunc {
			return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
				d.note(name)
				return next(ctx, spec, stream)
			}
		}, nil
	}
}

// admits lets the bff in, and notes when it is asked.
func (d *diary) admits(plan *policy.Method) (rpc.Admission, error) {
	admission, err := rpc.ServicesOnly(rpctest.Keys, "users")(plan)
	asked, _ := d.step("authentication")(plan)
	inner := admission.Authenticate
	admission.Authenticate = func(next connect.ServerFunc) connect.ServerFunc { return asked(inner(next)) }
	admission.Authorize = func(context.Context) error {
		d.note("authorise by role")
		return nil
	}
	admission.AuthorizeMessage = func(_ context.Context, message proto.Message) error {
		d.note("authorise by message")
		return nil
	}
	return admission, err
}

// noting notes when an answer is sent.
type noting struct {
	connect.ServerStream
	note func()
}

func (n noting) Send(message any) error {
	n.note()
	return n.ServerStream.Send(message)
}

func TestACallPassesTheStepsInTheStatedOrder(t *testing.T) {
	t.Parallel()
	stated := []string{
		"recover", "trace", "record", "time limit", "cross-origin check", "authentication", "rate", "authorise by role",
		"decode once", "normalise", "validate", "authorise by message", "idempotency", "cache and coalescing", "queue", "compose",
		"redact and post-process", "map errors",
	}
	if got := rpc.Order(); !slices.Equal(got, stated) {
		t.Errorf("got the order %q, want %q", got, stated)
	}
	d := &diary{}
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Authorizer: d.admits, Interceptors: rpc.Interceptors{
		Trace: d.step("trace"), Record: d.step("record"), CrossOrigin: d.step("cross-origin check"), Rate: d.step("rate"),
		Idempotency: d.step("idempotency"), Cache: d.step("cache and coalescing"), Queue: d.step("queue"),
		Finish: func(*policy.Method) (connect.ServerInterceptor, error) {
			return func(next connect.ServerFunc) connect.ServerFunc {
				return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
					return next(ctx, spec, noting{stream, func() { d.note("redact and post-process") }})
				}
			}, nil
		},
	}}, rpctest.RegisterProfiles(func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		d.note("compose")
		return rpctest.Found(ctx, req)
	}))
	if _, err := rpctest.Get(t.Context(), rpctest.InProcess(t, rpctest.BFFToUsers, server)); err != nil {
		t.Fatalf("GetProfile: %v", err)
	}
	// The others leave no note: other tests look at what they do.
	var want []string
	for _, name := range stated {
		if !slices.Contains([]string{"recover", "time limit", "decode once", "normalise", "validate", "map errors"}, name) {
			want = append(want, name)
		}
	}
	if got := d.read(); !slices.Equal(got, want) {
		t.Errorf("a call passed %q, want %q", got, want)
	}
}

// A trace tells of the error that the caller gets, and of one whose method
// panicked; what panics in the tracing itself is caught too.
func TestErrorsAreMappedWithinTheTraceAndPanicsCaughtOutsideOfIt(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func() error{
		"a fault":               func() error { return errors.New("of ours") },
		"a panic":               func() error { panic("of ours") },
		"a panic of the tracer": func() error { return nil },
	} {
		var traced error
		log := &lockedBuffer{}
		server := rpctest.NewServer(t, "users", rpc.ServerConfig{
			Logger: slog.New(slog.NewJSONHandler(log, nil)),
			Interceptors: rpc.Interceptors{Trace: func(*policy.Method) (connect.ServerInterceptor, error) {
				return func(next connect.ServerFunc) connect.ServerFunc {
					return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
						if traced = next(ctx, spec, stream); traced == nil {
							panic("of ours")
						}
						return traced
					}
				}, nil
			}},
		}, rpctest.RegisterProfiles(func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			if err := fails(); err != nil {
				return nil, err
			}
			return rpctest.Found(ctx, req)
		}))
		_, err := rpctest.Get(t.Context(), rpctest.InProcess(t, rpctest.BFFToUsers, server))
		if fault.Reason(err) != fault.ReasonInternal || strings.Contains(err.Error(), "of ours") {
			t.Errorf("%s: the caller got %v, want %s and no more", name, err, fault.ReasonInternal)
		}
		if name != "a panic of the tracer" && fault.Reason(traced) != fault.ReasonInternal {
			t.Errorf("%s: the trace got %v, want what the caller gets", name, traced)
		}
		if !strings.Contains(log.String(), "of ours") {
			t.Errorf("%s: the log holds no cause: %s", name, log)
		}
	}
}

// A step that isn't for a method is no part of its chain.
func TestAnInterceptorMaySkipAMethod(t *testing.T) {
	t.Parallel()
	d := &diary{}
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Interceptors: rpc.Interceptors{Rate: func(plan *policy.Method) (connect.ServerInterceptor, error) {
		if plan.Procedure != usersv1.ProfileServiceUpdateProfileProcedure {
			return nil, nil
		}
		return d.step("rate")(plan)
	}}}, rpctest.RegisterProfiles(rpctest.Found))
	client := rpctest.InProcess(t, rpctest.BFFToUsers, server)
	if _, err := rpctest.Get(t.Context(), client); err != nil {
		t.Fatalf("GetProfile: %v", err)
	}
	if got := d.read(); len(got) != 0 {
		t.Errorf("GetProfile passed %q, want nothing", got)
	}
	if _, err := usersv1.NewProfileServiceClient(client).UpdateProfile(t.Context(), &usersv1.UpdateProfileRequest{
		Profile: &usersv1.Profile{Id: rpctest.ProfileID}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"first_name"}},
	}); err != nil {
		t.Fatalf("UpdateProfile: %v", err)
	}
	if got := d.read(); !slices.Equal(got, []string{"rate"}) {
		t.Errorf("UpdateProfile passed %q, want the rate", got)
	}
}

func TestAStepThatCantBeMadeKeepsTheServerFromStarting(t *testing.T) {
	t.Parallel()
	_, err := rpc.NewServer(rpc.ServerConfig{Authorizer: rpctest.AllowAll, Interceptors: rpc.Interceptors{
		Rate: func(*policy.Method) (connect.ServerInterceptor, error) { return nil, errors.New("no counter") },
	}}, rpctest.RegisterProfiles(rpctest.Found))
	if err == nil || !strings.Contains(err.Error(), "/users.v1.ProfileService/") || !strings.Contains(err.Error(), "rate: no counter") {
		t.Errorf("got %v, want a refusal that names the method and the step", err)
	}
}

// reset is a method of any stream type that takes RequestPasswordResetRequest,
// whose email is normalized and validated.
func reset(t testing.TB, streamType connect.StreamType) connect.Spec {
	t.Helper()
	described := &descriptorpb.MethodDescriptorProto{
		Name: new("Reset"), InputType: new(".bff.v1.RequestPasswordResetRequest"), OutputType: new(".bff.v1.RequestPasswordResetRequest"),
		ServerStreaming: new(streamType&connect.StreamTypeServer != 0), ClientStreaming: new(streamType&connect.StreamTypeClient != 0),
		Options: &descriptorpb.MethodOptions{},
	}
	proto.SetExtension(described.Options, policyv1.E_Method, rpctest.ForServices("bff"))
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Syntax: new("proto3"), Name: new("reset/v1/reset.proto"), Package: new("reset.v1"),
		Dependency: []string{"bff/v1/auth_service.proto"},
		Service:    []*descriptorpb.ServiceDescriptorProto{{Name: new("ResetService"), Method: []*descriptorpb.MethodDescriptorProto{described}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return connect.Spec{Procedure: "/reset.v1.ResetService/Reset", StreamType: streamType, Schema: file.Services().Get(0).Methods().Get(0)}
}

var errNotYours = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "That is not yours.")

// On every kind of stream, each message is normalized, then validated against its
// rules, and then asked whether its sender may say it; one that fails ends the
// call before the method has it.
func TestEachMessageOfAStreamIsChecked(t *testing.T) {
	t.Parallel()
	type request = bffv1.RequestPasswordResetRequest
	for _, streamType := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer, connect.StreamTypeClient, connect.StreamTypeBidi} {
		for _, asks := range []bool{false, true} {
			for _, topology := range rpctest.Topologies {
				for _, test := range []struct {
					emails []string
					got    []string // by the method
					code   connect.Code
					reason string
				}{
					{emails: []string{" Ada@EXAMPLE.com "}, got: []string{"Ada@example.com"}},
					{emails: []string{"nobody"}, code: connect.CodeInvalidArgument, reason: fault.ReasonInvalid},
					{emails: []string{" Eve@EXAMPLE.com "}, code: connect.CodePermissionDenied, reason: fault.ReasonPermissionDenied},
					{emails: []string{" Ada@EXAMPLE.com ", "bob@Bücher.example"}, got: []string{"Ada@example.com", "bob@xn--bcher-kva.example"}},
					{emails: []string{"ada@example.com", "nobody"}, got: []string{"ada@example.com"}, code: connect.CodeInvalidArgument, reason: fault.ReasonInvalid},
					{emails: []string{"ada@example.com", "Eve@example.com"}, got: []string{"ada@example.com"}, code: connect.CodePermissionDenied, reason: fault.ReasonPermissionDenied},
				} {
					if len(test.emails) > 1 && streamType&connect.StreamTypeClient == 0 || test.code == connect.CodePermissionDenied && !asks {
						continue
					}
					name := strings.Join([]string{topology.Name, streamType.String(), strings.Join(test.emails, " then ")}, "/")
					config := rpc.ServerConfig{Authorizer: func(plan *policy.Method) (rpc.Admission, error) {
						admission, err := rpc.ServicesOnly(rpctest.Keys, "users")(plan)
						if !asks {
							return admission, err
						}
						admission.AuthorizeMessage = func(_ context.Context, message proto.Message) error {
							if strings.HasPrefix(message.(*request).GetEmail(), "Eve@example.com") {
								return errNotYours
							}
							return nil
						}
						return admission, err
					}}
					d := &diary{}
					spec := reset(t, streamType)
					server := rpctest.NewServer(t, "users", config, func(server *connect.Server) {
						server.Register(connect.Method{Spec: spec, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
							for range test.emails {
								message := &request{}
								if err := stream.Receive(message); err != nil {
									return err
								}
								d.note(message.GetEmail())
							}
							return stream.Send(&request{})
						}})
					})
					err := say(t, topology.Reach(t, rpctest.BFFToUsers, server), spec, test.emails)
					if test.code == 0 && err != nil {
						t.Errorf("%s: %v", name, err)
					} else if test.code != 0 {
						rpctest.WantError(t, name, err, test.code, test.reason)
					}
					if got := d.read(); !slices.Equal(got, test.got) {
						t.Errorf("%s: the method got %q, want %q", name, got, test.got)
					}
				}
			}
		}
	}
}

// say calls with a message for each email, and returns what the call ends with.
func say(t testing.TB, client *connect.Client, spec connect.Spec, emails []string) error {
	t.Helper()
	type request = bffv1.RequestPasswordResetRequest
	if spec.StreamType == connect.StreamTypeUnary {
		sent := &request{Email: emails[0]}
		err := client.CallUnary(t.Context(), spec, sent, &request{})
		if sent.GetEmail() != emails[0] {
			t.Errorf("the caller's message has become %v", sent)
		}
		return err
	}
	stream, err := client.CallClientStream(t.Context(), spec)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for _, email := range emails {
		if err := stream.Send(&request{Email: email}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for err == nil {
		err = stream.Receive(&request{})
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// counted counts how often a message is read.
type counted struct {
	connect.ServerStream
	reads *int
}

func (c counted) Receive(message any) error {
	*c.reads++
	return c.ServerStream.Receive(message)
}

// What stands before the method sees what the method gets, and nothing is read
// twice.
func TestAMessageIsReadOnceThoughStepsLookAtIt(t *testing.T) {
	t.Parallel()
	sent := &usersv1.ListProfilesRequest{PageSize: 7, PageToken: "token", Query: "A\u030a"}
	sent.ProtoReflect().SetUnknown([]byte("\xfa\x3f\x03abc")) // of a newer schema
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			reads := 0
			var seen, got proto.Message
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Interceptors: rpc.Interceptors{
				Trace: func(*policy.Method) (connect.ServerInterceptor, error) {
					return func(next connect.ServerFunc) connect.ServerFunc {
						return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
							return next(ctx, spec, counted{stream, &reads})
						}
					}, nil
				},
				Cache: func(*policy.Method) (connect.ServerInterceptor, error) {
					return func(next connect.ServerFunc) connect.ServerFunc {
						return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
							seen = proto.Clone(rpc.CallFrom(ctx).Request)
							return next(ctx, spec, stream)
						}
					}, nil
				},
			}}, func(server *connect.Server) {
				usersv1.RegisterProfileServiceHandler(server, listsProfiles{list: func(req *usersv1.ListProfilesRequest) { got = proto.Clone(req) }})
			})
			if _, err := usersv1.NewProfileServiceClient(topology.Reach(t, rpctest.BFFToUsers, server)).ListProfiles(t.Context(), sent); err != nil {
				t.Fatalf("ListProfiles: %v", err)
			}
			if !proto.Equal(seen, sent) || !proto.Equal(got, sent) {
				t.Errorf("the step saw %v and the method got %v, want %v", seen, got, sent)
			}
			if reads != 1 {
				t.Errorf("the message was read %d times, want once", reads)
			}
		})
	}
}

type listsProfiles struct {
	usersv1.UnimplementedProfileServiceHandler
	list func(*usersv1.ListProfilesRequest)
}

func (l listsProfiles) ListProfiles(_ context.Context, req *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
	l.list(req)
	return &usersv1.ListProfilesResponse{}, nil
}

// A cache hit does not reach the method, but its request is checked.
func TestARequestIsCheckedBeforeAnInterceptorAnswersIt(t *testing.T) {
	t.Parallel()
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Interceptors: rpc.Interceptors{Cache: func(*policy.Method) (connect.ServerInterceptor, error) {
		return func(connect.ServerFunc) connect.ServerFunc {
			return func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
				return stream.Send(&usersv1.GetProfileResponse{Profile: &usersv1.Profile{FirstName: "cached"}})
			}
		}, nil
	}}}, rpctest.RegisterProfiles(func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		t.Error("the method ran, want the cached response")
		return nil, nil
	}))
	client := rpctest.InProcess(t, rpctest.BFFToUsers, server)
	if res, err := rpctest.Get(t.Context(), client); err != nil || res.GetProfile().GetFirstName() != "cached" {
		t.Errorf("got %v, %v, want the cached response", res, err)
	}
	_, err := usersv1.NewProfileServiceClient(client).GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: "x"})
	rpctest.WantError(t, "a bad request", err, connect.CodeInvalidArgument, fault.ReasonInvalid)
}

func TestAMethodHasItsOwnTimeLimit(t *testing.T) {
	t.Parallel()
	left := func(limit *policyv1.Method, server rpc.ServerConfig) time.Duration {
		var left time.Duration
		spec := rpctest.Method(t, limit, connect.StreamTypeUnary)
		built := rpctest.NewServer(t, "users", server, func(server *connect.Server) {
			server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
				deadline, ok := ctx.Deadline()
				if !ok {
					t.Error("the call has no deadline")
				}
				left = time.Until(deadline)
				return errNotYours
			}})
		})
		// Over HTTP, where a caller's own time isn't cut short by ours.
		request := rpctest.PostRequest(t, rpctest.Serve(t, built.Mux(rpctest.IsReady)), jsonType, `"x"`)
		request.URL.Path = spec.Procedure
		response := rpctest.Send(t, request)
		if response.Status != 403 {
			t.Errorf("got %d %s, want the method's own answer", response.Status, response.Body)
		}
		return left
	}
	limited := rpctest.ForServices("bff")
	limited.TimeLimit = rpctest.Seconds(20)
	if got := left(limited, rpc.ServerConfig{}); got <= rpc.DefaultLimit || got > 20*time.Second {
		t.Errorf("a method with 20 s: had %s left, want its own limit rather than the default", got)
	}
	if got := left(rpctest.ForServices("bff"), rpc.ServerConfig{}); got > rpc.DefaultLimit || got <= 0 {
		t.Errorf("a method without: had %s left, want the default of %s", got, rpc.DefaultLimit)
	}
	if got := left(rpctest.ForServices("bff"), rpc.ServerConfig{Limit: 15 * time.Second}); got <= rpc.DefaultLimit || got > 15*time.Second {
		t.Errorf("a method without, on a server with 15 s: had %s left, want the server's", got)
	}
	tightened := rpc.ServerConfig{Policy: "test.v1.TestService/Call limit=9s"}
	if got := left(limited, tightened); got > 9*time.Second || got <= 0 {
		t.Errorf("a method with 20 s, tightened to 9 s: had %s left", got)
	}
}
