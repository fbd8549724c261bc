package faults

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// registerOnce registers somebody with a key and returns the account's id.
func registerOnce(ctx context.Context, c harness.Client, email, key string) (string, error) {
	ctx, call := connect.NewClientContext(ctx)
	call.RequestHeader().Set("Idempotency-Key", key)
	response, err := c.Auth.Register(ctx, &bffv1.RegisterRequest{Email: email, Password: harness.Password, FirstName: "Ada"})
	return response.GetSignedIn().GetUser().GetId(), err
}

// createOnce makes a user with a key and returns the id.
func createOnce(ctx context.Context, c harness.Client, email, key string) (string, error) {
	ctx, call := connect.NewClientContext(ctx)
	call.RequestHeader().Set("Idempotency-Key", key)
	response, err := c.Users.CreateUser(ctx, &bffv1.CreateUserRequest{User: &bffv1.User{Email: email, FirstName: "Ada"}, Password: harness.Password})
	return response.GetUser().GetId(), err
}

// A repeated call gets the answer that a crash lost, whether the crash
// came before the account was there or after.
func TestACallWithAKeyThatACrashCutOffIsAnsweredWhenItIsRepeated(t *testing.T) {
	t.Parallel()
	crash := harness.NewCrashPoints(t)
	s := harness.Start(t, harness.ThreeProcesses, crash.Option())
	admin := s.Admin(t).Client()
	n := 0
	for at, where := range map[string]string{
		"auth: before the account is written":   harness.RoleAuth,
		"auth: before the account is committed": harness.RoleAuth,
		"auth: after the account is committed":  harness.RoleAuth,
		"bff: after auth has answered":          harness.RoleBff,
	} {
		for method, call := range map[string]func(email, key string) (string, error){
			"Register":   func(email, key string) (string, error) { return registerOnce(t.Context(), s.Client(""), email, key) },
			"CreateUser": func(email, key string) (string, error) { return createOnce(t.Context(), admin, email, key) },
		} {
			n++
			what := fmt.Sprintf("%s, killed at %s", method, at)
			email, key := fmt.Sprintf("%d@example.com", n), fmt.Sprintf("key-%d", n)
			crash.Arm(t, at)
			if id, err := call(email, key); err == nil {
				t.Errorf("%s: it answered %s", what, id)
			}
			s.Processes[where].Wait(t)
			s.Start(t, where)
			var id string
			harness.Eventually(t, 30*time.Second, what, func() (err error) {
				id, err = call(email, key)
				return err
			})
			if want := s.IdOf(t, email); id != want {
				t.Errorf("%s: the repetition names the account %q, want %s", what, id, want)
			}
			wantBothOrNeither(t, s, at, email, nil, 1)
		}
	}
}

func TestOfManyWithOneKeyOverTwoGatewaysOneMakesTheAccount(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	other := s.Copy(t, harness.RoleBff, "AUTH_URL="+s.Copy(t, harness.RoleAuth).URL)
	const rounds, callers = 3, 6
	for round := range rounds {
		email, key := fmt.Sprintf("race-%d@example.com", round), fmt.Sprintf("race-%d", round)
		var mu sync.Mutex
		made := map[string]int{}
		var wait sync.WaitGroup
		for caller := range callers {
			from := s
			if caller%2 == 1 {
				from = other
			}
			wait.Go(func() {
				id, err := registerOnce(t.Context(), from.Client(""), email, key)
				mu.Lock()
				defer mu.Unlock()
				switch connect.CodeOf(err) {
				case connect.CodeAborted, connect.CodeResourceExhausted: // to be repeated
				default:
					if err != nil {
						t.Errorf("%s: %v", email, err)
					}
					made[id]++
				}
			})
		}
		wait.Wait()
		harness.Eventually(t, 30*time.Second, "the repetition", func() error {
			id, err := registerOnce(t.Context(), other.Client(""), email, key)
			if err == nil {
				made[id]++
			}
			return err
		})
		if len(made) != 1 || made[s.IdOf(t, email)] == 0 {
			t.Errorf("%s: the answers name %v, want the account %s alone", email, made, s.IdOf(t, email))
		}
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email LIKE 'race-%'"); n != rounds {
		t.Errorf("there are %d accounts, want %d", n, rounds)
	}
}
