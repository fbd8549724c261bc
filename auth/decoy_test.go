package auth_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	hashing "gatehouse/internal/password"
)

// What a binary older than schema number 8 reads and writes of an account with a second
// factor.
func TestAnOlderBinaryCannotSignInToAnAccountWithASecondFactor(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	var real, decoy, stored string
	read := func(hash *string) {
		t.Helper()
		if err := h.owner.QueryRow(t.Context(), `SELECT password_hash, factor_password_hash FROM auth.accounts`).Scan(hash, &stored); err != nil {
			t.Fatal(err)
		}
	}
	read(&real)
	h.enrol(t, account.GetId())
	read(&decoy)
	if stored != real || decoy == real {
		t.Errorf("the account has the hash %q and the decoy %q, want the true hash %q beside another one", stored, decoy, real)
	}
	// The check has to cost what it always costs, and to say no more than "wrong".
	hasher := hashing.NewHasher()
	right, outdated, err := hasher.Check(t.Context(), hashing.Caller{Class: hashing.Stranger}, password, decoy)
	if right || outdated || err != nil || hasher.Count() != 1 {
		t.Errorf("the older check: got right %t, outdated %t, %v after %d hashes; want a wrong password after one", right, outdated, err, hasher.Count())
	}
	for name, statement := range map[string]string{
		"ResetPassword": `UPDATE auth.accounts SET password_hash = $1, email_verified = true WHERE id = $2`,
		"Login":         `UPDATE auth.accounts SET last_sign_in_time = clock_timestamp(), password_hash = $1 WHERE id = $2`,
	} {
		if _, err := h.owner.Exec(t.Context(), statement, real, account.GetId()); !database.Violates(err, "accounts_decoy") {
			t.Errorf("the older %s wrote a true hash: got %v, want a violation of accounts_decoy", name, err)
		}
	}
	// The newer one signs in, and a new password stays behind a decoy.
	owed := h.challenged(t, "ada@example.com")
	done, err := h.complete(t, owed.GetToken(), rightCode, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{
		CurrentPassword: password, NewPassword: newPassword, Origin: &authv1.Origin{AccountId: account.GetId(), SessionId: sessionOf(t, done.GetTokens().GetRefreshToken())},
	})
	if err != nil {
		t.Fatalf("ChangePassword: %v", err)
	}
	var after string
	read(&after)
	if stored == real || !strings.HasPrefix(after, "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$") {
		t.Errorf("after a change the account has the hash %q and the decoy %q", stored, after)
	}
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	// An older ForcePasswordReset removes the password.
	h.exec(t, `UPDATE auth.accounts SET password_hash = '' WHERE id = $1`, account.GetId())
	_, err = h.login(t, "ada@example.com", newPassword)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
}

// Somebody registers an address that is not theirs, and attaches what lets them back in.
// Its owner proves it by a link.
func TestWhatWasPlantedBeforeTheAddressWasProvenIsRemoved(t *testing.T) {
	t.Parallel()
	for name, prove := range map[string]func(h *harness) error{
		"VerifyEmail": func(h *harness) error {
			_, err := h.verify(t, h.mailed(t, "verify_email", "ada@example.com").Token)
			return err
		},
		"ResetPassword": func(h *harness) error {
			h.post(t)
			h.requestReset(t, "ada@example.com")
			return h.reset(t, h.mailed(t, "reset_password", "ada@example.com").Token)
		},
	} {
		h := newFactorHarness(t, withMail)
		account, planted := h.signUp(t, "ada@example.com")
		h.plant(t, account.GetId())
		owed := h.challenged(t, "ada@example.com")
		if err := prove(h); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, table := range []string{"totp_factors", "recovery_codes", "passkeys", "remembered_devices"} {
			if n := h.count(t, `SELECT count(*) FROM auth.`+table); n != 0 {
				t.Errorf("%s left %d rows of %s", name, n, table)
			}
		}
		_, err := h.complete(t, owed.GetToken(), rightCode, "")
		wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID")
		_, err = h.refresh(t, planted.GetRefreshToken(), "")
		wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
		_, err = h.login(t, "ada@example.com", password)
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		if response, err := h.login(t, "ada@example.com", newPassword); err != nil || response.GetTokens() == nil {
			t.Errorf("%s: the owner signs in: got %v, %v, want tokens", name, response, err)
		}
	}
}

// plant attaches a row of each kind to an account.
func (h *harness) plant(t *testing.T, account string) {
	t.Helper()
	h.enrol(t, account)
	h.exec(t, `INSERT INTO auth.recovery_codes (code_hash, account_id) VALUES (sha256('one'), $1)`, account)
	h.exec(t, `INSERT INTO auth.passkeys (id, account_id, credential_id, record, rp_id, aaguid, name) VALUES (gen_random_uuid(), $1, 'id', '{}', 'localhost', gen_random_uuid(), 'key')`, account)
	h.exec(t, `INSERT INTO auth.remembered_devices (device_id, account_id, expire_time) VALUES (gen_random_uuid(), $1, now() + interval '1 day')`, account)
	h.exec(t, `UPDATE auth.accounts SET has_sign_in = true WHERE id = $1`, account)
}

// A verified account keeps its second factor when its password is reset by mail: the
// mailbox is not the second factor.
func TestAResetLeavesTheSecondFactorOfAVerifiedAccount(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t, withMail)
	account, _ := h.signUp(t, "ada@example.com")
	h.exec(t, `UPDATE auth.accounts SET email_verified = true`)
	h.plant(t, account.GetId())
	h.post(t)
	h.requestReset(t, "ada@example.com")
	if err := h.reset(t, h.mailed(t, "reset_password", "ada@example.com").Token); err != nil {
		t.Fatal(err)
	}
	if response, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: newPassword, AcceptsChallenge: true}); err != nil || response.GetChallenge() == nil {
		t.Errorf("Login after the reset: got %v, %v, want a challenge", response, err)
	}
}
