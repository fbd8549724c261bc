package live

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// A stream continues after its method has returned: over HTTP/1 by its connection.
func TestAStreamThatContinuesNamesChangesAndEndsWithItsReason(t *testing.T) {
	t.Parallel()
	for version, over := range map[string]*http.Client{"HTTP/1.1": new(http.Client), "HTTP/2": harness.H2C} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			continues(t, over)
		})
	}
}

func continues(t *testing.T, over *http.Client) {
	t.Helper()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	ada := s.SignUp(t, "ada@example.com")
	watchers := map[string]*watcher{}
	for name, options := range protocols {
		if name == "grpc" && over != harness.H2C {
			continue // HTTP/2 alone
		}
		watchers[name] = watch(t, s.ClientOver(over, ada.Access, options...), "")
		watchers[name].next(t, "the beginning", (*bffv1.WatchMeResponse).GetComplete)
	}
	_, next := subscribeOver(t, over, s.URL+"/api/v1/me:watch", ada.Access, "")
	harness.Eventually(t, 20*time.Second, "the profile is made", func() error {
		_, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Augusta"}})
		return err
	})
	for _, w := range watchers {
		w.part(t, "profile")
	}
	for {
		one, ok := next()
		if !ok {
			t.Fatal("the stream of server-sent events ended")
		}
		if one.data.Changed != nil && !one.data.Complete && slices.Contains(one.data.Changed.Parts, "profile") {
			break
		}
	}
	if _, err := ada.Client().Account.RevokeAllSessions(t.Context(), &bffv1.RevokeAllSessionsRequest{}); err != nil {
		t.Fatal(err)
	}
	for name, w := range watchers {
		if reason, err := w.ended(t); reason != "SESSION_ENDED" || connect.CodeOf(w.err) != connect.CodeUnauthenticated || fault.Reason(w.err) != "SESSION_ENDED" {
			t.Errorf("%s: the stream ended with %v and %v, want SESSION_ENDED", name, err, w.err)
		}
	}
	for ended := false; ; {
		one, ok := next()
		if !ok {
			if !ended {
				t.Error("server-sent events ended without a reason")
			}
			break
		}
		ended = ended || one.data.Ended != nil && one.data.Ended.Reason == "SESSION_ENDED"
	}
	harness.Eventually(t, 20*time.Second, "the calls are in the log, with how they ended", func() error {
		lines := strings.Split(s.Processes[harness.RoleBff].Stderr.String(), "\n")
		ended := slices.DeleteFunc(lines, func(line string) bool {
			return !strings.Contains(line, "/bff.v1.AccountService/WatchMe") || !strings.Contains(line, "SESSION_ENDED")
		})
		if len(ended) != len(watchers)+1 {
			return fmt.Errorf("%d lines: %s", len(ended), ended)
		}
		return nil
	})
}

// A client that has gone makes room for another at once, and not with the next event.
func TestAClientThatLeavesMakesRoom(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	ada := s.SignUp(t, "ada@example.com")
	const perCaller = 5
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var all [perCaller]*idle
	for i := range all {
		over := http.DefaultClient
		switch i {
		case 0:
			all[i] = openIdle(ctx, t, s, ada.Access, &http.Client{Transport: &http.Transport{}})
			continue
		case 1:
			all[i] = openIdle(ctx, t, s, ada.Access, harness.H2C)
			continue
		case 2:
			over = harness.H2C
		}
		stream, err := s.ClientOver(over, ada.Access).Account.WatchMe(ctx, &bffv1.WatchMeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		one := &idle{}
		all[i] = one
		go func() {
			for _, err := stream.Receive(); err == nil; _, err = stream.Receive() {
				one.events.Add(1)
			}
		}()
	}
	if t.Failed() {
		return
	}
	// The changes of the sign-up have been sent: no write may notice that the client has gone.
	for events, since := int64(-1), time.Now(); time.Since(since) < 2*time.Second; time.Sleep(50 * time.Millisecond) {
		var now int64
		for _, one := range all {
			now += one.events.Load()
		}
		if now != events {
			events, since = now, time.Now()
		}
	}
	leave()
	for i := range perCaller { // for as many as have gone
		harness.Eventually(t, 10*time.Second, fmt.Sprint("there is room for stream ", i), func() error {
			w := watch(t, s.ClientOver(new(http.Client), ada.Access), "")
			if _, ok := <-w.events; !ok {
				return w.err
			}
			return nil
		})
	}
}
