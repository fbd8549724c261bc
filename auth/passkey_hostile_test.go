package auth_test

import (
	"crypto/rand"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/passkeytest"
	"gatehouse/internal/webauthn"
)

// refusals counts refused answers, and checks that nothing began a session.
type refusals struct {
	h      *passkeyHarness
	count  int
	before int
}

func (h *passkeyHarness) refusals(t *testing.T) *refusals {
	t.Helper()
	return &refusals{h: h, before: h.count(t, "SELECT count(*) FROM auth.sessions")}
}

func (r *refusals) want(t *testing.T, what string, err error, code connect.Code, reason string) {
	t.Helper()
	r.count++
	if connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("%s: got %v (reason %q), want %s %s", what, err, fault.Reason(err), code, reason)
	}
}

func (r *refusals) wantInvalid(t *testing.T, what string, err error) {
	t.Helper()
	r.want(t, what, err, connect.CodeInvalidArgument, "PASSKEY_INVALID")
}

func (r *refusals) check(t *testing.T, least int) {
	t.Helper()
	if n := r.h.count(t, "SELECT count(*) FROM auth.sessions"); n != r.before {
		t.Errorf("%d sessions began", n-r.before)
	}
	if r.count < least {
		t.Errorf("%d cases, want %d at least", r.count, least)
	}
	t.Logf("%d hostile answers refused", r.count)
}

func TestHostileAssertionsAreRefused(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	other := passkeytest.New(t, passkeytest.ES256)
	r := h.refusals(t)
	for _, c := range append(passkeytest.Hostile(passkeyRPID, passkeyOrigin), passkeytest.HostileSignatures(other)...) {
		for _, owed := range []*authv1.Challenge{h.begin(t), h.challengeOf(t, "ada@example.com")} {
			response := c.Apply(func(changes ...passkeytest.Change) []byte {
				return key.SignIn(t, toJSON(t, owed.GetPasskeyOptions()), passkeyOrigin, changes...)
			})
			_, err := h.send(t, owed, response)
			r.wantInvalid(t, c.Name, err)
		}
	}
	r.check(t, 40)
}

func TestHostileRegistrationsAreRefused(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	r := h.refusals(t)
	for _, c := range append(passkeytest.Hostile(passkeyRPID, passkeyOrigin), passkeytest.HostileRegistrations(t)...) {
		begun, err := h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: ada.origin})
		if err != nil {
			t.Fatal(err)
		}
		key := passkeytest.New(t, passkeytest.ES256)
		response := c.Apply(func(changes ...passkeytest.Change) []byte {
			return key.Register(t, toJSON(t, begun.GetOptions()), passkeyOrigin, changes...)
		})
		_, err = h.passkeys.FinishPasskeyRegistration(t.Context(), &authv1.FinishPasskeyRegistrationRequest{
			RegistrationToken: begun.GetRegistrationToken(), Response: toStruct(t, response), Origin: ada.origin,
		})
		r.wantInvalid(t, c.Name, err)
	}
	_, err := ada.tryRegister(t, passkeytest.New(t, passkeytest.RS384))
	r.wantInvalid(t, "an algorithm that was not asked for", err)
	r.check(t, 40)
	if n := h.count(t, "SELECT count(*) FROM auth.passkeys"); n != 0 {
		t.Errorf("%d passkeys were stored", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE second_factor"); n != 0 {
		t.Error("a refused registration made a second factor")
	}
}

