package auth_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/passkeytest"
)

// auditedOf counts the events of an account.
func (o *owner) audited(t *testing.T, event string) int {
	t.Helper()
	return o.h.count(t, "SELECT count(*) FROM auth.audit_events WHERE account_id = $1 AND event = $2 AND outcome = 'succeeded'", o.account.GetId(), event)
}

func TestAChangedBackupFlagSignsInAndIsAudited(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	const user = passkeytest.UserPresent | passkeytest.UserVerified
	for i, step := range []struct {
		flags   byte
		method  string
		changes int
	}{
		{user, "hwk", 1}, {user, "hwk", 1},
		{user | passkeytest.BackupEligible, "swk", 2}, {user | passkeytest.BackupEligible | passkeytest.BackedUp, "swk", 2},
	} {
		key.Flags = step.flags
		signedIn, err := h.signIn(t, key)
		if err != nil {
			t.Fatalf("%d: flags %#x: %v", i, step.flags, err)
		}
		wantProofs(t, signedIn.GetTokens(), "aal2", "pop", "user", "mfa", step.method)
		if n := ada.audited(t, "passkey.backup_change"); n != step.changes {
			t.Errorf("%d: flags %#x: %d changes were audited, want %d", i, step.flags, n, step.changes)
		}
	}
}

// TestTwoTabsMayFinishInTheOtherOrder: an authenticator counts 6 for one tab and 7 for
// the other, and the second arrives first.
func TestTwoTabsMayFinishInTheOtherOrder(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t, withMail)
	ada := h.newVerifiedOwner(t, "ada@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	one, two := h.begin(t), h.begin(t)
	key.Counter = 6
	first := key.SignIn(t, toJSON(t, one.GetPasskeyOptions()), passkeyOrigin)
	key.Counter = 7
	second := key.SignIn(t, toJSON(t, two.GetPasskeyOptions()), passkeyOrigin)
	for i, sent := range []struct {
		owed     *authv1.Challenge
		response []byte
	}{{two, second}, {one, first}} {
		if _, err := h.send(t, sent.owed, sent.response); err != nil {
			t.Fatalf("assertion %d: %v", i, err)
		}
	}
	if n := h.count(t, "SELECT sign_count FROM auth.passkeys"); n != 7 {
		t.Errorf("the counter is %d, want 7", n)
	}

	// A copy counts on its own: its counter is behind after the last use.
	key.Counter = 5
	_, err := h.signIn(t, key)
	wantReason(t, err, connect.CodeUnauthenticated, "PASSKEY_CLONED")
	key.Counter = 8
	_, err = h.signIn(t, key)
	wantReason(t, err, connect.CodeUnauthenticated, "PASSKEY_CLONED")
	if n := ada.audited(t, "passkey.block"); n != 1 {
		t.Errorf("%d blocks were audited, want 1", n)
	}
	h.mailed(t, "passkey_blocked", "ada@example.com")
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE has_sign_in"); n != 0 {
		t.Error("a blocked passkey counts as a way to sign in")
	}
	// After the password, it is no second proof either.
	if owed := h.challengeOf(t, "ada@example.com"); owed.GetPasskeyOptions() != nil {
		t.Errorf("the blocked passkey is offered: %v", owed)
	}
}

// newVerifiedOwner is newOwner where mail is set up.
func (h *passkeyHarness) newVerifiedOwner(t *testing.T, email string, roles ...string) *owner {
	t.Helper()
	o := h.newOwner(t, email, roles...)
	h.exec(t, "UPDATE auth.accounts SET email_verified = true WHERE id = $1", o.account.GetId())
	return o
}

