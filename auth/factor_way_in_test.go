package auth_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/passkeytest"
)

// The code that the first factor of an administrator takes is mailed. Somebody who stole
// the password must not have it mailed to themselves.
func TestANewEmailWaitsForTheFactorThatAnAccountMustHave(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink, administratorsNeedTwo)
	account, _ := h.signedUp(t, "root@example.com")
	origin := h.origin(t, account)
	ask := func(email string) error {
		_, err := h.links.RequestEmailChange(t.Context(), &authv1.RequestEmailChangeRequest{NewEmail: email, Origin: origin})
		return err
	}
	setRoles := func(roles ...string) {
		t.Helper()
		_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: roles})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Asked for while the account had no such role.
	if err := ask("early@example.com"); err != nil {
		t.Fatal(err)
	}
	early := h.mailed(t, "confirm_email", "early@example.com").Token
	setRoles("admin")
	_, err := h.confirm(t, early)
	wantReason(t, err, connect.CodeFailedPrecondition, "FACTOR_REQUIRED")
	wantReason(t, ask("thief@example.com"), connect.CodeFailedPrecondition, "FACTOR_REQUIRED")
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE email = 'root@example.com'"); n != 1 {
		t.Error("the email has changed")
	}
	// Once the owner has a second factor, both proofs change the email.
	begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: origin})
	if err != nil {
		t.Fatal(err)
	}
	p := &protected{h: h, account: account, origin: origin, secret: secretOf(t, begun.GetSecret())}
	_, err = h.factors.FinishTOTPEnrolment(t.Context(), &authv1.FinishTOTPEnrolmentRequest{
		EnrolmentToken: begun.GetEnrolmentToken(), Code: p.code(t, 0), Origin: origin,
		EmailCode: h.mailed(t, "enrolment_code", "root@example.com").Values["code"],
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ask("new@example.com"); err != nil {
		t.Fatalf("with a second factor: %v", err)
	}
	if _, err := h.confirm(t, h.mailed(t, "confirm_email", "new@example.com").Token); err != nil {
		t.Errorf("with a second factor: %v", err)
	}
}

// A step-up that began without a password takes a passkey alone. Another proof is refused
// before it is looked at: otherwise somebody who stole a session would learn by the answer
// whether a code is right, and without a trace.
func TestAStepUpWithoutAPasswordTellsNothingAboutACode(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	_, made := ada.register(t, passkeytest.ES256)
	p := &protected{h: h.harness, account: ada.account, origin: ada.origin}
	p.enrol(t)
	p.forgetCodes(t)
	owed, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Origin: ada.origin, AcceptsChallenge: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, proof := range map[string]*authv1.Proof{
		"a right code": totpProof(p.code(t, 0)), "a wrong code": totpProof(p.wrongCode(t)),
		"a right recovery code": recoveryProof(p.recovery[0]), "a spent recovery code": recoveryProof(made.GetRecoveryCodes()[0]),
	} {
		_, err := h.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{
			ChallengeToken: owed.GetChallenge().GetToken(), Origin: ada.origin, Proof: proof,
		})
		if reason := fault.Reason(err); reason != "CHALLENGE_INVALID" {
			t.Errorf("%s: got %v (%s), want CHALLENGE_INVALID", name, err, reason)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.recovery_codes WHERE use_time IS NOT NULL"); n != 0 {
		t.Errorf("%d recovery codes were spent", n)
	}
}

// A session whose only proof was a passkey that was removed rests on nothing: it gives
// the password before it enrols another factor.
func TestASessionWhosePasskeyWasRemovedSignsInAgainBeforeItEnrols(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	key, made := ada.register(t, passkeytest.ES256)
	done, err := h.signIn(t, key)
	if err != nil {
		t.Fatal(err)
	}
	ada.hold(t, done.GetTokens())
	_, err = h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Origin: ada.origin})
	if err != nil {
		t.Fatal(err)
	}
	begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: ada.origin})
	if err != nil {
		t.Fatal(err)
	}
	p := &protected{h: h.harness, account: ada.account, origin: ada.origin, secret: secretOf(t, begun.GetSecret())}
	finish := func() (*authv1.FinishTOTPEnrolmentResponse, error) {
		return h.factors.FinishTOTPEnrolment(t.Context(), &authv1.FinishTOTPEnrolmentRequest{EnrolmentToken: begun.GetEnrolmentToken(), Code: p.code(t, 0), Origin: ada.origin})
	}
	_, err = finish()
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	if n := h.count(t, "SELECT count(*) FROM auth.totp_factors"); n != 0 {
		t.Error("an app is enrolled")
	}
	if _, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: ada.origin, AcceptsChallenge: true}); err != nil {
		t.Fatal(err)
	}
	enrolled, err := finish()
	if err != nil {
		t.Fatalf("after the password: %v", err)
	}
	wantLevel(t, enrolled.GetTokens(), "aal2", "mfa", "otp", "pwd")
}
