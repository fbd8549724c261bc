package live

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// rounds returns how many rounds a measurement has: few in a test, more where
// GATEHOUSE_TEST_ROUNDS says so.
func rounds(few int) int { return setting("GATEHOUSE_TEST_ROUNDS", few) }

// streams returns how many streams a measurement has, and quiet how long they are idle.
func streams(few int) int { return setting("GATEHOUSE_TEST_STREAMS", few) }
func quiet(few int) time.Duration {
	return time.Duration(setting("GATEHOUSE_TEST_SECONDS", few)) * time.Second
}

func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// logLatencies logs what a measurement found. The promise is a second; half of them may
// take five times as long on a machine that is busy with other tests, but not the interval
// of a poll that has become slow.
func logLatencies(t *testing.T, what string, latencies []time.Duration) {
	t.Helper()
	slices.Sort(latencies)
	t.Logf("%d %s: p50 %v, p99 %v, max %v", len(latencies), what, latencies[len(latencies)/2], latencies[len(latencies)*99/100], latencies[len(latencies)-1])
	if median := latencies[len(latencies)/2]; median > 5*time.Second {
		t.Errorf("%s: half of them took %v and more, want at most a second on a quiet machine", what, median)
	}
}

func TestAChangeThroughOneGatewayIsSeenThroughAnother(t *testing.T) {
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	other := s.Copy(t, harness.RoleBff)
	var latencies []time.Duration
	var ada *harness.Person
	var w *watcher
	for i := range rounds(12) {
		if i%50 == 0 { // the method's rate, and the life of a token
			ada = s.SignUp(t, fmt.Sprintf("ada%d@example.com", i))
			w = watch(t, other.Client(ada.Access), "")
			w.next(t, "the beginning", (*bffv1.WatchMeResponse).GetComplete)
			harness.Eventually(t, 20*time.Second, "the profile is made", func() error {
				_, err := ada.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
				return err
			})
			time.Sleep(time.Second) // the changes of the sign-up
		}
		for len(w.events) > 0 {
			<-w.events
		}
		if _, err := ada.Client().Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: fmt.Sprint("Ada", i)}}); err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		w.part(t, "profile")
		latencies = append(latencies, time.Since(changed))
	}
	logLatencies(t, "changes seen through another gateway", latencies)
}

func TestRevocationEndsStreamsOnThreeGateways(t *testing.T) {
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	gateways := []*harness.System{s, s.Copy(t, harness.RoleBff), s.Copy(t, harness.RoleBff)}
	var latencies []time.Duration
	for i := range rounds(12) {
		ada := s.SignUp(t, fmt.Sprintf("ada%d@example.com", i))
		var watchers []*watcher
		for _, gateway := range gateways {
			w := watch(t, gateway.Client(ada.Access), "")
			w.next(t, "the beginning", (*bffv1.WatchMeResponse).GetComplete)
			watchers = append(watchers, w)
		}
		if _, err := ada.Client().Account.RevokeAllSessions(t.Context(), &bffv1.RevokeAllSessionsRequest{}); err != nil {
			t.Fatal(err)
		}
		revoked := time.Now()
		for _, w := range watchers {
			if reason, err := w.ended(t); reason != "SESSION_ENDED" {
				t.Fatalf("the stream ended with %v, want SESSION_ENDED", err)
			}
		}
		latencies = append(latencies, time.Since(revoked))
	}
	logLatencies(t, "revocations until the last of three streams ended", latencies)
}
