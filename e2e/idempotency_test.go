package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse/gen/bff/v1"
)

// registerOnce registers somebody with a key and returns the account's id.
func registerOnce(ctx context.Context, c client, email, key string) (string, error) {
	ctx, call := connect.NewClientContext(ctx)
	call.RequestHeader().Set("Idempotency-Key", key)
	response, err := c.auth.Register(ctx, &bffv1.RegisterRequest{Email: email, Password: Password, FirstName: "Ada"})
	return response.GetSignedIn().GetUser().GetId(), err
}

// createOnce makes a user with a key and returns the id.
func createOnce(ctx context.Context, c client, email, key string) (string, error) {
	ctx, call := connect.NewClientContext(ctx)
	call.RequestHeader().Set("Idempotency-Key", key)
	response, err := c.users.CreateUser(ctx, &bffv1.CreateUserRequest{User: &bffv1.User{Email: email, FirstName: "Ada"}, Password: Password})
	return response.GetUser().GetId(), err
}

// Whoever repeats a call whose answer a crash took gets it, whether the crash
// came before the account was there or after.
func TestACallWithAKeyThatACrashCutOffIsAnsweredWhenItIsRepeated(t *testing.T) {
	t.Parallel()
	s := Start(t, ThreeProcesses)
	admin := s.Admin(t).Client()
	n := 0
	for at, where := range map[string]string{
		"auth: before the account is written":   roleAuth,
		"auth: before the account is committed": roleAuth,
		"auth: after the account is committed":  roleAuth,
		"bff: after auth has answered":          roleBff,
	} {
		for method, call := range map[string]func(email, key string) (string, error){
			"Register":   func(email, key string) (string, error) { return registerOnce(t.Context(), s.client(""), email, key) },
			"CreateUser": func(email, key string) (string, error) { return createOnce(t.Context(), admin, email, key) },
		} {
			n++
			what := fmt.Sprintf("%s, killed at %s", method, at)
			email, key := fmt.Sprintf("%d@example.com", n), fmt.Sprintf("key-%d", n)
			s.processes[where].kill()
			doomed := s.start(t, where, CrashAt+"="+at)
			if id, err := call(email, key); err == nil {
				t.Errorf("%s: it answered %s", what, id)
			}
			doomed.wait(t)
			s.start(t, where)
			var id string
			eventually(t, 30*time.Second, what, func() (err error) {
				id, err = call(email, key)
				return err
			})
			if want := s.idOf(t, email); id != want {
				t.Errorf("%s: the repetition names the account %q, want %s", what, id, want)
			}
			wantBothOrNeither(t, s, at, email, nil, 1)
		}
	}
}

func TestOfManyWithOneKeyOverTwoGatewaysOneMakesTheAccount(t *testing.T) {
	t.Parallel()
	s := Start(t, ThreeProcesses)
	auth2, bff2 := freeAddress(t), freeAddress(t)
	startProcess(t, append(s.roles[roleAuth].env, "GATEHOUSE_LISTEN="+auth2), roleAuth)
	startProcess(t, append(s.roles[roleBff].env, "GATEHOUSE_LISTEN="+bff2, "AUTH_URL=http://"+auth2), roleBff)
	other := &system{url: "http://" + bff2}
	for _, address := range []string{auth2, bff2} {
		eventually(t, 30*time.Second, "the other copies are ready", func() error {
			response, err := http.Get("http://" + address + "/readyz")
			if err != nil {
				return err
			}
			if response.Body.Close(); response.StatusCode != http.StatusOK {
				return errors.New(response.Status)
			}
			return nil
		})
	}
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
				id, err := registerOnce(t.Context(), from.client(""), email, key)
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
		eventually(t, 30*time.Second, "the repetition", func() error {
			id, err := registerOnce(t.Context(), other.client(""), email, key)
			if err == nil {
				made[id]++
			}
			return err
		})
		if len(made) != 1 || made[s.idOf(t, email)] == 0 {
			t.Errorf("%s: the answers name %v, want the account %s alone", email, made, s.idOf(t, email))
		}
	}
	if n := s.count(t, "SELECT count(*) FROM auth.accounts WHERE email LIKE 'race-%'"); n != rounds {
		t.Errorf("there are %d accounts, want %d", n, rounds)
	}
}
