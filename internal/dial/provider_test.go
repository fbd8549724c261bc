package dial

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// A provider that people sign in with is another system. If auth waits for one that is
// down, auth works: the circuit breaker to auth stays closed, so that other sign-ins go on.
func TestASlowProviderDoesNotCountAgainstTheServiceThatAsksIt(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]outcome{fault.ReasonProvider: outcomeResponse, fault.ReasonUnavailable: outcomeNoResponse} {
		err := fault.New(connect.CodeUnavailable, reason, "down").WithRemote()
		if got := outcomeOf(t.Context(), err, time.Minute); got != want {
			t.Errorf("%s after a minute: got outcome %v, want %v", reason, got, want)
		}
	}
}
