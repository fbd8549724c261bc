package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

// Clocks that differ by less than ClockSkew refuse no call, at no moment of a
// token's life; where they differ by more, the callee is not available to the
// caller, which says nothing about the credential.
func TestCallsGoThroughThoughClocksDiffer(t *testing.T) {
	t.Parallel()
	keys := InternalKeys{newKey}
	for _, test := range []struct {
		ahead time.Duration
		ok    bool
	}{
		{0, true}, {12 * time.Second, true}, {40 * time.Second, true}, {-12 * time.Second, true}, {-40 * time.Second, true},
		{ClockSkew - time.Second, true}, {time.Second - ClockSkew, true}, {2 * time.Minute, false}, {-2 * time.Minute, false},
	} {
		t.Run(fmt.Sprintf("the caller is %s ahead", test.ahead), func(t *testing.T) {
			t.Parallel()
			// A whole life of a token, and the change to the next.
			for age := time.Duration(0); age <= internalTokenLife; age += time.Second {
				start := time.Now()
				issuer, err := NewIssuer(keys, "bff", "users")
				if err != nil {
					t.Fatal(err)
				}
				issuer.now = func() time.Time { return start.Add(test.ahead) }
				if _, err := issuer.Token(); err != nil { // made at the start
					t.Fatal(err)
				}
				issuer.now = func() time.Time { return start.Add(test.ahead + age) }
				check := newTokenVerifier("users")
				check.now = func() time.Time { return start.Add(age) }
				if err := check.addCallers(keys, []string{"bff"}); err != nil {
					t.Fatal(err)
				}
				token, err := issuer.Token()
				if err != nil {
					t.Fatal(err)
				}
				for range 2 { // the second time it is remembered
					caller, err := check.verify(token)
					if test.ok && (err != nil || caller != "bff") {
						t.Fatalf("%s after the start: got %q, %v, want the bff let in", age, caller, err)
					}
					if !test.ok && !isClockError(err) {
						t.Fatalf("%s after the start: got %q, %v, want a refusal for the clocks", age, caller, err)
					}
				}
			}
		})
	}
}

func TestATokenOutsideTheClockSkewIsUnavailable(t *testing.T) {
	t.Parallel()
	keys := InternalKeys{newKey}
	server, err := NewServer(ServerConfig{Logger: slog.New(slog.DiscardHandler), Authorizer: ServicesOnly(keys, "users")}, func(server *connect.Server) {
		usersv1.RegisterProfileServiceHandler(server, foundProfiles{})
	})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := NewIssuer(keys, "bff", "users")
	if err != nil {
		t.Fatal(err)
	}
	client := usersv1.NewProfileServiceClient(connect.NewClient(connectinprocess.New(server.rpc), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			token, err := issuer.Token()
			if err != nil {
				return nil, err
			}
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+token)
			return next(ctx, spec)
		}
	}))
	for _, ahead := range []time.Duration{-time.Hour, -2 * time.Minute, 2 * time.Minute, time.Hour} {
		issuer.now = func() time.Time { return time.Now().Add(ahead) }
		_, err := client.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: "01890a5d-ac96-774b-bcce-b302099a8057"})
		if _, retry := fault.RetryDelay(err); connect.CodeOf(err) != connect.CodeUnavailable || fault.Reason(err) != fault.ReasonUnavailable || !retry {
			t.Errorf("%s ahead: got %v (reason %q), want unavailable with a time to come again", ahead, err, fault.Reason(err))
		}
	}
}
