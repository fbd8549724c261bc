package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// watcher reads one stream, and keeps its events.
type watcher struct {
	events chan *bffv1.WatchMeResponse
	err    error // after events is closed
	stop   context.CancelFunc
	cursor string
}

func watch(t testing.TB, client harness.Client, cursor string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{events: make(chan *bffv1.WatchMeResponse, 1024), stop: cancel, cursor: cursor}
	t.Cleanup(cancel)
	stream, err := client.Account.WatchMe(ctx, &bffv1.WatchMeRequest{Cursor: cursor})
	go func() {
		defer close(w.events)
		for err == nil {
			var event *bffv1.WatchMeResponse
			if event, err = stream.Receive(); err == nil {
				w.events <- event
			}
		}
		w.err = err
	}()
	return w
}

// next returns the next event that is what the caller waits for.
func (w *watcher) next(t testing.TB, what string, is func(*bffv1.WatchMeResponse) bool) *bffv1.WatchMeResponse {
	t.Helper()
	limit := time.After(40 * time.Second)
	for {
		select {
		case event, ok := <-w.events:
			if !ok {
				t.Fatalf("the stream ended before %s: %v", what, w.err)
			}
			w.cursor = event.GetCursor()
			if is(event) {
				return event
			}
		case <-limit:
			t.Fatalf("no event with %s", what)
		}
	}
}

func (w *watcher) part(t testing.TB, part string) {
	t.Helper()
	w.next(t, "a change of "+part, func(event *bffv1.WatchMeResponse) bool {
		return !event.GetComplete() && slices.Contains(event.GetChanged().GetParts(), part)
	})
}

// ended reads the stream to its end, whose event and error must agree.
func (w *watcher) ended(t testing.TB) (reason string, err error) {
	t.Helper()
	event := w.next(t, "the end", func(event *bffv1.WatchMeResponse) bool { return event.GetEnded() != nil })
	for range w.events {
		t.Error("an event came after the end")
	}
	if got := fault.Reason(w.err); got != event.GetEnded().GetReason() {
		t.Errorf("the last event says %q, and the error is %v", event.GetEnded().GetReason(), w.err)
	}
	return event.GetEnded().GetReason(), w.err
}

var protocols = map[string][]connecthttp.Option{
	"connect": nil, "connect json": {connecthttp.WithProtoJSON()}, "grpc": {connecthttp.WithGRPC()}, "grpc-web": {connecthttp.WithGRPCWeb()},
}

func TestAPersonSeesChangesOfTheirOwnDataInEveryProtocol(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			w := watch(t, s.Client(ada.Access, options...), "")
			first := w.next(t, "the beginning", func(*bffv1.WatchMeResponse) bool { return true })
			if !first.GetComplete() || len(first.GetChanged().GetParts()) != 4 {
				t.Errorf("the first event is %v, want a complete one with all parts", first)
			}
			if _, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada " + name}}); err != nil {
				t.Fatal(err)
			}
			w.part(t, "profile")
			s.SignIn(t, ada.Email, harness.Password)
			w.part(t, "sessions")
		})
	}
}

func TestAStreamEndsWithItsSessionRoleAndAccount(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	gateways := []*harness.System{s, s.Copy(t, harness.RoleBff), s.Copy(t, harness.RoleBff)}
	admin := s.Admin(t).Client()
	for name, one := range map[string]struct {
		end    func(*harness.Person) error
		reason string
	}{
		"revoked": {func(p *harness.Person) error {
			_, err := admin.Users.RevokeUserSessions(t.Context(), &bffv1.RevokeUserSessionsRequest{UserId: p.ID})
			return err
		}, "SESSION_ENDED"},
		"role": {func(p *harness.Person) error {
			_, err := admin.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: p.ID, Roles: []string{"editor"}})
			return err
		}, "TOKEN_STALE"},
		"disabled": {func(p *harness.Person) error {
			_, err := admin.Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: p.ID})
			return err
		}, "SESSION_ENDED"},
		"deleted": {func(p *harness.Person) error {
			_, err := admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: p.ID})
			return err
		}, "TOKEN_STALE"},
	} {
		p := s.SignUp(t, name+"@example.com")
		var watchers []*watcher
		for _, gateway := range gateways {
			w := watch(t, gateway.Client(p.Access), "")
			w.next(t, "the beginning", (*bffv1.WatchMeResponse).GetComplete)
			watchers = append(watchers, w)
		}
		begun := time.Now()
		if err := one.end(p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, w := range watchers {
			if reason, err := w.ended(t); reason != one.reason || connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s: the stream ended with %v, want %s", name, err, one.reason)
			}
		}
		t.Logf("%s: ended after %v", name, time.Since(begun))
	}
}

// untilTheyResume waits until gateways resume a cursor, and returns it: a gateway knows
// only what happened while it ran.
func untilTheyResume(t *testing.T, gateways []*harness.System, who *harness.Person) (cursor string) {
	t.Helper()
	for _, gateway := range gateways {
		harness.Eventually(t, 30*time.Second, "the gateway resumes", func() error {
			w := watch(t, gateway.Client(who.Access), cursor)
			defer w.stop()
			first := w.next(t, "an event", func(*bffv1.WatchMeResponse) bool { return true })
			cursor = first.GetCursor()
			if first.GetComplete() {
				time.Sleep(500 * time.Millisecond) // within the method's rate
				return errors.New("the first event is complete")
			}
			return nil
		})
	}
	return cursor
}

func TestAStreamResumesAtAnotherGatewayWithoutAGap(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	gateways := []*harness.System{s, s.Copy(t, harness.RoleBff)}
	ada := s.SignUp(t, "ada@example.com")
	cursor := untilTheyResume(t, gateways, ada)
	for i := range 6 {
		if _, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: fmt.Sprint("Ada", i)}}); err != nil {
			t.Fatal(err)
		}
		w := watch(t, gateways[i%2].Client(ada.Access), cursor)
		w.part(t, "profile")
		cursor = w.cursor
		w.stop()
	}
	w := watch(t, s.Client(ada.Access), cursor[:len(cursor)-1]+"x")
	if first := w.next(t, "an event", func(*bffv1.WatchMeResponse) bool { return true }); !first.GetComplete() {
		t.Errorf("a forged cursor begins with %v, want a complete event", first)
	}
}