func TestRegistrationNeedsARecentSignInAtTheAccountsOwnLevel(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '301 seconds'")
	_, err := ada.tryRegister(t, passkeytest.New(t, passkeytest.ES256))
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now()")
	begun, err := h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: ada.origin})
	if err != nil {
		t.Fatal(err)
	}
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '301 seconds'")
	_, err = h.passkeys.FinishPasskeyRegistration(t.Context(), &authv1.FinishPasskeyRegistrationRequest{
		RegistrationToken: begun.GetRegistrationToken(), Origin: ada.origin,
		Response: toStruct(t, passkeytest.New(t, passkeytest.ES256).Register(t, toJSON(t, begun.GetOptions()), passkeyOrigin)),
	})
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now()")
	key, _ := ada.register(t, passkeytest.ES256)

	h.exec(t, "UPDATE auth.sessions SET second_factor_time = now() - interval '301 seconds'")
	_, err = ada.tryRegister(t, passkeytest.New(t, passkeytest.ES256))
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")

	// A step-up by the passkey alone makes it recent.
	owed, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Origin: ada.origin, AcceptsChallenge: true})
	if err != nil {
		t.Fatalf("Reauthenticate: %v", err)
	}
	done, err := h.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{
		ChallengeToken: owed.GetChallenge().GetToken(), Origin: ada.origin,
		Proof: &authv1.Proof{Kind: &authv1.Proof_Passkey{Passkey: toStruct(t, key.SignIn(t, toJSON(t, owed.GetChallenge().GetPasskeyOptions()), passkeyOrigin))}},
	})
	if err != nil {
		t.Fatalf("CompleteReauthentication: %v", err)
	}
	ada.hold(t, done.GetTokens())
	ada.register(t, passkeytest.EdDSA)
}

func TestAnAccountHasTwentyPasskeys(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	for range 20 {
		ada.register(t, passkeytest.EdDSA)
	}
	_, err := ada.tryRegister(t, passkeytest.New(t, passkeytest.EdDSA))
	wantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_PASSKEYS")
}

// TestARepeatedRegistrationAnswersTheSame: a lost answer costs nothing.
func TestARepeatedRegistrationAnswersTheSame(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	key := passkeytest.New(t, passkeytest.ES256)
	begun, err := h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: ada.origin})
	if err != nil {
		t.Fatal(err)
	}
	request := &authv1.FinishPasskeyRegistrationRequest{
		RegistrationToken: begun.GetRegistrationToken(), Response: toStruct(t, key.Register(t, toJSON(t, begun.GetOptions()), passkeyOrigin)),
		Name: "Laptop", IdempotencyKey: "one-key", Origin: ada.origin,
	}
	var first *authv1.FinishPasskeyRegistrationResponse
	for i := range 3 {
		answer, err := h.passkeys.FinishPasskeyRegistration(t.Context(), request)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if first == nil {
			first = answer
		}
		if answer.GetPasskey().GetPasskeyId() != first.GetPasskey().GetPasskeyId() || fmt.Sprint(answer.GetRecoveryCodes()) != fmt.Sprint(first.GetRecoveryCodes()) ||
			answer.GetTokens().GetRefreshToken() != first.GetTokens().GetRefreshToken() || len(answer.GetRecoveryCodes()) != 10 {
			t.Errorf("answer %d is %v, want %v", i, answer, first)
		}
	}
	request.Name = "Phone"
	_, err = h.passkeys.FinishPasskeyRegistration(t.Context(), request)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	request.Name, request.IdempotencyKey = "Laptop", "another-key"
	_, err = h.passkeys.FinishPasskeyRegistration(t.Context(), request)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	if n := h.count(t, "SELECT count(*) FROM auth.passkeys"); n != 1 {
		t.Errorf("%d passkeys, want 1", n)
	}
}

