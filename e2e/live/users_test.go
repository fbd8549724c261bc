package live

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

func watchUsers(t testing.TB, client harness.Client, cursor string) *watcherOf[*bffv1.WatchUsersResponse] {
	t.Helper()
	return follow(t, cursor, func(ctx context.Context) (receiver[*bffv1.WatchUsersResponse], error) {
		return client.Users.WatchUsers(ctx, &bffv1.WatchUsersRequest{Cursor: cursor})
	})
}

func TestAnAdministratorSeesWhichUsersChangeInEveryProtocol(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	admin := s.Admin(t)
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			w := watchUsers(t, s.Client(admin.Access, options...), "")
			first := w.next(t, "the beginning", func(*bffv1.WatchUsersResponse) bool { return true })
			if !first.GetComplete() || len(namesOf(first)) > 0 {
				t.Errorf("the first event is %v, want a complete one without names", first)
			}
			person := s.SignUp(t, strings.ReplaceAll(name, " ", "-")+"@example.com")
			w.part(t, person.ID)
			if _, err := person.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Augusta"}}); err != nil {
				t.Fatal(err)
			}
			w.part(t, person.ID)
			if _, err := admin.Client().Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: person.ID}); err != nil {
				t.Fatal(err)
			}
			w.part(t, person.ID)
		})
	}
	_, next := subscribeTo(t, s, "/api/v1/users:watch", admin.Access, "")
	if first, _ := next(); !first.data.Complete || first.id == "" || first.id != first.data.Cursor {
		t.Fatalf("the first event at the REST path is %+v, want a complete one with its cursor", first)
	}
	ada := s.SignUp(t, "ada@example.com")
	for {
		one, ok := next()
		if !ok {
			t.Fatal("the stream at the REST path ended before the change")
		}
		if one.data.Changed != nil && slices.Contains(one.data.Changed.UserIds, ada.ID) {
			break
		}
	}
}

func TestOnlyAdministratorsWatchUsers(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	for name, options := range protocols {
		w := watchUsers(t, s.Client(ada.Access, options...), "")
		for event := range w.events {
			t.Errorf("%s: somebody without the role has the event %v", name, event)
		}
		if connect.CodeOf(w.err) != connect.CodePermissionDenied {
			t.Errorf("%s: got %v, want permission_denied", name, w.err)
		}
	}
	for token, want := range map[string]int{"": http.StatusUnauthorized, ada.Access: http.StatusForbidden} {
		response, _ := subscribeTo(t, s, "/api/v1/users:watch", token, "")
		if body, _ := io.ReadAll(response.Body); response.StatusCode != want {
			t.Errorf("at the REST path: %s %s, want %d", response.Status, body, want)
		}
	}
}

func TestAStreamOfUsersEndsWithTheSessionAndTheRole(t *testing.T) {
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
	} {
		p := s.SignUp(t, name+"@example.com")
		if _, err := admin.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: p.ID, Roles: []string{"admin"}}); err != nil {
			t.Fatal(err)
		}
		if err := p.Renew(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		var watchers []*watcherOf[*bffv1.WatchUsersResponse]
		for _, gateway := range gateways {
			w := watchUsers(t, gateway.Client(p.Access), "")
			w.next(t, "the beginning", (*bffv1.WatchUsersResponse).GetComplete)
			watchers = append(watchers, w)
		}
		if err := one.end(p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, w := range watchers {
			if reason, err := w.ended(t); reason != one.reason || connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s: the stream ended with %v, want %s", name, err, one.reason)
			}
		}
		if name != "role" {
			continue
		}
		if err := p.Renew(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		w := watchUsers(t, s.Client(p.Access), watchers[0].cursor)
		for event := range w.events {
			t.Errorf("after the loss of the role a stream has the event %v", event)
		}
		if connect.CodeOf(w.err) != connect.CodePermissionDenied {
			t.Errorf("after the loss of the role a stream ends with %v, want permission_denied", w.err)
		}
	}
}

func TestAStreamOfUsersResumesAtAnotherGatewayWithoutAGap(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	gateways := []*harness.System{s, s.Copy(t, harness.RoleBff)}
	admin := s.Admin(t)
	cursor := untilTheyResume(t, gateways, admin)
	for i := range 6 {
		person := s.SignUp(t, fmt.Sprintf("person%d@example.com", i))
		w := watchUsers(t, gateways[i%2].Client(admin.Access), cursor)
		first := w.next(t, "an event", func(*bffv1.WatchUsersResponse) bool { return true })
		if first.GetComplete() {
			t.Errorf("the stream resumes with %v, want no complete event", first)
		}
		if !slices.Contains(namesOf(first), person.ID) {
			w.part(t, person.ID)
		}
		cursor = w.cursor
		w.stop()
	}
}

func TestAStreamOfUsersIsCompleteInsteadOfNamingMoreThanAHundred(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	admin := s.Admin(t)
	cursor := untilTheyResume(t, []*harness.System{s}, admin)
	w := watchUsers(t, admin.Client(), cursor)
	w.next(t, "the beginning", func(*bffv1.WatchUsersResponse) bool { return true })
	for changes, complete := range map[int]bool{80: false, 200: true} {
		// Each account costs a hash of its password, so that the API is too slow for this.
		if _, err := s.Owner.Exec(t.Context(), "INSERT INTO users.changes (tag) SELECT 'profile/' || gen_random_uuid() FROM generate_series(1, $1::int)", changes); err != nil {
			t.Fatal(err)
		}
		event := w.next(t, "the changes", func(event *bffv1.WatchUsersResponse) bool { return event.GetChanged() != nil })
		if names := len(namesOf(event)); event.GetComplete() != complete || complete && names != 0 || !complete && names != changes {
			t.Errorf("after %d changes the event has %d names, and is complete: %t", changes, names, event.GetComplete())
		}
	}
	resumed := watchUsers(t, admin.Client(), cursor)
	if first := resumed.next(t, "an event", func(*bffv1.WatchUsersResponse) bool { return true }); !first.GetComplete() {
		t.Errorf("after more than 100 changes the stream resumes with %d names, want a complete event", len(namesOf(first)))
	}
}
