package auth_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	"gatehouse/auth/factors"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

func administratorsNeedTwo(c *auth.Config) { c.SecondFactorRoles = []string{"admin"} }

func TestAnAdministratorGainsTheRoleByEnrolling(t *testing.T) {
	t.Parallel()
	h := newHarness(t, administratorsNeedTwo)
	account, tokens := h.signUp(t, "root@example.com", "admin", "editor")
	if roles := tokenClaims(t, tokens).Roles; !slices.Equal(roles, []string{"editor"}) {
		t.Errorf("at level 1 the token has the roles %v, want editor alone", roles)
	}
	p := &protected{h: h, account: account, origin: h.originOf(t, account.GetId())}
	p.enrol(t)
	if roles := tokenClaims(t, p.tokens).Roles; !slices.Equal(roles, []string{"admin", "editor"}) {
		t.Errorf("at level 2 the token has the roles %v, want admin and editor", roles)
	}
	_, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: p.origin})
	wantReason(t, err, connect.CodeFailedPrecondition, "FACTOR_REQUIRED")
	if n := h.count(t, "SELECT count(*) FROM auth.totp_factors"); n != 1 {
		t.Error("the refused removal removed the app")
	}
}

func TestTheFirstFactorOfARoleThatNeedsOneTakesAMailedCode(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail, administratorsNeedTwo)
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "root@example.com", Password: password, Roles: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.try(t.Context(), "root@example.com", password, "", ""); err != nil {
		t.Fatal(err)
	}
	h.post(t)
	p := &protected{h: h, account: response.GetAccount(), origin: h.originOf(t, response.GetAccount().GetId())}
	begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: p.origin})
	if err != nil || !begun.GetEmailCodeSent() {
		t.Fatalf("BeginTOTPEnrolment answered %v, %v, want that a code was mailed", begun, err)
	}
	code := h.mailed(t, "enrolment_code", "root@example.com").Values["code"]
	p.secret = secretOf(t, begun.GetSecret())
	finish := func(emailCode string) error {
		_, err := h.factors.FinishTOTPEnrolment(t.Context(), &authv1.FinishTOTPEnrolmentRequest{
			EnrolmentToken: begun.GetEnrolmentToken(), Code: p.code(t, 0), EmailCode: emailCode, Origin: p.origin,
		})
		return err
	}
	for _, wrong := range []string{"", "BCDFGHJK", code[:7]} {
		wantReason(t, finish(wrong), connect.CodeInvalidArgument, "CODE_WRONG")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.totp_factors"); n != 0 {
		t.Error("an app is enrolled without the mailed code")
	}
	if err := finish(" " + strings.ToLower(code) + " "); err != nil {
		t.Errorf("with the mailed code: %v", err)
	}
	// A replacement needs none: it takes the second factor.
	again, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: p.origin})
	if err != nil || again.GetEmailCodeSent() {
		t.Errorf("the second enrolment: %v, %v, want no mailed code", again, err)
	}
}

func TestAnUnverifiedEmailGetsNoFactorWhereMailCanBeSent(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, _ := h.signUp(t, "ada@example.com")
	origin := h.originOf(t, account.GetId())
	_, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: origin})
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED")
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	if _, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: origin}); err != nil {
		t.Errorf("once it is verified: %v", err)
	}
}

func TestAnEnrolmentNeedsARecentSignInAtTheAccountsLevel(t *testing.T) {
	t.Parallel()
	h := newHarness(t, remembering)
	account, _ := h.signUp(t, "ada@example.com")
	origin := h.originOf(t, account.GetId())
	begin := func(origin *authv1.Origin) error {
		_, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: origin})
		return err
	}
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '6 minutes'")
	wantReason(t, begin(origin), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now()")
	p := &protected{h: h, account: account, origin: origin}
	p.enrol(t)
	if _, ok := p.recognised(t, p.remember(t)); !ok {
		t.Fatal("the device is challenged")
	}
	wantReason(t, begin(h.originOf(t, account.GetId())), connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED")
	h.exec(t, "UPDATE auth.sessions SET second_factor_time = now() - interval '6 minutes' WHERE second_factor_time IS NOT NULL")
	wantReason(t, begin(origin), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	// A session of another account, or one that has ended, enrols nothing.
	other, _ := h.signUp(t, "bob@example.com")
	wantReason(t, begin(&authv1.Origin{AccountId: other.GetId(), SessionId: origin.GetSessionId()}), connect.CodeUnauthenticated, "SESSION_ENDED")
	h.exec(t, "UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test'")
	wantReason(t, begin(origin), connect.CodeUnauthenticated, "SESSION_ENDED")
}

func TestRemovingTheLastFactorLowersItsSessions(t *testing.T) {
	t.Parallel()
	h := newHarness(t, remembering)
	p := h.protect(t, "ada@example.com")
	p.forgetCodes(t)
	other, err := p.complete(t, p.login(t, "").GetToken(), p.code(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: p.origin}); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"its own": p.tokens.GetRefreshToken(), "the other": other.GetTokens().GetRefreshToken()} {
		refreshed, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: token, Origin: stranger})
		if err != nil {
			t.Fatalf("Refresh of %s session: %v", name, err)
		}
		wantLevel(t, refreshed.GetTokens(), "aal1", "pwd")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.recovery_codes") + h.count(t, "SELECT count(*) FROM auth.remembered_devices"); n != 0 {
		t.Errorf("%d recovery codes and devices are left, want none", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE second_factor OR factor_password_hash <> '' OR password_hash LIKE '%$AAAAAAAAAAAAAAAAAAAAAA$%'"); n != 0 {
		t.Error("the password's hash did not move back")
	}
	if _, err := h.try(t.Context(), "ada@example.com", password, "", ""); err != nil {
		t.Errorf("the password alone: %v", err)
	}
	// Removing it again succeeds and changes nothing.
	if _, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: p.origin}); err != nil {
		t.Errorf("the second removal: %v", err)
	}
}

