package bff

import (
	"context"
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

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/rpc"
)

// fill takes all the room that a class has.
func (h *house) fill(t testing.TB, class string) {
	t.Helper()
	room := h.gateway.room.classes[class]
	for room.State().Running < room.State().Limit {
		wantNoError(t, "Enter", room.Enter(t.Context(), true))
	}
}

func TestWhatThereIsNoRoomForIsRefusedAndSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	h := open(t, world{served: true, throttled: true})
	h.fill(t, reads)
	before := h.called("")
	for name, options := range map[string][]connecthttp.Option{
		"Connect JSON": {connecthttp.WithProtoJSON()}, "Connect proto": nil,
		"gRPC": {connecthttp.WithGRPC()}, "gRPC-Web": {connecthttp.WithGRPCWeb()},
	} {
		client := bffv1.NewAccountServiceClient(h.client(options...))
		_, got := ask(t, client.GetMe, &bffv1.GetMeRequest{}, h.token(alice))
		if strings.HasPrefix(name, "Connect") {
			wantUnavailable(t, name, got, rpc.ReasonOverloaded)
		}
		if connect.CodeOf(got.err) != connect.CodeUnavailable || rpc.Reason(got.err) != rpc.ReasonOverloaded {
			t.Errorf("%s: %v (%s), want OVERLOADED", name, got.err, rpc.Reason(got.err))
		}
		if after, ok := rpc.RetryDelay(got.err); !ok || after <= 0 {
			t.Errorf("%s: it doesn't say when to come back", name)
		}
	}
	for range 20 {
		h.getMe(t, h.token(alice))
	}
	if h.called("") != before {
		t.Errorf("%d calls reached a service", h.called("")-before)
	}
	// A line for each would be more load still.
	if log := h.log.String(); strings.Count(log, "calls are refused") != 1 || strings.Contains(log, "OVERLOADED") {
		t.Errorf("the log has %d lines about it, want one:\n%s", strings.Count(log, "calls are refused"), log)
	}
	for _, path := range []string{"/livez", "/readyz", "/.well-known/jwks.json", "/docs"} {
		if response, body := h.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s, want 200 whatever the load", path, response.StatusCode, body)
		}
	}
	if response, body := h.send(t, "/grpc.health.v1.Health/Check", `{}`); response.StatusCode != http.StatusOK || !strings.Contains(body, "SERVING") {
		t.Errorf("health: %d %s, want 200 whatever the load", response.StatusCode, body)
	}
	// What changes something has a limit of its own.
	_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice))
	wantNoError(t, "UpdateMe", got.err)
}

func TestWhatIsLessCriticalIsRefusedFirst(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	room := h.gateway.room.classes[reads]
	for range room.State().Limit - 1 {
		wantNoError(t, "Enter", room.Enter(t.Context(), true))
	}
	for range 3 { // the one place is there for GetMe
		_, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{}, h.token(alice, "admin"))
		wantUnavailable(t, "ListUsers", got, rpc.ReasonOverloaded)
		_, got = h.getMe(t, h.token(alice))
		wantNoError(t, "GetMe", got.err)
	}
}

// To have a password hashed takes long, and auth has it queue: that says nothing
// of how GetMe fares, and must not lower its limit.
func TestAFloodOfSignInsLowersNobodyElsesLimit(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	synctest.Test(t, func(t *testing.T) {
		login := h.shedding(t, "Login", func() error { time.Sleep(400 * time.Millisecond); return nil })
		getMe := h.shedding(t, "GetMe", func() error { time.Sleep(5 * time.Millisecond); return nil })
		before := h.gateway.room.classes[reads].State()
		var refused, logins atomic.Int64
		var group sync.WaitGroup
		for range 100 { // 2000 a second for five seconds: 800 at a time, were there room
			for range 100 {
				group.Go(func() {
					switch err := login(t.Context()); {
					case err == nil:
						logins.Add(1)
					case rpc.Reason(err) == rpc.ReasonOverloaded:
						refused.Add(1)
					default:
						t.Errorf("Login: %v", err)
					}
				})
			}
			for range 20 {
				group.Go(func() {
					if err := getMe(t.Context()); err != nil {
						t.Errorf("GetMe beside the flood: %v", err)
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
		}
		group.Wait()
		if after := h.gateway.room.classes[reads].State(); after.Limit < before.Limit {
			t.Errorf("the limit of reads fell from %d to %d", before.Limit, after.Limit)
		}
		if logins.Load() < 5*passwordCalls || refused.Load() == 0 {
			t.Errorf("%d logins were answered and %d refused, want %d at a time and the rest refused", logins.Load(), refused.Load(), passwordCalls)
		}
	})
}

func TestEveryMethodThatTakesAPasswordIsInAClassOfItsOwn(t *testing.T) {
	t.Parallel()
	got := map[string][]string{}
	for _, plan := range open(t, world{}).gateway.rpc.Plans() {
		got[classOf(plan)] = append(got[classOf(plan)], string(plan.Method.Name()))
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

// shedding is a method's step around does, which stands for the method.
func (h *house) shedding(t testing.TB, name string, does func() error) func(context.Context) error {
	t.Helper()
	for _, plan := range h.gateway.rpc.Plans() {
		if string(plan.Method.Name()) != name {
			continue
		}
		around, err := h.gateway.shed(plan)
		wantNoError(t, "shed", err)
		inside, err := h.gateway.works(plan)
		wantNoError(t, "works", err)
		call := around(inside(func(context.Context, connect.Spec, connect.ServerStream) error { return does() }))
		return func(ctx context.Context) error { return call(ctx, connect.Spec{}, nil) }
	}
	t.Fatalf("there is no %s", name)
	return nil
}

func TestAPanicGivesItsRoomBack(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	call := h.shedding(t, "GetMe", func() error { panic("on purpose") })
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			_ = call(t.Context())
		}()
	}
	if state := h.gateway.room.classes[reads].State(); state.Running != 0 {
		t.Errorf("after panics %+v, want nothing running", state)
	}
}

// What a cache answers, or a check refuses, is over in no time: that must not
// make what a service answers look slow.
func TestWhatIsAnsweredWithoutTheMethodSaysNothingOfHowLongItTakes(t *testing.T) {
	t.Parallel()
	h := open(t, world{throttled: true})
	plans := h.gateway.rpc.Plans()
	plan := plans[slices.IndexFunc(plans, func(p *rpc.Plan) bool { return p.Method.Name() == "GetMe" })]
	around, err := h.gateway.shed(plan)
	wantNoError(t, "shed", err)
	inside, err := h.gateway.works(plan)
	wantNoError(t, "works", err)
	synctest.Test(t, func(t *testing.T) {
		method := inside(func(context.Context, connect.Spec, connect.ServerStream) error {
			time.Sleep(20 * time.Millisecond)
			return nil
		})
		warm := true
		call := around(func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if warm {
				time.Sleep(10 * time.Microsecond)
				return nil
			}
			return method(ctx, spec, stream)
		})
		for range 5000 {
			wantNoError(t, "from the cache", call(t.Context(), connect.Spec{}, nil))
			time.Sleep(time.Millisecond)
		}
		warm = false
		var group sync.WaitGroup
		for range 500 { // ten seconds, 20 at a time
			for range 20 {
				group.Go(func() {
					if err := call(t.Context(), connect.Spec{}, nil); err != nil {
						t.Errorf("the method: %v", err)
					}
				})
			}
			time.Sleep(20 * time.Millisecond)
		}
		group.Wait()
		if state := h.gateway.room.classes[reads].State(); state.Limit < 64 {
			t.Errorf("the limit fell to %d", state.Limit)
		}
	})
}
