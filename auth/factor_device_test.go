package auth_test

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

// remember signs in with the second factor, and returns the token of the device, which is
// remembered.
func (p *protected) remember(t testing.TB) string {
	t.Helper()
	p.forgetCodes(t)
	response, err := p.h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
		ChallengeToken: p.login(t, "").GetToken(), Proof: totpProof(p.code(t, 0)), RememberDevice: true, Origin: stranger,
	})
	if err != nil {
		t.Fatalf("CompleteLogin: %v", err)
	}
	return response.GetDeviceToken()
}

// recognised reports whether a device needs no second factor, and returns its next token.
func (p *protected) recognised(t testing.TB, device string) (string, bool) {
	t.Helper()
	response, err := p.tryLogin(t, device)
	if err != nil {
		t.Fatalf("Login: %v", err)
	}
	if response.GetTokens() != nil {
		wantLevel(t, response.GetTokens(), "aal1", "pwd", "rba")
	}
	return response.GetDeviceToken(), response.GetTokens() != nil
}

func TestARememberedDeviceSkipsTheSecondFactor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, remembering)
	p := h.protect(t, "ada@example.com")
	device := p.remember(t)
	next, ok := p.recognised(t, device)
	if !ok {
		t.Fatal("the device is challenged")
	}
	if next == device {
		t.Error("the sign-in did not replace the device token")
	}
	// A copy of the token that was replaced is challenged, and the device itself is not.
	if _, ok := p.recognised(t, device); ok {
		t.Error("a token that was replaced skips the second factor")
	}
	if next, ok = p.recognised(t, next); !ok {
		t.Error("the next token does not skip the second factor")
	}
	// It is no recent sign-in, and no level.
	p.origin = h.originOf(t, p.account.GetId())
	_, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: p.origin})
	wantReason(t, err, connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED")
	// A token of another account's device counts as none.
	other := h.protect(t, "bob@example.com")
	if _, ok := other.recognised(t, next); ok {
		t.Error("a device of ada skips the second factor of bob")
	}
	// One that was signed in on without being remembered is challenged.
	other.forgetCodes(t)
	known, err := other.complete(t, other.login(t, "").GetToken(), other.code(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := other.recognised(t, known.GetDeviceToken()); ok {
		t.Error("a device that nobody asked to remember skips the second factor")
	}
	// It expires.
	h.exec(t, "UPDATE auth.remembered_devices SET expire_time = now()")
	if _, ok := p.recognised(t, next); ok {
		t.Error("a remembered device skips the second factor after it has expired")
	}
}

func TestADeviceIsForgotten(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(context.Context, *protected) error{
		"password change": func(ctx context.Context, p *protected) error {
			_, err := p.h.accounts.ChangePassword(ctx, &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: newPassword, Origin: p.origin})
			p.h.exec(p.t, "UPDATE auth.accounts SET factor_password_hash = $1 WHERE id = $2", p.hash, p.account.GetId())
			return err
		},
		"password reset": func(ctx context.Context, p *protected) error {
			err := p.h.service.SetPassword(ctx, p.account.GetEmail(), password)
			return err
		},
		"change of factors": func(ctx context.Context, p *protected) error {
			_, err := p.h.factors.RegenerateRecoveryCodes(ctx, &authv1.RegenerateRecoveryCodesRequest{Origin: p.origin})
			return err
		},
		"another app": func(_ context.Context, p *protected) error {
			p.enrol(p.t)
			return nil
		},
		"disable": func(ctx context.Context, p *protected) error {
			for _, status := range []authv1.AccountStatus{authv1.AccountStatus_ACCOUNT_STATUS_DISABLED, authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE} {
				if _, err := p.h.accounts.SetAccountStatus(ctx, &authv1.SetAccountStatusRequest{AccountId: p.account.GetId(), Status: status}); err != nil {
					return err
				}
			}
			return nil
		},
		"RevokeAllSessions": func(ctx context.Context, p *protected) error {
			_, err := p.h.sessions.RevokeSessions(ctx, &authv1.RevokeSessionsRequest{AccountId: p.account.GetId(), Origin: p.origin})
			return err
		},
		"email change": func(ctx context.Context, p *protected) error {
			changed, err := p.h.accounts.ChangeAccountEmail(ctx, &authv1.ChangeAccountEmailRequest{AccountId: p.account.GetId(), Email: "lovelace@example.com"})
			p.account = changed.GetAccount()
			return err
		},
		"its owner": func(ctx context.Context, p *protected) error {
			_, err := p.h.factors.ForgetDevices(ctx, &authv1.ForgetDevicesRequest{Origin: p.origin})
			return err
		},
		"its owner, one device": func(ctx context.Context, p *protected) error {
			listed, err := p.h.factors.ListFactors(ctx, &authv1.ListFactorsRequest{AccountId: p.account.GetId()})
			if err != nil {
				return err
			}
			_, err = p.h.factors.ForgetDevices(ctx, &authv1.ForgetDevicesRequest{DeviceId: listed.GetRememberedDevices()[0].GetDeviceId(), Origin: p.origin})
			return err
		},
		"administrator's reset": func(ctx context.Context, p *protected) error {
			_, err := p.h.factors.ResetFactors(ctx, &authv1.ResetFactorsRequest{AccountId: p.account.GetId(), Origin: &authv1.Origin{AccountId: newID(p.t)}})
			if err != nil {
				return err
			}
			if _, err := patiently(func() (*authv1.LoginResponse, error) {
				return p.h.sessions.Login(ctx, &authv1.LoginRequest{Email: p.account.GetEmail(), Password: password, Origin: stranger})
			}); err != nil {
				return err
			}
			p.origin = p.h.originOf(p.t, p.account.GetId())
			p.enrol(p.t)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, remembering)
			p := h.protect(t, "ada@example.com")
			p.t = t
			if err := h.owner.QueryRow(t.Context(), "SELECT factor_password_hash FROM auth.accounts").Scan(&p.hash); err != nil {
				t.Fatal(err)
			}
			device, ok := p.recognised(t, p.remember(t))
			if !ok {
				t.Fatal("the device is challenged at once")
			}
			if err := forget(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if _, ok := p.recognised(t, device); ok {
				t.Error("the device still skips the second factor")
			}
			if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE revoke_time IS NULL AND 'rba' = ANY (amr)"); n != 0 {
				t.Errorf("%d live sessions still say that their device is remembered", n)
			}
		})
	}
}

