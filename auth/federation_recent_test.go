package auth_test

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/passkeytest"
)

// isRecent reports whether the session of an origin signed in recently, at the level that
// its account can reach.
func (f *federated) isRecent(t *testing.T, origin *authv1.Origin) bool {
	t.Helper()
	_, err := f.federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: "work", Link: true, Origin: origin})
	if err != nil && fault.Reason(err) != "REAUTHENTICATION_REQUIRED" {
		t.Fatalf("BeginFederation: got %v, want nil or REAUTHENTICATION_REQUIRED", err)
	}
	return err == nil
}

func TestASecondFactorDoesNotRenewAnOldSignInAtAProvider(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	f.takeCodes()
	account := f.mustSignIn(t).GetAccount()
	f.enrol(t, account.GetId())
	for name, test := range map[string]struct {
		at     time.Time // when the person signed in at the provider; zero for "not said"
		fresh  bool
		recent bool
	}{
		"now":                   {time.Now(), false, true},
		"an hour ago":           {time.Now().Add(-time.Hour), false, false},
		"an hour ago, as asked": {time.Now().Add(-time.Hour), true, false},
		"not said":              {time.Time{}, false, false},
		"now, as asked":         {time.Now(), true, true},
	} {
		f.provider.SetClaims(jwt.MapClaims{"auth_time": test.at.Unix()})
		if test.at.IsZero() {
			f.provider.SetClaims(jwt.MapClaims{"auth_time": nil})
		}
		begun, err := f.federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: "work", Fresh: test.fresh})
		if err != nil {
			t.Fatal(err)
		}
		back := f.provider.Visit(t, begun.GetAuthorizationUrl())
		owed, err := f.complete(t, &authv1.FederatedAnswer{Provider: "work", FlowToken: begun.GetFlowToken(), Code: back.Get("code"), State: back.Get("state")}, "")
		if test.fresh && !test.recent {
			wantReason(t, err, connect.CodeInvalidArgument, "PROVIDER_ANSWER_INVALID")
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		done, err := f.harness.complete(t, owed.GetChallenge().GetToken(), rightCode, "")
		if err != nil {
			t.Fatalf("%s: CompleteLogin: %v", name, err)
		}
		if got := f.isRecent(t, originOf(t, account, done.GetTokens())); got != test.recent {
			t.Errorf("signed in at the provider %s, second factor now: recent is %t, want %t", name, got, test.recent)
		}
	}
}

// A passkey is both proofs.
func TestAPasskeyRenewsAnOldSignInAtAProvider(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withPasskeys)
	h := &passkeyHarness{harness: f.harness, passkeys: authv1.NewPasskeyServiceClient(f.client)}
	first := f.mustSignIn(t)
	ada := &owner{h: h, account: first.GetAccount()}
	ada.hold(t, first.GetTokens())
	key, _ := ada.register(t, passkeytest.ES256)
	f.provider.SetClaims(jwt.MapClaims{"auth_time": time.Now().Add(-time.Hour).Unix()})
	owed, err := f.signIn(t)
	if err != nil {
		t.Fatal(err)
	}
	done, err := h.answer(t, owed.GetChallenge(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !f.isRecent(t, originOf(t, ada.account, done.GetTokens())) {
		t.Error("a passkey after an old sign-in at a provider is no recent sign-in")
	}
}