func TestMisusedChallengesAreRefused(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada, eve := h.newOwner(t, "ada@example.com"), h.newOwner(t, "eve@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	eves, _ := eve.register(t, passkeytest.EdDSA)
	used := h.begin(t)
	if _, err := h.answer(t, used, key); err != nil {
		t.Fatal(err)
	}
	r := h.refusals(t)

	one, two := h.begin(t), h.begin(t)
	_, err := h.send(t, one, key.SignIn(t, toJSON(t, two.GetPasskeyOptions()), passkeyOrigin))
	r.wantInvalid(t, "the challenge of another ceremony", err)
	_, err = h.answer(t, used, key)
	r.want(t, "a used challenge", err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	expired := h.begin(t)
	h.exec(t, "UPDATE auth.challenges SET expire_time = now() - interval '1 second' WHERE end_time IS NULL")
	_, err = h.answer(t, expired, key)
	r.want(t, "an expired challenge", err, connect.CodeFailedPrecondition, "CHALLENGE_EXPIRED")
	_, err = h.answer(t, &authv1.Challenge{Token: "ghc_AAAA", PasskeyOptions: two.GetPasskeyOptions()}, key)
	r.want(t, "a made-up token", err, connect.CodeInvalidArgument, "CHALLENGE_INVALID")

	evesOwed := h.challengeOf(t, "eve@example.com")
	_, err = h.answer(t, evesOwed, key)
	r.wantInvalid(t, "the passkey of another account than the password's", err)
	key.UserHandle, eves.UserHandle = eves.UserHandle, key.UserHandle
	_, err = h.answer(t, h.begin(t), key)
	r.wantInvalid(t, "the user handle of another account", err)
	_, err = h.answer(t, h.challengeOf(t, "ada@example.com"), key)
	r.wantInvalid(t, "the user handle of another account, after the password", err)
	key.UserHandle, eves.UserHandle = eves.UserHandle, key.UserHandle

	exhausted := h.begin(t)
	for range 5 {
		_, err = h.answer(t, exhausted, key, func(a *passkeytest.Answer) { a.Signer = eves })
		r.wantInvalid(t, "a signature by another key", err)
	}
	_, err = h.answer(t, exhausted, key)
	r.want(t, "the right answer after five wrong ones", err, connect.CodeFailedPrecondition, "CHALLENGE_EXHAUSTED")

	begun, err := h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: ada.origin})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.send(t, &authv1.Challenge{Token: begun.GetRegistrationToken()}, key.SignIn(t, toJSON(t, h.begin(t).GetPasskeyOptions()), passkeyOrigin))
	r.want(t, "the token of a registration", err, connect.CodeInvalidArgument, "CHALLENGE_INVALID")
	finish := func(origin *authv1.Origin, token string) error {
		fresh := passkeytest.New(t, passkeytest.ES256)
		_, err := h.passkeys.FinishPasskeyRegistration(t.Context(), &authv1.FinishPasskeyRegistrationRequest{
			RegistrationToken: token, Response: toStruct(t, fresh.Register(t, toJSON(t, begun.GetOptions()), passkeyOrigin)), Origin: origin,
		})
		return err
	}
	r.want(t, "a registration of another account", finish(eve.origin, begun.GetRegistrationToken()), connect.CodeInvalidArgument, "CHALLENGE_INVALID")
	r.want(t, "a sign-in's token for a registration", finish(ada.origin, h.begin(t).GetToken()), connect.CodeInvalidArgument, "CHALLENGE_INVALID")
	elsewhere, err := h.signIn(t, key)
	if err != nil {
		t.Fatal(err)
	}
	r.before++
	other := &authv1.Origin{AccountId: ada.account.GetId(), SessionId: sessionOf(t, elsewhere.GetTokens().GetRefreshToken())}
	r.want(t, "a registration of another session", finish(other, begun.GetRegistrationToken()), connect.CodeInvalidArgument, "CHALLENGE_INVALID")
	h.exec(t, "UPDATE auth.challenges SET create_time = now() - interval '301 seconds' WHERE purpose = 'passkey_registration'")
	r.want(t, "a registration that took six minutes", finish(ada.origin, begun.GetRegistrationToken()), connect.CodeFailedPrecondition, "CHALLENGE_EXPIRED")
	r.check(t, 15)
}

func TestPasskeysThatDoNotSignIn(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	r := h.refusals(t)

	disabled := h.newOwner(t, "disabled@example.com")
	key, _ := disabled.register(t, passkeytest.ES256)
	_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: disabled.account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.signIn(t, key)
	r.want(t, "a disabled account", err, connect.CodePermissionDenied, "ACCOUNT_DISABLED")

	deleted := h.newOwner(t, "deleted@example.com")
	key, _ = deleted.register(t, passkeytest.ES256)
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: deleted.account.GetId()}); err != nil {
		t.Fatal(err)
	}
	_, err = h.signIn(t, key)
	r.want(t, "a deleted account", err, connect.CodeUnauthenticated, "PASSKEY_UNKNOWN")

	moved := h.newOwner(t, "moved@example.com")
	key, _ = moved.register(t, passkeytest.ES256)
	h.exec(t, "UPDATE auth.passkeys SET rp_id = 'old.example.com' WHERE account_id = $1", moved.account.GetId())
	_, err = h.signIn(t, key)
	r.wantInvalid(t, "the RP ID from before a change of host", err)
	if owed := h.challengeOf(t, "moved@example.com"); len(owed.GetMethods()) > 0 && owed.GetMethods()[0] == "passkey" || owed.GetPasskeyOptions() != nil {
		t.Errorf("a passkey for another RP ID is offered: %v", owed)
	}

	ada, eve := h.newOwner(t, "ada@example.com"), h.newOwner(t, "eve@example.com")
	adas, _ := ada.register(t, passkeytest.ES256)
	copied := passkeytest.New(t, passkeytest.ES256)
	copied.ID = adas.ID
	_, err = eve.tryRegister(t, copied)
	r.want(t, "the credential id of another account", err, connect.CodeAlreadyExists, "PASSKEY_TAKEN")

	unknown := passkeytest.New(t, passkeytest.ES256)
	unknown.UserHandle = adas.UserHandle
	for _, length := range []int{1, 16, 32, 100, 1023} {
		unknown.ID = make([]byte, length)
		_, _ = rand.Read(unknown.ID)
		_, err = h.signIn(t, unknown)
		r.want(t, "random bytes as a credential id", err, connect.CodeUnauthenticated, "PASSKEY_UNKNOWN")
	}
	r.before += 4 // of the owners that are not deleted
	r.check(t, 9)
}