func TestAPasswordIsRemovedOnceAnotherPasskeyIsLeft(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com", "admin")
	remove := func() error {
		_, err := h.passkeys.RemovePassword(t.Context(), &authv1.RemovePasswordRequest{Origin: ada.origin})
		return err
	}
	wantReason(t, remove(), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED") // not by passkey
	key, _ := ada.register(t, passkeytest.ES256)
	wantReason(t, remove(), connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD") // codes, but no mail
	_, second := ada.register(t, passkeytest.EdDSA)
	if err := remove(); err != nil {
		t.Fatalf("RemovePassword: %v", err)
	}
	if err := remove(); err != nil {
		t.Errorf("RemovePassword again: %v", err)
	}
	if n := ada.audited(t, "account.password.remove"); n != 1 {
		t.Errorf("%d removals were audited, want 1", n)
	}
	_, err := h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	signedIn, err := h.signIn(t, key)
	if err != nil {
		t.Fatalf("sign in without a password: %v", err)
	}
	ada.hold(t, signedIn.GetTokens())

	// The only administrator has a way in still, and keeps it.
	if _, err := h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: second.GetPasskey().GetPasskeyId(), Origin: ada.origin}); err != nil {
		t.Fatalf("delete one of two passkeys: %v", err)
	}
	again, err := h.signIn(t, key)
	if err != nil {
		t.Fatal(err)
	}
	ada.hold(t, again.GetTokens())
	var last string
	if err := h.owner.QueryRow(t.Context(), "SELECT id FROM auth.passkeys").Scan(&last); err != nil {
		t.Fatal(err)
	}
	_, err = h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: last, Origin: ada.origin})
	wantReason(t, err, connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD")
}

func TestOnePasskeyAndMailAreEnoughToRemoveAPassword(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t, withMail)
	ada := h.newVerifiedOwner(t, "ada@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	h.mailed(t, "passkey_added", "ada@example.com")
	if _, err := h.passkeys.RemovePassword(t.Context(), &authv1.RemovePasswordRequest{Origin: ada.origin}); err != nil {
		t.Fatalf("RemovePassword: %v", err)
	}
	h.mailed(t, "password_removed", "ada@example.com")

	// A reset brings a password back, and the second factor stays.
	h.requestReset(t, "ada@example.com")
	if err := h.reset(t, h.mailed(t, "reset_password", "ada@example.com").Token); err != nil {
		t.Fatalf("ResetPassword: %v", err)
	}
	if _, err := h.signIn(t, key); err != nil {
		t.Errorf("the passkey after the reset: %v", err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE second_factor"); n != 1 {
		t.Error("the reset removed the second factor")
	}
}

// TestAPasskeyCountsAsAWayInOfAnAdministrator: the last administrator is guarded by the
// ways in, not by passwords alone.
func TestAPasskeyCountsAsAWayInOfAnAdministrator(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada, eve := h.newOwner(t, "ada@example.com", "admin"), h.newOwner(t, "eve@example.com", "admin")
	ada.register(t, passkeytest.ES256)
	ada.register(t, passkeytest.EdDSA)
	if _, err := h.passkeys.RemovePassword(t.Context(), &authv1.RemovePasswordRequest{Origin: ada.origin}); err != nil {
		t.Fatal(err)
	}
	demote := func(o *owner) error {
		_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: o.account.GetId()})
		return err
	}
	if err := demote(eve); err != nil {
		t.Errorf("an administrator with passkeys is left, and demoting the other one failed: %v", err)
	}
	wantReason(t, demote(ada), connect.CodeFailedPrecondition, "LAST_ADMINISTRATOR")
}

// TestOneAnswerBeginsOneSession sends one answer many times at once.
func TestOneAnswerBeginsOneSession(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	owed := h.begin(t)
	response := toStruct(t, key.SignIn(t, toJSON(t, owed.GetPasskeyOptions()), passkeyOrigin))
	before := h.count(t, "SELECT count(*) FROM auth.sessions")
	var group sync.WaitGroup
	failures := make([]error, 40)
	for i := range failures {
		group.Go(func() {
			_, failures[i] = h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
				ChallengeToken: owed.GetToken(), Proof: &authv1.Proof{Kind: &authv1.Proof_Passkey{Passkey: response}},
			})
		})
	}
	group.Wait()
	for _, err := range failures {
		if err != nil && fault.Reason(err) != "CHALLENGE_USED" {
			t.Errorf("refused by %v", err)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions") - before; n != 1 || errors.Join(failures...) == nil {
		t.Errorf("%d sessions began, want 1", n)
	}
}
