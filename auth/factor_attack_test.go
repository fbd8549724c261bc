package auth_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// Of 1,000 guesses over 20 addresses and 50 challenges, by somebody who knows the
// password, only as many are evaluated as the throttle of second factors allows.
func TestGuessedCodesMeetTheThrottle(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	p := h.protect(t, "ada@example.com")
	p.forgetCodes(t)
	own, err := p.complete(t, p.login(t, "").GetToken(), p.code(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	// A device token that a guesser got by the password alone, before the enrolment.
	var planted string
	err = h.owner.QueryRow(t.Context(), "UPDATE auth.sessions SET second_factor_time = NULL WHERE id = $1 RETURNING device_id::text", p.origin.GetSessionId()).Scan(&planted)
	if err != nil {
		t.Fatal(err)
	}
	challenges := make([]string, 50)
	for i := range challenges {
		challenges[i] = p.login(t, "").GetToken()
	}
	h.exec(t, "UPDATE auth.challenges SET device_id = $1 WHERE end_time IS NULL", planted)
	wrong := p.wrongCode(t)
	start := time.Now()
	answers := map[string]int{}
	for n := range 1000 {
		_, err := h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
			ChallengeToken: challenges[n%len(challenges)], Proof: totpProof(wrong), Origin: &authv1.Origin{IpAddress: fmt.Sprintf("203.0.113.%d", n%20+1)},
		})
		answers[fault.Reason(err)]++
		if n%100 == 50 { // a right password clears nothing
			p.login(t, "")
		}
	}
	// Five are free, and the wait then doubles from one second.
	took := time.Since(start)
	if most := 5 + int(math.Log2(took.Seconds()+1)) + 1; answers["CODE_WRONG"] < 5 || answers["CODE_WRONG"] > most {
		t.Errorf("of 1,000 guesses in %s, these answers: %v; want 5 to %d evaluated", took, answers, most)
	}
	if answers["CODE_WRONG"]+answers["TOO_MANY_ATTEMPTS"] != 1000 {
		t.Errorf("1,000 guesses got the answers %v", answers)
	}
	// The owner, on a device that gave a second factor before, gets in.
	h.holdWaits(t)
	p.forgetCodes(t)
	if _, err := p.complete(t, p.login(t, own.GetDeviceToken()).GetToken(), p.code(t, 0)); err != nil {
		t.Errorf("the owner's device: %v", err)
	}
	p.forgetCodes(t)
	_, err = p.complete(t, p.login(t, "").GetToken(), p.code(t, 0))
	wantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS")
}

func TestAChallengeIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	admin, _ := h.signUp(t, "root@example.com", "admin")
	byAdmin := &authv1.Origin{AccountId: admin.GetId()}
	for name, test := range map[string]struct {
		change func(t *testing.T, p *protected) // of the account that owes the code
		code   connect.Code
		reason string
	}{
		"expired": {func(t *testing.T, p *protected) {
			h.exec(t, "UPDATE auth.challenges SET expire_time = now() WHERE account_id = $1", p.account.GetId())
		}, connect.CodeFailedPrecondition, "CHALLENGE_EXPIRED"},
		"after a password change": {func(t *testing.T, p *protected) {
			if _, err := h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: newPassword, Origin: p.origin}); err != nil {
				t.Fatal(err)
			}
		}, connect.CodeFailedPrecondition, "CHALLENGE_SUPERSEDED"},
		"after a password reset": {func(t *testing.T, p *protected) {
			if err := h.service.SetPassword(t.Context(), p.account.GetEmail(), newPassword); err != nil {
				t.Fatal(err)
			}
		}, connect.CodeFailedPrecondition, "CHALLENGE_SUPERSEDED"},
		"after disable": {func(t *testing.T, p *protected) {
			if _, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{
				AccountId: p.account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED, Origin: byAdmin,
			}); err != nil {
				t.Fatal(err)
			}
		}, connect.CodeFailedPrecondition, "CHALLENGE_SUPERSEDED"},
		"after an administrator's reset": {func(t *testing.T, p *protected) {
			if _, err := h.factors.ResetFactors(t.Context(), &authv1.ResetFactorsRequest{AccountId: p.account.GetId(), Origin: byAdmin}); err != nil {
				t.Fatal(err)
			}
		}, connect.CodeFailedPrecondition, "CHALLENGE_SUPERSEDED"},
		"after the account was deleted": {func(t *testing.T, p *protected) {
			if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: p.account.GetId(), Origin: byAdmin}); err != nil {
				t.Fatal(err)
			}
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"after five wrong codes": {func(t *testing.T, p *protected) {
			for range 5 {
				_, err := p.complete(t, p.challenge, p.wrongCode(t))
				wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
			}
		}, connect.CodeFailedPrecondition, "CHALLENGE_EXHAUSTED"},
		"of another purpose": {func(t *testing.T, p *protected) {
			stepUp, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: p.origin, AcceptsChallenge: true})
			if err != nil {
				t.Fatal(err)
			}
			p.challenge = stepUp.GetChallenge().GetToken()
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"of an enrolment": {func(t *testing.T, p *protected) {
			begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: p.origin})
			if err != nil {
				t.Fatal(err)
			}
			p.challenge = begun.GetEnrolmentToken()
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"made up": {func(_ *testing.T, p *protected) {
			p.challenge = p.challenge[:len(p.challenge)-4] + "AAAA"
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"of another account": {func(t *testing.T, p *protected) { // whose code this one is not
			other := h.protect(t, "other-"+p.account.GetEmail())
			p.challenge = other.login(t, "").GetToken()
		}, connect.CodeInvalidArgument, "CODE_WRONG"},
	} {
		// Not in parallel: a test that waits for its turn longer than a minute has keys
		// that no longer sign.
		t.Run(name, func(t *testing.T) {
			p := h.protect(t, newID(t)+"@example.com")
			p.forgetCodes(t)
			p.challenge = p.login(t, "").GetToken()
			before := h.count(t, "SELECT count(*) FROM auth.sessions WHERE account_id = $1", p.account.GetId())
			test.change(t, p)
			_, err := p.complete(t, p.challenge, p.code(t, 0))
			wantReason(t, err, test.code, test.reason)
			if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE account_id = $1", p.account.GetId()); n > before {
				t.Errorf("a session began: %d, then %d", before, n)
			}
		})
	}
}

// A sign-in by password never leaves a session that a second factor was not asked for,
// if one was enrolled before it ended.
func TestASignInDuringAnEnrolmentIsChallenged(t *testing.T) {
	t.Parallel()
	const rounds = 1000
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	p := &protected{h: h, account: account, origin: h.originOf(t, account.GetId())}
	// A hash that is quick to check: the interleavings are those of transactions.
	var challenged, began int
	for round := range rounds {
		if round%50 == 0 { // as Run does: keys that were read long ago do not sign
			if err := h.service.ReadKeysForTest(t.Context(), time.Now()); err != nil {
				t.Fatal(err)
			}
			// On a busy machine the rounds take longer than a sign-in is recent.
			h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() WHERE id = $1", p.origin.GetSessionId())
		}
		begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: p.origin})
		if err != nil {
			t.Fatal(err)
		}
		p.secret = secretOf(t, begun.GetSecret())
		code := p.code(t, 0)
		h.exec(t, "UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test' WHERE account_id = $1 AND id <> $2 AND revoke_time IS NULL", account.GetId(), p.origin.GetSessionId())
		var both sync.WaitGroup
		var login *authv1.LoginResponse
		var loginErr, enrolErr error
		both.Go(func() {
			login, loginErr = h.admitForTest(t.Context(), account)
		})
		both.Go(func() {
			_, enrolErr = h.factors.FinishTOTPEnrolment(t.Context(), &authv1.FinishTOTPEnrolmentRequest{
				EnrolmentToken: begun.GetEnrolmentToken(), Code: code, Origin: p.origin,
			})
		})
		both.Wait()
		if loginErr != nil || enrolErr != nil {
			t.Fatalf("Login: %v; FinishTOTPEnrolment: %v", loginErr, enrolErr)
		}
		switch {
		case login.GetChallenge() != nil:
			challenged++
		case h.count(t, `SELECT count(*) FROM auth.sessions s JOIN auth.totp_factors f USING (account_id)
			WHERE s.account_id = $1 AND s.id <> $2 AND s.revoke_time IS NULL AND s.create_time > f.create_time`, account.GetId(), p.origin.GetSessionId()) > 0:
			t.Fatal("a session began after the enrolment without the second factor")
		default:
			began++
		}
		if _, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: p.origin}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("of %d sign-ins, %d were challenged and %d began before the enrolment", rounds, challenged, began)
	if challenged == 0 || began == 0 {
		t.Errorf("of %d sign-ins, %d were challenged and %d not: the two did not interleave", rounds, challenged, began)
	}
}

