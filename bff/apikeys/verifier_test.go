package apikeys_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"gatehouse/bff/access"
	"gatehouse/bff/apikeys"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/apikey"
	"gatehouse/internal/fault"
)

// bench is a verifier, and what it asks auth and reports to it.
type bench struct {
	*apikeys.Verifier
	revoked *access.Revocations
	address string
	// What auth answers, and how often it was asked.
	answer   *authv1.CheckKeyResponse
	refusal  error
	checks   int
	limited  int
	uses     []*authv1.KeyUse
	touchErr error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{address: "203.0.113.7", answer: &authv1.CheckKeyResponse{AccountId: "ada", Scopes: []string{"me:read"}, Level: 1, ExpiresIn: 86_400}}
	b.revoked = access.NewRevocations(nil, nil, nil, func(context.Context, *authv1.CheckAccessRequest) error { return fault.Unavailable() }, nil)
	verifier, err := apikeys.NewVerifier(apikeys.Config{
		Check: func(context.Context, *authv1.CheckKeyRequest) (*authv1.CheckKeyResponse, error) {
			b.checks++
			return b.answer, b.refusal
		},
		Touch: func(_ context.Context, request *authv1.TouchKeysRequest) error {
			if b.touchErr == nil {
				b.uses = append(b.uses, request.GetUses()...)
			}
			return b.touchErr
		},
		Revoked: b.revoked, Granted: func(roles []string, _ int) []string { return roles },
		Limit:      func(context.Context) error { b.limited++; return nil },
		ClientInfo: func(context.Context) *authv1.Origin { return &authv1.Origin{} },
		Address:    func(context.Context) string { return b.address },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Verifier = verifier
	b.hear(nil)
	return b
}

// hear is a message of auth's stream of revocations.
func (b *bench) hear(message *authv1.WatchRevocationsResponse) {
	if message == nil {
		message = &authv1.WatchRevocationsResponse{Complete: true}
	}
	b.revoked.Take(message)
}

// wait passes time while auth's stream goes on.
func (b *bench) wait(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(time.Second, time.Until(end)))
		b.hear(&authv1.WatchRevocationsResponse{})
	}
}

func (b *bench) identify(t *testing.T, key, reason string) {
	t.Helper()
	if _, err := b.Identify(t.Context(), key); fault.Reason(err) != reason || reason == "" && err != nil {
		t.Errorf("got %v, want %q", err, reason)
	}
}

func newKey() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	return apikey.Format(uuid.New(), secret)
}

// The checksum costs nothing: neither auth nor the rate of the address.
func TestAKeyWithAWrongChecksumReachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for range 100_000 {
			key := []byte(newKey())
			last := &key[len(key)-1]
			*last = map[bool]byte{true: '0', false: '1'}[*last != '0']
			b.identify(t, string(key), "KEY_INVALID")
			if t.Failed() {
				return
			}
		}
		if b.checks != 0 || b.limited != 0 {
			t.Errorf("100,000 keys with a wrong checksum asked auth %d times, and the rate %d times, want never", b.checks, b.limited)
		}
		b.identify(t, newKey(), "")
		if b.checks != 1 || b.limited != 1 {
			t.Errorf("a key asked auth %d times, and the rate %d times, want once", b.checks, b.limited)
		}
	})
}

func TestARefusalIsRememberedForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, key := newBench(t), newKey()
		b.refusal = apikey.ErrInvalid
		for range 50 {
			b.identify(t, key, "KEY_INVALID")
		}
		if b.checks != 1 || b.limited != 50 {
			t.Errorf("50 calls by a bad key asked auth %d times, and the rate %d times, want once and each time", b.checks, b.limited)
		}
		b.refusal = nil // it was created just before, and this copy of auth did not know it yet
		b.wait(900 * time.Millisecond)
		b.identify(t, key, "KEY_INVALID")
		b.wait(200 * time.Millisecond)
		b.identify(t, key, "")
		if b.checks != 2 {
			t.Errorf("auth was asked %d times, want twice", b.checks)
		}
	})
}

func TestAKnownKeyIsAskedAboutEachTimeWithoutTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, key := newBench(t), newKey()
		for range 10 {
			b.identify(t, key, "")
		}
		if b.checks != 1 {
			t.Errorf("10 calls asked auth %d times, want once", b.checks)
		}
		time.Sleep(access.Silence + time.Second)
		for range 10 {
			b.identify(t, key, "")
		}
		if b.checks != 11 {
			t.Errorf("10 calls without the stream asked auth %d times, want each time", b.checks-1)
		}
		b.refusal = fault.Unavailable()
		b.identify(t, key, "SERVICE_UNAVAILABLE")
		b.refusal = apikey.ErrInvalid
		b.identify(t, key, "KEY_INVALID")
	})
}

func TestARevocationEndsAKnownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, key := newBench(t), newKey()
		who, err := b.Identify(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		b.hear(&authv1.WatchRevocationsResponse{Revocations: []*authv1.Revocation{{Of: &authv1.Revocation_SessionId{SessionId: who.SessionID}, ExpiresIn: 300}}})
		b.identify(t, key, "KEY_INVALID")
		if b.checks != 1 {
			t.Errorf("auth was asked %d times, want once", b.checks)
		}
	})
}

func TestANetworkIsCheckedAtEveryUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, key := newBench(t), newKey()
		b.answer.Networks = []string{"203.0.113.0/24"}
		for address, reason := range map[string]string{"203.0.113.9": "", "198.51.100.7": "KEY_NETWORK", "": "KEY_NETWORK", "2001:db8::1": "KEY_NETWORK"} {
			b.address = address
			b.identify(t, key, reason)
		}
		if b.checks != 1 {
			t.Errorf("auth was asked %d times, want once", b.checks)
		}
	})
}

func TestEachUseIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)))
		}()
		first, second := newKey(), newKey()
		b.identify(t, first, "")
		b.identify(t, second, "")
		b.wait(20 * time.Second)
		b.identify(t, first, "")
		b.wait(41 * time.Second) // beyond the minute
		synctest.Wait()
		if len(b.uses) != 2 || b.uses[0].GetAge() > 41 || b.uses[1].GetAge() < 59 || b.uses[0].GetIpAddress() != "203.0.113.7" {
			t.Errorf("after a minute auth got %v, want the latest use of two keys", b.uses)
		}
		b.uses, b.touchErr = nil, errors.New("auth is unreachable")
		b.identify(t, first, "")
		b.wait(time.Minute)
		synctest.Wait()
		b.touchErr = nil
		b.identify(t, first, "") // the use that was not reported is followed by one that is
		stop()
		<-ended
		if len(b.uses) != 1 || b.uses[0].GetAge() > 1 {
			t.Errorf("when the gateway stops auth gets %v, want the last use", b.uses)
		}
	})
}
