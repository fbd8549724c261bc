package bff

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/limit"
)

// fill takes all slots of a method's class until the test is over.
func (h *house) fill(t testing.TB, procedure string) {
	t.Helper()
	queue := h.gateway.shedder.methods[procedure].class.Load().queue
	for queue.State().Running < queue.State().Slots {
		_, err := queue.Enter(t.Context(), limit.Call{Flow: limit.Flow{Subject: "somebody else"}})
		wantNoError(t, "Enter", err)
	}
}

const getMe = bffv1.AccountServiceGetMeProcedure

func TestWhatStandsInAQueueIsRefusedAndSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	h := open(t, world{served: true, throttled: true})
	h.fill(t, getMe)
	before := h.called("")
	for name, options := range map[string][]connecthttp.Option{
		"Connect JSON": {connecthttp.WithProtoJSON()}, "Connect proto": nil,
		"gRPC": {connecthttp.WithGRPC()}, "gRPC-Web": {connecthttp.WithGRPCWeb()},
	} {
		client := bffv1.NewAccountServiceClient(h.client(options...))
		for range 2 { // from the queue, and where it is overloaded, from prepared bytes
			_, got := ask(t, client.GetMe, &bffv1.GetMeRequest{}, h.token(alice))
			if strings.HasPrefix(name, "Connect") {
				wantUnavailable(t, name, got, fault.ReasonOverloaded)
				if got.header.Get("X-Request-Id") == "" {
					t.Errorf("%s: a refusal has no request id", name)
				}
			}
			if connect.CodeOf(got.err) != connect.CodeUnavailable || fault.Reason(got.err) != fault.ReasonOverloaded {
				t.Errorf("%s: %v (%s), want OVERLOADED", name, got.err, fault.Reason(got.err))
			}
			if after, ok := fault.RetryDelay(got.err); !ok || after <= 0 {
				t.Errorf("%s: it doesn't say when to come back", name)
			}
		}
	}
	if h.called("") != before {
		t.Errorf("%d calls reached a service", h.called("")-before)
	}
	// A line for each would be more load still.
	if log := h.log.String(); strings.Count(log, "shedding load") != 1 || strings.Contains(log, "OVERLOADED") {
		t.Errorf("the log has %d lines about it, want one:\n%s", strings.Count(log, "shedding load"), log)
	}
	for _, path := range []string{"/livez", "/readyz", "/.well-known/jwks.json", "/docs"} {
		if response, body := h.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s, want 200 whatever the load", path, response.StatusCode, body)
		}
	}
	if response, body := h.send(t, "/grpc.health.v1.Health/Check", `{}`); response.StatusCode != http.StatusOK || !strings.Contains(body, "SERVING") {
		t.Errorf("health: %d %s, want 200 whatever the load", response.StatusCode, body)
	}
	// What changes something has slots of its own.
	_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice))
	wantNoError(t, "UpdateMe", got.err)
}

func TestARefusalOfTheQueueGivesTheRateBack(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true, policy: "bff.v1.AccountService/GetMe rate=2/h burst=2"})
	h.fill(t, getMe)
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			_, got := h.getMe(t, h.token(alice))
			if reason := fault.Reason(got.err); reason != fault.ReasonOverloaded && reason != "RATE_LIMITED" {
				t.Errorf("GetMe: %v", got.err)
			}
		})
	}
	group.Wait()
	_, got := h.getMe(t, h.token(alice))
	wantUnavailable(t, "after six refusals of a rate of two an hour", got, fault.ReasonOverloaded)
}

func TestACallThatAServiceDoesNotAnswerGivesTheRateBack(t *testing.T) {
	t.Parallel()
	h := open(t, world{served: true, throttled: true, policy: "bff.v1.AuthService/Refresh rate=2/h burst=2"})
	refuse := atomic.Bool{}
	refuse.Store(true)
	answer(h.backend, authv1.SessionServiceRefreshProcedure, func(context.Context, *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		if refuse.Load() {
			return nil, fault.Unavailable()
		}
		return &authv1.RefreshResponse{Tokens: someTokens()}, nil
	})
	refresh := func() reply {
		_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_" + strings.Repeat("a", 60)}, "")
		return got
	}
	for range 5 {
		got := refresh()
		if connect.CodeOf(got.err) != connect.CodeUnavailable {
			t.Fatalf("while auth is unreachable: %v, want unavailable", got.err)
		}
		if left := got.header.Get("RateLimit"); !strings.Contains(left, ";r=2;") {
			t.Errorf("it says that %s is left, want all of it", left)
		}
	}
	refuse.Store(false)
	for range 2 {
		wantNoError(t, "within the rate", refresh().err)
	}
	if got := refresh(); fault.Reason(got.err) != "RATE_LIMITED" {
		t.Errorf("beyond the rate: %v, want RATE_LIMITED", got.err)
	}
}

