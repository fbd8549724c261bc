package load

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// Two gateways hold a caller to one rate while they share a Redis, each to the
// whole while it is unreachable, and to one again afterwards. Never is there an
// answer that is neither.
func TestGatewaysShareRatesThroughRedis(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	redisAt := harness.FreeAddress(t)
	redis := harness.StartRedis(t, redisAt)
	env := []string{"REDIS_URL=redis://" + redisAt, "GATEHOUSE_POLICY=bff.v1.AccountService/GetMe rate=20/h burst=20"}
	s.Restart(t, harness.RoleBff, env...)
	other := s.Copy(t, harness.RoleBff, env...)
	first, second := s.Processes[harness.RoleBff], other.Processes[harness.RoleBff]
	said := func(text string) int {
		return min(strings.Count(first.Stderr.String(), text), strings.Count(second.Stderr.String(), text))
	}
	const unreachable, shared = "Redis unreachable", "limits are shared"
	people := 0
	// admitted is how many of 60 calls of one person are admitted.
	admitted := func() (count int) {
		people++
		token := s.SignUp(t, strings.Repeat("a", people)+"@example.com").Access
		gateways := []harness.Client{s.Client(token), other.Client(token)}
		for i := range 60 {
			switch _, err := gateways[i%2].Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); {
			case err == nil:
				count++
			case fault.Reason(err) != "RATE_LIMITED":
				t.Fatalf("call %d: %v, want an answer or RATE_LIMITED", i+1, err)
			}
		}
		return count
	}
	together := func(when string) {
		for try := range 5 {
			harness.Eventually(t, 30*time.Second, "both share "+when, func() error {
				if said(shared) <= said(unreachable) {
					return connect.NewError(connect.CodeUnavailable, "not yet")
				}
				return nil
			})
			before := strings.Count(first.Stderr.String()+second.Stderr.String(), unreachable)
			count := admitted()
			if count >= 19 && count <= 21 {
				return
			}
			// On a machine that is too busy, Redis isn't in time.
			if try == 4 || before == strings.Count(first.Stderr.String()+second.Stderr.String(), unreachable) {
				t.Fatalf("%s, %d of 60 calls were admitted, want 20", when, count)
			}
		}
	}
	together("with Redis")
	harness.KillRedis(redis)
	if count := admitted(); count != 40 {
		t.Errorf("without Redis, %d of 60 calls were admitted, want 20 by each gateway", count)
	}
	harness.StartRedis(t, redisAt)
	together("with Redis again")
}