func TestAnAdministratorResetsTheFactorsOfAnother(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail, remembering)
	admin, _ := h.signUp(t, "root@example.com", "admin")
	origin := h.originOf(t, admin.GetId())
	p := h.enrolFor(t, h.create(t, "ada@example.com", password))
	p.remember(t)
	h.post(t)
	_, err := h.factors.ResetFactors(t.Context(), &authv1.ResetFactorsRequest{AccountId: admin.GetId(), Origin: origin})
	wantReason(t, err, connect.CodePermissionDenied, "OWN_FACTORS")
	if _, err := h.factors.ResetFactors(t.Context(), &authv1.ResetFactorsRequest{AccountId: p.account.GetId(), ForcePasswordReset: true, Origin: origin}); err != nil {
		t.Fatal(err)
	}
	h.wantMails(t, "factors_reset ada@example.com", "reset_password ada@example.com")
	if n := h.count(t, `SELECT (SELECT count(*) FROM auth.totp_factors) + (SELECT count(*) FROM auth.recovery_codes) + (SELECT count(*) FROM auth.remembered_devices)
		+ (SELECT count(*) FROM auth.sessions WHERE account_id = $1 AND revoke_time IS NULL)`, p.account.GetId()); n != 0 {
		t.Errorf("%d factors, devices and live sessions are left, want none", n)
	}
	_, err = h.try(t.Context(), "ada@example.com", password, "", "")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'factor.reset' AND outcome = 'succeeded' AND account_id = $1 AND actor_id = $2", p.account.GetId(), admin.GetId()); n != 1 {
		t.Errorf("%d resets are audited, want 1", n)
	}
}

// Two administrators reset each other's factors: both attempts are audited, both keep the
// role, and one of them can sign in.
func TestAdministratorsWhoResetEachOtherDoNotLockEverybodyOut(t *testing.T) {
	t.Parallel()
	for range 10 {
		h := newHarness(t, withMail)
		var people []*protected
		for _, email := range []string{"one@example.com", "two@example.com"} {
			response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: email, Password: password, Roles: []string{"admin"}})
			if err != nil {
				t.Fatal(err)
			}
			people = append(people, h.enrolFor(t, response.GetAccount()))
		}
		var both sync.WaitGroup
		for i := range people {
			both.Go(func() {
				_, err := h.factors.ResetFactors(t.Context(), &authv1.ResetFactorsRequest{AccountId: people[1-i].account.GetId(), ForcePasswordReset: true, Origin: people[i].origin})
				if reason := fault.Reason(err); reason != "" && reason != "LAST_ADMINISTRATOR" {
					t.Errorf("ResetFactors: %v", err)
				}
			})
		}
		both.Wait()
		if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE password_hash <> '' AND 'admin' = ANY (roles)"); n != 1 {
			t.Errorf("%d administrators have a password, want 1", n)
		}
		if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE 'admin' = ANY (roles)"); n != 2 {
			t.Errorf("%d have the role, want 2", n)
		}
		if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'factor.reset'"); n != 2 {
			t.Errorf("%d resets are audited, want 2", n)
		}
	}
}

func TestAnOperatorHelpsTheLastAdministrator(t *testing.T) {
	t.Parallel()
	h := newHarness(t, administratorsNeedTwo)
	p := h.protect(t, "root@example.com", "admin")
	if has, err := h.service.ResetFactors(t.Context(), "ROOT@example.com"); err != nil || !has {
		t.Fatalf("ResetFactors: %t, %v, want that the password stays", has, err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE revoke_time IS NULL"); n != 0 {
		t.Errorf("%d sessions are alive, want none", n)
	}
	again := h.enrolFor(t, p.account)
	if roles := tokenClaims(t, again.tokens).Roles; !slices.Equal(roles, []string{"admin"}) {
		t.Errorf("after another enrolment the token has the roles %v, want admin", roles)
	}
	_, err := h.service.ResetFactors(t.Context(), "nobody@example.com")
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
}

func TestSecretsAreSealedAgainUnderTheNewestKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	h.protect(t, "bob@example.com")
	store := factors.Store{DB: database.Retrying(h.config.DB), Secrets: [][]byte{secretTwo, secretOne}, Logger: slog.New(slog.DiscardHandler)}
	check := func(secrets ...[]byte) error {
		conn, err := h.config.DB.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		return factors.CheckSecrets(t.Context(), conn.Conn(), secrets)
	}
	if err := check(secretTwo); err == nil {
		t.Error("the newest key alone is accepted before the secrets are sealed with it")
	}
	if err := store.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := check(secretTwo); err != nil {
		t.Errorf("the newest key alone: %v", err)
	}
	if err := (&factors.Store{DB: store.DB, Secrets: [][]byte{secretOne}, Logger: store.Logger}).Reseal(context.Background()); err == nil {
		t.Error("the older key alone seals what it cannot open")
	}
	config := h.config
	config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, config)
	p.forgetCodes(t)
	if _, err := p.complete(t, p.login(t, "").GetToken(), p.code(t, 0)); err != nil {
		t.Errorf("a code after the change of the key: %v", err)
	}
}
