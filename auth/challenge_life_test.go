package auth_test

import (
	"testing"

	authv1 "gatehouse/gen/auth/v1"
)

// wantThreeMinutes checks a challenge that seven of its ten minutes have passed of.
func wantThreeMinutes(t *testing.T, what string, got *authv1.Challenge, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if left := got.GetExpiresIn(); left < 60 || left > 180 {
		t.Errorf("%s: the challenge says that it works for %d s, want 180 s less what this test took", what, left)
	}
}

// passSevenMinutes moves the open challenges towards their end.
func (h *harness) passSevenMinutes(t *testing.T) {
	t.Helper()
	h.exec(t, `UPDATE auth.challenges SET create_time = create_time - interval '7 minutes', expire_time = expire_time - interval '7 minutes' WHERE end_time IS NULL`)
}

func TestTheSecondProofOfAStepUpHasTheTimeThatTheFirstOneLeft(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	f.takeCodes()
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
	begun, err := f.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Origin: origin, AcceptsChallenge: true})
	if err != nil {
		t.Fatal(err)
	}
	code := f.mailed(t, "sign_in", account.GetEmail()).Values["code"]
	f.passSevenMinutes(t)
	further, err := f.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{
		ChallengeToken: begun.GetChallenge().GetToken(), Origin: origin, Proof: &authv1.Proof{Kind: &authv1.Proof_EmailCode{EmailCode: code}},
	})
	wantThreeMinutes(t, "after the code from the mail", further.GetChallenge(), err)
}

func TestAChallengeThatIsOfferedAgainHasTheTimeThatIsLeft(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	desk := f.service.DeskForTest()
	ofPasswords := desk.Verifiers[len(desk.Verifiers)-1]
	f.takeCodes()
	desk.Verifiers = append(desk.Verifiers, ofPasswords)
	account, _ := f.signUp(t, "ada@example.com")
	f.verify(t, account)
	f.enrol(t, account.GetId())
	link, err := f.signIn(t)
	if err != nil {
		t.Fatal(err)
	}
	token := link.GetChallenge().GetToken()
	f.passSevenMinutes(t)
	further, err := f.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: token, Proof: &authv1.Proof{Kind: &authv1.Proof_Password{Password: password}}})
	wantThreeMinutes(t, "a link, after the password", further.GetChallenge(), err)
	if _, err := f.harness.complete(t, token, rightCode, ""); err != nil {
		t.Fatal(err)
	}
	answer := f.visit(t, false, nil)
	if _, err := f.complete(t, answer, "key"); err != nil {
		t.Fatal(err)
	}
	f.passSevenMinutes(t)
	again, err := f.complete(t, answer, "key")
	wantThreeMinutes(t, "a sign-in whose answer is repeated", again.GetChallenge(), err)
}
