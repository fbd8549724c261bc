package shed

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

const getMe = bffv1.AccountServiceGetMeProcedure

// methods are those of the gateway.
func methods(t testing.TB) []*policy.Method {
	t.Helper()
	server := connect.NewServer()
	bffv1.RegisterAuthServiceHandler(server, bffv1.UnimplementedAuthServiceHandler{})
	bffv1.RegisterAccountServiceHandler(server, bffv1.UnimplementedAccountServiceHandler{})
	bffv1.RegisterUserServiceHandler(server, bffv1.UnimplementedUserServiceHandler{})
	compiled, err := policy.Compile(slices.Collect(server.Specs()), rpc.DefaultLimit, "")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

type userKey struct{}

// as is a context in which somebody is signed in.
func as(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

type testShedder struct{ *Shedder }

func newTestShedder(t testing.TB) testShedder {
	t.Helper()
	s := New(Config{
		Flow: func(ctx context.Context) limit.Flow {
			user, _ := ctx.Value(userKey{}).(string)
			return limit.Flow{Subject: user}
		},
		RequestFlow: func(*http.Request) limit.Flow { return limit.Flow{} },
		MayBeCached: func(*policy.Method) func() bool { return func() bool { return false } },
		Logger:      slog.New(slog.DiscardHandler),
	})
	return testShedder{s}
}

// queued is a method's queue around does, which stands for the method. It sends a
// response over the stream if there is one.
func (s testShedder) queued(t testing.TB, name string, does func()) func(context.Context, connect.ServerStream) error {
	t.Helper()
	for _, plan := range methods(t) {
		if string(plan.Descriptor.Name()) != name {
			continue
		}
		around, err := s.Wait(plan)
		if err != nil {
			t.Fatal(err)
		}
		call := around(func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
			does()
			if sent, ok := stream.(slotStream); ok && sent.ServerStream != nil {
				return stream.Send(nil)
			}
			return nil
		})
		return func(ctx context.Context, stream connect.ServerStream) error {
			return call(ctx, connect.Spec{}, stream)
		}
	}
	t.Fatalf("there is no %s", name)
	return nil
}

func TestEveryMethodThatTakesAPasswordIsInAClassOfItsOwn(t *testing.T) {
	t.Parallel()
	got := map[string][]string{}
	for _, plan := range methods(t) {
		got[kindOf(plan)] = append(got[kindOf(plan)], string(plan.Descriptor.Name()))
	}
	want := []string{"ChangePassword", "CompleteLogin", "CreateUser", "Login", "Reauthenticate", "Register", "ResetPassword", "VerifyEmail"}
	if slices.Sort(got[passwords]); !slices.Equal(got[passwords], want) {
		t.Errorf("those that take a password are %v, want %v", got[passwords], want)
	}
	for _, name := range []string{"GetMe", "ListUsers", "ExportMe"} {
		if !slices.Contains(got[reads], name) {
			t.Errorf("%s isn't among those that read: %v", name, got[reads])
		}
	}
	for _, name := range []string{"Refresh", "UpdateMe", "DeleteUser"} {
		if !slices.Contains(got[writes], name) {
			t.Errorf("%s isn't among those that write: %v", name, got[writes])
		}
	}
}

func TestSheddableMethodsAreRefusedFirst(t *testing.T) {
	t.Parallel()
	s := newTestShedder(t)
	synctest.Test(t, func(t *testing.T) {
		call := s.queued(t, "GetMe", func() { time.Sleep(10 * time.Millisecond) })
		list := s.queued(t, "ListUsers", func() { time.Sleep(10 * time.Millisecond) })
		var refused, shed, listed atomic.Int64
		var group sync.WaitGroup
		slots := s.methods[getMe].class.Load().Queue.State().Slots
		for i := range slots { // as many as there are slots: nobody waits
			group.Go(func() {
				for range 300 {
					if call(as(t.Context(), fmt.Sprint(i)), nil) != nil {
						refused.Add(1)
					}
				}
			})
		}
		for i := range 100 {
			group.Go(func() {
				for range 5 {
					if list(as(t.Context(), fmt.Sprint("admin", i)), nil) != nil {
						shed.Add(1)
					} else {
						listed.Add(1)
					}
				}
			})
		}
		group.Wait()
		if refused.Load() != 0 || shed.Load() == 0 {
			t.Errorf("%d of GetMe refused and %d of ListUsers (%d succeeded), want none and some", refused.Load(), shed.Load(), listed.Load())
		}
	})
}

// ListMyAuditEvents needs auth alone, GetMe auth and users: they are in two classes.
func TestSheddableMethodsYieldToOtherClassesOfTheSameService(t *testing.T) {
	t.Parallel()
	s := newTestShedder(t)
	synctest.Test(t, func(t *testing.T) {
		call := s.queued(t, "GetMe", func() { time.Sleep(10 * time.Millisecond) })
		list := s.queued(t, "ListMyAuditEvents", func() {})
		me := s.methods[getMe]
		me.needsService("auth")
		me.needsService("users")
		s.methods[bffv1.AccountServiceListMyAuditEventsProcedure].needsService("auth")
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		if err := list(as(t.Context(), "somebody"), nil); err != nil {
			t.Errorf("ListMyAuditEvents without load: %v", err)
		}
		for i := range 60 * me.class.Load().Queue.State().Slots {
			group.Go(func() {
				for ctx.Err() == nil {
					_ = call(as(ctx, fmt.Sprint(i)), nil)
				}
			})
		}
		time.Sleep(2 * time.Second)
		if err := list(as(t.Context(), "somebody"), nil); fault.Reason(err) != fault.ReasonOverloaded {
			t.Errorf("ListMyAuditEvents while GetMe is refused: %v, want OVERLOADED", err)
		}
		stop()
		group.Wait()
		if err := list(as(t.Context(), "somebody"), nil); err != nil {
			t.Errorf("ListMyAuditEvents after it: %v", err)
		}
	})
}

// To have a password hashed takes long, and auth has it queue: that says nothing
// of how GetMe fares.
func TestAFloodOfSignInsTakesNoSlotsOfOtherClasses(t *testing.T) {
	t.Parallel()
	s := newTestShedder(t)
	synctest.Test(t, func(t *testing.T) {
		login := s.queued(t, "Login", func() { time.Sleep(400 * time.Millisecond) })
		getMe := s.queued(t, "GetMe", func() { time.Sleep(5 * time.Millisecond) })
		var refused, logins atomic.Int64
		var group sync.WaitGroup
		for i := range 100 { // 4000 a second for five seconds: 1600 at a time
			for range 200 {
				group.Go(func() {
					switch err := login(t.Context(), nil); {
					case err == nil:
						logins.Add(1)
					case fault.Reason(err) == fault.ReasonOverloaded:
						refused.Add(1)
					default:
						t.Errorf("Login: %v", err)
					}
				})
			}
			for range 20 {
				group.Go(func() {
					if err := getMe(as(t.Context(), fmt.Sprint(i)), nil); err != nil {
						t.Errorf("GetMe during the flood: %v", err)
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
		}
		group.Wait()
		if logins.Load() < 5*passwordSlots || refused.Load() == 0 {
			t.Errorf("%d logins succeeded and %d were refused, want %d at a time and the rest refused", logins.Load(), refused.Load(), passwordSlots)
		}
	})
}

func TestAPanicReleasesItsSlot(t *testing.T) {
	t.Parallel()
	s := newTestShedder(t)
	call := s.queued(t, "GetMe", func() { panic("on purpose") })
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			_ = call(t.Context(), nil)
		}()
	}
	if state := s.methods[getMe].class.Load().Queue.State(); state.Running != 0 {
		t.Errorf("after panics %+v, want nothing running", state)
	}
}

// slowReader is a stream whose client does not read the response.
type slowReader struct {
	connect.ServerStream
	sending  chan struct{}
	received chan struct{}
}

func (s slowReader) Send(any) error {
	close(s.sending)
	<-s.received
	return nil
}

func TestASlowClientHoldsNoSlot(t *testing.T) {
	t.Parallel()
	s := newTestShedder(t)
	call := s.queued(t, "GetMe", func() {})
	reader := slowReader{sending: make(chan struct{}), received: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- call(t.Context(), reader) }()
	<-reader.sending
	if state := s.methods[getMe].class.Load().Queue.State(); state.Running != 0 {
		t.Errorf("while the response is being sent %+v, want nothing running", state)
	}
	close(reader.received)
	if err := <-done; err != nil {
		t.Errorf("GetMe: %v", err)
	}
}