// TestAnUnverifiedAccountHasNoPasskey: a stranger who registered somebody's address
// must not keep a way in.
func TestAnUnverifiedAccountHasNoPasskey(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t, withMail)
	planted := h.newOwner(t, "planted@example.com")
	_, err := planted.tryRegister(t, passkeytest.New(t, passkeytest.ES256))
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED")

	earlier := newPasskeyHarness(t) // without mail
	early := earlier.newOwner(t, "early@example.com")
	kept, _ := early.register(t, passkeytest.ES256)
	earlier.open(t, func() auth.Config { c := earlier.config; withMail(&c); return c }())
	earlier.passkeys = authv1.NewPasskeyServiceClient(earlier.client)
	_, err = earlier.signIn(t, kept)
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED")

	// A registration that began while the address counted as verified.
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	begun, err := h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: planted.origin})
	if err != nil {
		t.Fatal(err)
	}
	h.exec(t, "UPDATE auth.accounts SET email_verified = false")
	key := passkeytest.New(t, passkeytest.ES256)
	_, err = h.passkeys.FinishPasskeyRegistration(t.Context(), &authv1.FinishPasskeyRegistrationRequest{
		RegistrationToken: begun.GetRegistrationToken(), Response: toStruct(t, key.Register(t, toJSON(t, begun.GetOptions()), passkeyOrigin)), Origin: planted.origin,
	})
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED")
}

func TestPasskeysTurnedOffAreRefused(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	key, _ := ada.register(t, passkeytest.ES256)
	owed := h.begin(t)
	h.open(t, func() auth.Config { c := h.config; c.Passkeys = nil; return c }())
	h.passkeys = authv1.NewPasskeyServiceClient(h.client)
	_, err := h.passkeys.BeginPasskeyLogin(t.Context(), &authv1.BeginPasskeyLoginRequest{})
	wantReason(t, err, connect.CodeFailedPrecondition, "PASSKEYS_OFF")
	_, err = h.answer(t, owed, key)
	wantReason(t, err, connect.CodeFailedPrecondition, "PASSKEYS_OFF")
	_, err = ada.tryRegister(t, passkeytest.New(t, passkeytest.ES256))
	wantReason(t, err, connect.CodeFailedPrecondition, "PASSKEYS_OFF")
	if owed := h.challengeOf(t, "ada@example.com"); owed.GetPasskeyOptions() != nil {
		t.Errorf("a passkey is offered: %v", owed)
	}
}

// FuzzPasskeyAnswers sends any JSON object through the RPC: each is refused, and none is
// an internal error.
func FuzzPasskeyAnswers(f *testing.F) {
	h := newPasskeyHarness(f)
	key := passkeytest.New(f, passkeytest.ES256)
	owed := h.begin(f)
	options := toJSON(f, owed.GetPasskeyOptions())
	for _, c := range passkeytest.Hostile(passkeyRPID, passkeyOrigin) {
		f.Add(c.Apply(func(changes ...passkeytest.Change) []byte { return key.SignIn(f, options, passkeyOrigin, changes...) }))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		message, ok := asStruct(response)
		if !ok || len(response) > webauthn.MaxResponse {
			return
		}
		_, err := h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
			ChallengeToken: owed.GetToken(), Proof: &authv1.Proof{Kind: &authv1.Proof_Passkey{Passkey: message}},
		})
		if reason := fault.Reason(err); reason != "PASSKEY_INVALID" && reason != "PASSKEY_UNKNOWN" {
			t.Errorf("%q: %v (reason %q), want PASSKEY_INVALID or PASSKEY_UNKNOWN", response, err, reason)
		}
	})
}