func TestMethodsAreInClassesByWhatTheyDoAndTheServicesThatTheyNeed(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	_, got := h.getMe(t, h.token(alice))
	wantNoError(t, "GetMe", got.err)
	_, got = ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice))
	wantNoError(t, "UpdateMe", got.err)
	_, got = ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, h.token(alice))
	wantNoError(t, "ListSessions", got.err)
	want := map[string]string{"GetMe": "reads:auth+users", "ListSessions": "reads:auth", "UpdateMe": "writes:auth+users", "Logout": "writes"}
	for _, m := range h.gateway.shedder.methods {
		if class, ok := want[string(m.plan.Descriptor.Name())]; ok && m.class.Load().name != class {
			t.Errorf("%s is in the class %s, want %s", m.plan.Procedure, m.class.Load().name, class)
		}
	}
}

func TestEveryMethodThatTakesAPasswordIsInAClassOfItsOwn(t *testing.T) {
	t.Parallel()
	got := map[string][]string{}
	for _, plan := range open(t, world{}).gateway.rpc.Methods() {
		got[kindOf(plan)] = append(got[kindOf(plan)], string(plan.Descriptor.Name()))
	}
	want := []string{"ChangePassword", "CreateUser", "Login", "Reauthenticate", "Register", "ResetPassword", "VerifyEmail"}
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

func TestWhatIsLessCriticalIsRefusedFirst(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	synctest.Test(t, func(t *testing.T) {
		call := h.queuedMethod(t, "GetMe", func() { time.Sleep(10 * time.Millisecond) })
		list := h.queuedMethod(t, "ListUsers", func() { time.Sleep(10 * time.Millisecond) })
		var refused, shed, listed atomic.Int64
		var group sync.WaitGroup
		slots := h.gateway.shedder.methods[getMe].class.Load().queue.State().Slots
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
			t.Errorf("%d of GetMe refused and %d of ListUsers (%d answered), want none and some", refused.Load(), shed.Load(), listed.Load())
		}
	})
}

// ListMyAuditEvents needs auth alone, GetMe auth and users: they are in two classes.
func TestWhatIsLessCriticalGivesWayToOtherClassesOfTheSameService(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	synctest.Test(t, func(t *testing.T) {
		call := h.queuedMethod(t, "GetMe", func() { time.Sleep(10 * time.Millisecond) })
		list := h.queuedMethod(t, "ListMyAuditEvents", func() {})
		me := h.gateway.shedder.methods[getMe]
		me.needsService("auth")
		me.needsService("users")
		h.gateway.shedder.methods[bffv1.AccountServiceListMyAuditEventsProcedure].needsService("auth")
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		wantNoError(t, "ListMyAuditEvents without load", list(as(t.Context(), "somebody"), nil))
		for i := range 60 * me.class.Load().queue.State().Slots {
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
		wantNoError(t, "ListMyAuditEvents after it", list(as(t.Context(), "somebody"), nil))
	})
}

// To have a password hashed takes long, and auth has it queue: that says nothing
// of how GetMe fares.
func TestAFloodOfSignInsTakesNoSlotFromAnybodyElse(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	synctest.Test(t, func(t *testing.T) {
		login := h.queuedMethod(t, "Login", func() { time.Sleep(400 * time.Millisecond) })
		getMe := h.queuedMethod(t, "GetMe", func() { time.Sleep(5 * time.Millisecond) })
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
						t.Errorf("GetMe beside the flood: %v", err)
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
		}
		group.Wait()
		if logins.Load() < 5*passwordSlots || refused.Load() == 0 {
			t.Errorf("%d logins were answered and %d refused, want %d at a time and the rest refused", logins.Load(), refused.Load(), passwordSlots)
		}
	})
}

// as is a context in which somebody is signed in.
func as(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, principalKey{}, &principal{userID: user})
}

// queuedMethod is a method's queue around does, which stands for the method. It
// sends an answer over the stream if there is one.
func (h *house) queuedMethod(t testing.TB, name string, does func()) func(context.Context, connect.ServerStream) error {
	t.Helper()
	for _, plan := range h.gateway.rpc.Methods() {
		if string(plan.Descriptor.Name()) != name {
			continue
		}
		around, err := h.gateway.shedder.wait(plan)
		wantNoError(t, "queued", err)
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

func TestAPanicGivesItsSlotBack(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	call := h.queuedMethod(t, "GetMe", func() { panic("on purpose") })
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			_ = call(t.Context(), nil)
		}()
	}
	if state := h.gateway.shedder.methods[getMe].class.Load().queue.State(); state.Running != 0 {
		t.Errorf("after panics %+v, want nothing running", state)
	}
}

// slowReader is a caller who doesn't take the answer.
type slowReader struct {
	connect.ServerStream
	sending chan struct{}
	taken   chan struct{}
}

func (s slowReader) Send(any) error {
	close(s.sending)
	<-s.taken
	return nil
}

func TestASlowReaderOfAnAnswerHoldsNoSlot(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	call := h.queuedMethod(t, "GetMe", func() {})
	reader := slowReader{sending: make(chan struct{}), taken: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- call(t.Context(), reader) }()
	<-reader.sending
	if state := h.gateway.shedder.methods[getMe].class.Load().queue.State(); state.Running != 0 {
		t.Errorf("while the answer is being taken %+v, want nothing running", state)
	}
	close(reader.taken)
	wantNoError(t, "GetMe", <-done)
}