// Guarantee 5: neither the answer to a wrong password nor its time tells whether an
// account has a second factor, or exists.
func TestNobodyLearnsWhoHasASecondFactor(t *testing.T) {
	t.Parallel()
	const insert = `
		INSERT INTO auth.accounts (id, email, second_factor, password_hash, factor_password_hash)
		SELECT gen_random_uuid(), 'person' || n || $1, $2, CASE WHEN $2 THEN a.password_hash ELSE a.factor_password_hash END,
			CASE WHEN $2 THEN a.factor_password_hash ELSE '' END
		FROM auth.accounts a, generate_series(10000, 10000 + $3 - 1) n WHERE a.email = 'ada@example.com'`
	for name, without := range map[string]bool{"accounts without one": true, "no accounts": false} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.protect(t, "ada@example.com")
			h.exec(t, insert, "@there.example", true, 2*samples)
			if without {
				h.exec(t, insert, "@never.example", false, 2*samples)
			}
			h.exec(t, "ANALYZE auth.accounts")
			var seen []float64
			for try := range 2 { // as in TestNobodyLearnsWhoHasAnAccount
				with, others := h.timeBoth(t, try*samples, func(email string) (proto.Message, error) {
					return h.sessions.Login(t.Context(), &authv1.LoginRequest{
						Email: email, Password: "a wrong password", AcceptsChallenge: true, Origin: &authv1.Origin{IpAddress: "192.0.2.1"},
					})
				})
				area := areaUnderCurve(with, others)
				t.Logf("area %.3f; medians %v with a second factor, %v for %s", area, median(with), median(others), name)
				if area > 0.45 && area < 0.55 {
					return
				}
				seen = append(seen, area)
			}
			t.Errorf("the time of %d calls a side tells who has a second factor: areas %.3f, want 0.45 to 0.55", samples, seen)
		})
	}
}

func TestTheOwnerGetsAMailAboutAWrongCode(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail, func(c *auth.Config) { c.Registration = auth.RegistrationOpen })
	account := h.create(t, "ada@example.com", password)
	p := h.enrolFor(t, account)
	h.post(t)
	challenge := p.login(t, "").GetToken()
	for range 3 {
		_, err := p.complete(t, challenge, p.wrongCode(t))
		wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	}
	h.wantMails(t, "second_factor_failed ada@example.com")
	h.exec(t, "UPDATE auth.accounts SET factor_alert_time = factor_alert_time - interval '61 minutes'")
	_, err := p.complete(t, challenge, p.wrongCode(t))
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	h.wantMails(t, "second_factor_failed ada@example.com")
	if _, err := h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: challenge, Proof: recoveryProof(p.recovery[0]), Origin: stranger}); err != nil {
		t.Fatal(err)
	}
	sent := h.post(t)
	if len(sent) == 0 || sent[0].Kind != "recovery_code_used" || sent[0].Values["codes_left"] != "9" {
		t.Errorf("after a recovery code these mails were sent: %+v, want one that says that 9 are left", sent)
	}
}

// admitForTest begins a session of an account as Login does after the right password.
func (h *harness) admitForTest(ctx context.Context, account *authv1.Account) (*authv1.LoginResponse, error) {
	return h.service.AdmitForTest(ctx, account.GetId())
}

// enrolFor signs in to an account, and enrols an app.
func (h *harness) enrolFor(t *testing.T, account *authv1.Account) *protected {
	t.Helper()
	if _, err := patiently(func() (*authv1.LoginResponse, error) {
		return h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: account.GetEmail(), Password: password, Origin: stranger})
	}); err != nil {
		t.Fatalf("Login: %v", err)
	}
	p := &protected{h: h, account: account, origin: h.originOf(t, account.GetId())}
	p.enrol(t)
	return p
}
