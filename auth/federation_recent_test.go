package auth_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	"gatehouse/auth/secretkey"
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

// Somebody whose only first proof is a provider that states no time gives a mailed code in
// its place, and then the second factor.
func TestAMailedCodeAndASecondFactorAreARecentSignIn(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	f.takeCodes()
	f.provider.SetClaims(jwt.MapClaims{"auth_time": nil})
	account := f.mustSignIn(t).GetAccount()
	f.enrol(t, account.GetId())
	owed, err := f.signIn(t)
	if err != nil {
		t.Fatal(err)
	}
	in, err := f.harness.complete(t, owed.GetChallenge().GetToken(), rightCode, "")
	if err != nil {
		t.Fatal(err)
	}
	origin := originOf(t, account, in.GetTokens())
	if f.isRecent(t, origin) {
		t.Fatal("the sign-in is a recent one already")
	}
	begun, err := f.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Origin: origin, AcceptsChallenge: true})
	if methods := begun.GetChallenge().GetMethods(); err != nil || !slices.Equal(methods, []string{"email_code"}) {
		t.Fatalf("Reauthenticate: got %v, %v, want a challenge for a mailed code", begun, err)
	}
	f.wantRefusedByAnOlderBinary(t)
	facts, err := f.accounts.GetAccount(t.Context(), &authv1.GetAccountRequest{AccountId: account.GetId()})
	if err != nil || facts.GetSecurity().GetPasswordChangeTime() != nil {
		t.Errorf("got %v, %v, want no time of a password that does not exist", facts, err)
	}
	token := begun.GetChallenge().GetToken()
	give := func(proof *authv1.Proof) (*authv1.CompleteReauthenticationResponse, error) {
		return f.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{ChallengeToken: token, Proof: proof, Origin: origin})
	}
	app := &authv1.Proof{Kind: &authv1.Proof_TotpCode{TotpCode: rightCode}}
	_, err = give(app)
	wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID") // the code from the mail comes first
	code := f.mailed(t, "sign_in", account.GetEmail()).Values["code"]
	for range 2 { // a lost answer is repeated
		further, err := give(&authv1.Proof{Kind: &authv1.Proof_EmailCode{EmailCode: code}})
		if c := further.GetChallenge(); err != nil || further.GetTokens() != nil || c.GetToken() != token || !slices.Equal(c.GetMethods(), []string{"totp"}) {
			t.Fatalf("the code from the mail: got %v, %v, want the same challenge for the second factor", further, err)
		}
	}
	if f.isRecent(t, origin) {
		t.Error("the code from the mail alone is a recent sign-in")
	}
	done, err := give(app)
	if err != nil {
		t.Fatalf("the second factor: %v", err)
	}
	if claims := claimsOf(t, done.GetTokens().GetAccessToken()); claims["acr"] != "aal2" || fmt.Sprint(claims["amr"]) != "[email mfa otp]" {
		t.Errorf("the session has acr %v and amr %v, want aal2 by email and otp", claims["acr"], claims["amr"])
	}
	if !f.isRecent(t, origin) {
		t.Error("both proofs were given just now, and the sign-in is no recent one")
	}

	// Who has a password gives that first.
	f.exec(t, `UPDATE auth.accounts SET password_hash = '$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$x', factor_password_hash = 'x'`)
	_, err = f.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Origin: origin, AcceptsChallenge: true})
	wantReason(t, err, connect.CodeFailedPrecondition, "FACTOR_REQUIRED")
}

// wantRefusedByAnOlderBinary reads the only open step-up as a binary does that ends it
// without the second factor: that one refuses a challenge without an email.
func (f *federated) wantRefusedByAnOlderBinary(t *testing.T) {
	t.Helper()
	var hash, sealed []byte
	if err := f.owner.QueryRow(t.Context(), `SELECT token_hash, sealed_state FROM auth.challenges WHERE purpose = 'step_up' AND end_time IS NULL`).Scan(&hash, &sealed); err != nil {
		t.Fatal(err)
	}
	encoded, err := secretkey.Open([][]byte{secretOne}, "challenge v1", hex.EncodeToString(hash), sealed)
	if err != nil {
		t.Fatal(err)
	}
	var known struct {
		Email string
		MAC   []byte
	}
	if err := json.Unmarshal(encoded, &known); err != nil || len(known.MAC) == 0 {
		t.Fatalf("the state is %s, %v", encoded, err)
	}
	if known.Email != "" {
		t.Errorf("an older binary finds the email %q, and ends the step-up of an account with a second factor", known.Email)
	}
}