func TestAForgottenDeviceNoLongerSatisfiesARequiredSecondFactor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, remembering)
	p := h.protect(t, "ada@example.com")
	response, err := p.tryLogin(t, p.remember(t))
	if err != nil {
		t.Fatal(err)
	}
	wantLevel(t, response.GetTokens(), "aal1", "pwd", "rba")
	before := response.GetAccount().GetAuthzVersion()
	if _, err := h.factors.ForgetDevices(t.Context(), &authv1.ForgetDevicesRequest{Origin: p.origin}); err != nil {
		t.Fatal(err)
	}
	refreshed, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: response.GetTokens().GetRefreshToken(), Origin: stranger})
	if err != nil {
		t.Fatal(err)
	}
	wantLevel(t, refreshed.GetTokens(), "aal1", "pwd")
	// The access tokens that say more are revoked.
	if n := h.count(t, "SELECT count(*) FROM auth.revocations WHERE account_id = $1 AND least_version > $2", p.account.GetId(), before); n == 0 {
		t.Error("the access tokens from before are not revoked")
	}
}

func TestNoDeviceIsRememberedWhereItIsOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	if _, ok := p.recognised(t, p.remember(t)); ok {
		t.Error("a device is remembered")
	}
	// Nor one that was remembered while it was on.
	h.exec(t, `INSERT INTO auth.remembered_devices (device_id, account_id, expire_time)
		SELECT device_id, account_id, now() + interval '1 day' FROM auth.sessions`)
	if _, ok := p.recognised(t, p.remember(t)); ok {
		t.Error("a device from before is remembered")
	}
}

func TestADeviceThatAPlanterHadRememberedIsVoid(t *testing.T) {
	t.Parallel()
	h := newHarness(t, remembering)
	p := h.protect(t, "ada@example.com") // unverified, as without mail
	device := p.remember(t)
	// As a binary older than schema number 8 does.
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	if _, ok := p.recognised(t, device); ok {
		t.Error("a device from before the email was verified skips the second factor")
	}
	// Those of the owner are not.
	if _, ok := p.recognised(t, p.remember(t)); !ok {
		t.Error("a device from after is challenged")
	}
}
