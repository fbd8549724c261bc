package gatehouse_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

func TestWatchMeTellsChangesUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	open := func() *gatehouse.Client {
		client, err := gatehouse.New(gatehouse.Config{URL: gatewayURL})
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	email, password := strings.ToLower(t.Name())+"@example.com", "correct horse battery"
	client, other := open(), open()
	if _, err := client.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: email, Password: password}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: password}); err != nil {
		t.Fatal(err)
	}
	told, ended := make(chan *bffv1.WatchMeResponse, 100), make(chan error, 1)
	go func() {
		ended <- client.WatchMe(t.Context(), func(change *bffv1.WatchMeResponse) error { told <- change; return nil })
	}()
	want := func(what string, is func(*bffv1.WatchMeResponse) bool) {
		t.Helper()
		for limit := time.After(30 * time.Second); ; {
			select {
			case change := <-told:
				if is(change) {
					return
				}
			case err := <-ended:
				t.Fatalf("it ended before %s: %v", what, err)
			case <-limit:
				t.Fatalf("it has not told %s", what)
			}
		}
	}
	want("the beginning", (*bffv1.WatchMeResponse).GetComplete)
	if _, err := other.Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Augusta"}}); err != nil {
		t.Fatal(err)
	}
	want("a change", func(change *bffv1.WatchMeResponse) bool {
		return slices.Contains(change.GetChanged().GetParts(), "profile")
	})

	stop := errors.New("enough")
	if err := other.WatchMe(t.Context(), func(*bffv1.WatchMeResponse) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("WatchMe returned %v, want the error of its function", err)
	}
	if _, err := other.Account.RevokeOtherSessions(t.Context(), &bffv1.RevokeOtherSessionsRequest{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("after the end of the session it returned %v, want unauthenticated", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on after the end of the session")
	}
}
