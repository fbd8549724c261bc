package auth_test

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	"gatehouse/auth/totp"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// remembering remembers devices.
func remembering(c *auth.Config) { c.RememberDevice = 30 * 24 * time.Hour }

// protected is an account with an authenticator app, and the session that enrolled it.
type protected struct {
	h         *harness
	account   *authv1.Account
	origin    *authv1.Origin // of the session
	tokens    *authv1.Tokens
	secret    totp.Secret
	recovery  []string
	t         testing.TB // of functions in tables
	challenge string
	hash      string // of the password
}

// originOf returns the origin of an account's latest session.
func (h *harness) originOf(t testing.TB, account string) *authv1.Origin {
	t.Helper()
	var session string
	err := h.owner.QueryRow(t.Context(), "SELECT id::text FROM auth.sessions WHERE account_id = $1 ORDER BY id DESC LIMIT 1", account).Scan(&session)
	if err != nil {
		t.Fatalf("look for a session of %s: %v", account, err)
	}
	return &authv1.Origin{AccountId: account, SessionId: session, IpAddress: "198.51.100.1", UserAgent: "Firefox"}
}

// protect signs up and enrols an authenticator app.
func (h *harness) protect(t testing.TB, email string, roles ...string) *protected {
	t.Helper()
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: email, Password: password, Roles: roles, SignIn: true,
	})
	if err != nil {
		t.Fatalf("CreateAccount %s: %v", email, err)
	}
	p := &protected{h: h, account: response.GetAccount(), origin: h.originOf(t, response.GetAccount().GetId())}
	p.enrol(t)
	return p
}

// enrol enrols an app instead of an earlier one.
func (p *protected) enrol(t testing.TB) {
	t.Helper()
	begun, err := p.h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: p.origin})
	if err != nil {
		t.Fatalf("BeginTOTPEnrolment: %v", err)
	}
	p.secret = secretOf(t, begun.GetSecret())
	finished, err := p.h.factors.FinishTOTPEnrolment(t.Context(), &authv1.FinishTOTPEnrolmentRequest{
		EnrolmentToken: begun.GetEnrolmentToken(), Code: p.code(t, 0), Origin: p.origin,
	})
	if err != nil {
		t.Fatalf("FinishTOTPEnrolment: %v", err)
	}
	p.recovery, p.tokens = finished.GetRecoveryCodes(), finished.GetTokens()
}

func secretOf(t testing.TB, text string) totp.Secret {
	t.Helper()
	raw, err := base32.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatalf("the secret %q: %v", text, err)
	}
	return totp.Secret(raw)
}

// step returns the current step, on Postgres' clock.
func (p *protected) step(t testing.TB) (step int64) {
	t.Helper()
	if err := p.h.owner.QueryRow(t.Context(), "SELECT floor(extract(epoch FROM clock_timestamp()) / 30)::bigint").Scan(&step); err != nil {
		t.Fatal(err)
	}
	return step
}

// code returns the code of the step that is so many after the current one.
func (p *protected) code(t testing.TB, steps int64) string {
	t.Helper()
	return p.secret.Code(p.step(t) + steps)
}

// forgetCodes makes codes that were used usable again, as if they were long past.
func (p *protected) forgetCodes(t testing.TB) {
	t.Helper()
	p.h.exec(t, "UPDATE auth.totp_factors SET last_step = 0 WHERE account_id = $1", p.account.GetId())
}

// login signs in by the password and returns the challenge.
func (p *protected) login(t testing.TB, device string) *authv1.Challenge {
	t.Helper()
	response, err := p.tryLogin(t, device)
	if err != nil {
		t.Fatalf("Login: %v", err)
	}
	if response.GetTokens() != nil || response.GetChallenge().GetToken() == "" {
		t.Fatalf("Login answered %v, want a challenge and no tokens", response)
	}
	return response.GetChallenge()
}

func (p *protected) tryLogin(t testing.TB, device string) (*authv1.LoginResponse, error) {
	t.Helper()
	return patiently(func() (*authv1.LoginResponse, error) {
		return p.h.sessions.Login(t.Context(), &authv1.LoginRequest{
			Email: p.account.GetEmail(), Password: password, DeviceToken: device, AcceptsChallenge: true, Origin: stranger,
		})
	})
}

var stranger = &authv1.Origin{IpAddress: "198.51.100.7", UserAgent: "Firefox"}

func (p *protected) complete(t testing.TB, challenge, code string) (*authv1.CompleteLoginResponse, error) {
	t.Helper()
	return p.h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: challenge, Proof: totpProof(code), Origin: stranger})
}

func totpProof(code string) *authv1.Proof {
	return &authv1.Proof{Kind: &authv1.Proof_TotpCode{TotpCode: code}}
}

func recoveryProof(code string) *authv1.Proof {
	return &authv1.Proof{Kind: &authv1.Proof_RecoveryCode{RecoveryCode: code}}
}

// claims of an access token.
type claims struct {
	ACR   string   `json:"acr"`
	AMR   []string `json:"amr"`
	Roles []string `json:"roles"`
	SID   string   `json:"sid"`
}

func tokenClaims(t testing.TB, tokens *authv1.Tokens) (found claims) {
	t.Helper()
	parts := strings.Split(tokens.GetAccessToken(), ".")
	if len(parts) != 3 {
		t.Fatalf("no access token: %v", tokens)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func wantLevel(t testing.TB, tokens *authv1.Tokens, acr string, amr ...string) {
	t.Helper()
	got := tokenClaims(t, tokens)
	slices.Sort(got.AMR)
	if got.ACR != acr || !slices.Equal(got.AMR, amr) {
		t.Errorf("the token has acr %s and amr %v, want %s and %v", got.ACR, got.AMR, acr, amr)
	}
}

func TestASecondFactorIsAskedAfterThePassword(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	wantLevel(t, p.tokens, "aal2", "mfa", "otp", "pwd")
	if len(p.recovery) != 10 {
		t.Errorf("got %d recovery codes, want 10", len(p.recovery))
	}
	p.forgetCodes(t)
	challenge := p.login(t, "")
	if want := []string{"totp", "recovery_code"}; !slices.Equal(challenge.GetMethods(), want) || challenge.GetExpiresIn() != 600 {
		t.Errorf("the challenge has the methods %v for %d s, want %v for 600 s", challenge.GetMethods(), challenge.GetExpiresIn(), want)
	}
	signedIn, err := p.complete(t, challenge.GetToken(), p.code(t, 0))
	if err != nil {
		t.Fatalf("CompleteLogin: %v", err)
	}
	wantLevel(t, signedIn.GetTokens(), "aal2", "mfa", "otp", "pwd")
	refreshed, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: signedIn.GetTokens().GetRefreshToken(), Origin: stranger})
	if err != nil {
		t.Fatalf("Refresh: %v", err)
	}
	wantLevel(t, refreshed.GetTokens(), "aal2", "mfa", "otp", "pwd")
	// The session that enrolled continues with its new tokens.
	if _, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: p.tokens.GetRefreshToken(), Origin: p.origin}); err != nil {
		t.Errorf("Refresh of the session that enrolled: %v", err)
	}
	listed, err := h.factors.ListFactors(t.Context(), &authv1.ListFactorsRequest{AccountId: p.account.GetId()})
	if err != nil || listed.GetTotp().GetLastUsedTime() == nil || listed.GetRecoveryCodesLeft() != 10 || len(listed.GetRememberedDevices()) != 0 {
		t.Errorf("ListFactors answered %v, %v", listed, err)
	}
	// A gateway that cannot show a challenge says nothing about it.
	_, err = patiently(func() (*authv1.LoginResponse, error) {
		return h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: password, Origin: stranger})
	})
	wantReason(t, err, connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED")
}

func TestOnlyCodesAroundTheCurrentStepAreAccepted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	for _, steps := range []int64{-2, 2, -1, 0, 1} {
		var err error
		for at := int64(0); at != p.step(t); { // again if a new step has begun meanwhile
			p.forgetCodes(t)
			challenge := p.login(t, "").GetToken()
			at = p.step(t)
			_, err = p.complete(t, challenge, p.secret.Code(at+steps))
		}
		if steps == -2 || steps == 2 {
			wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
		} else if err != nil {
			t.Errorf("the code of step %+d: %v", steps, err)
		}
	}
	// After the code of the next step, the current one is refused.
	_, err := p.complete(t, p.login(t, "").GetToken(), p.code(t, 0))
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
}

func TestACodeWorksOnceAndNotAfterTheEnrolmentThatItConfirmed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	var used int64
	if err := h.owner.QueryRow(t.Context(), "SELECT last_step FROM auth.totp_factors").Scan(&used); err != nil {
		t.Fatal(err)
	}
	code := p.secret.Code(used)
	_, err := p.complete(t, p.login(t, "").GetToken(), code)
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	reauthenticated, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: p.origin, AcceptsChallenge: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{
		ChallengeToken: reauthenticated.GetChallenge().GetToken(), Proof: totpProof(code), Origin: p.origin,
	})
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	// A wrong code and a used one get the same answer.
	_, wrong := p.complete(t, p.login(t, "").GetToken(), "000000")
	_, again := p.complete(t, p.login(t, "").GetToken(), code)
	if wrong.Error() != again.Error() || connect.CodeOf(wrong) != connect.CodeOf(again) {
		t.Errorf("a wrong code answers %v, a used one %v", wrong, again)
	}
	// The next one is accepted, once.
	next := p.secret.Code(used + 1)
	challenge := p.login(t, "").GetToken()
	if _, err := p.complete(t, challenge, next); err != nil {
		t.Errorf("the next code: %v", err)
	}
	_, err = p.complete(t, challenge, next)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	_, err = p.complete(t, p.login(t, "").GetToken(), next)
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
}

func TestOneCodeBeginsOneSessionOnAllCopies(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	copies := []*harness{h}
	for range 2 {
		other := &harness{owner: h.owner}
		config := h.config
		config.DB = openPool(t, h.config.DB.Config().ConnString())
		other.open(t, config)
		copies = append(copies, other)
	}
	p.forgetCodes(t)
	before := h.count(t, "SELECT count(*) FROM auth.sessions")
	challenges := make([]string, 40)
	for i := range challenges {
		challenges[i] = p.login(t, "").GetToken()
	}
	code := p.code(t, 0)
	const calls = 200
	results := make(chan error, calls)
	begin := make(chan struct{})
	for i := range calls {
		go func() {
			<-begin
			_, err := copies[i%len(copies)].sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
				ChallengeToken: challenges[i%len(challenges)], Proof: totpProof(code), Origin: stranger,
			})
			results <- err
		}()
	}
	close(begin)
	reasons := map[string]int{}
	for range calls {
		reasons[fault.Reason(<-results)]++
	}
	if began := h.count(t, "SELECT count(*) FROM auth.sessions") - before; began != 1 || reasons[""] != 1 {
		t.Errorf("%d calls with one code began %d sessions, with the answers %v; want 1", calls, began, reasons)
	}
	for reason := range reasons {
		if !slices.Contains([]string{"", "CODE_WRONG", "CHALLENGE_USED", "CHALLENGE_EXHAUSTED"}, reason) {
			t.Errorf("%d calls answered %s", reasons[reason], reason)
		}
	}
}

func TestARecoveryCodeReplacesTheAppOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.protect(t, "ada@example.com")
	code := strings.ToLower(strings.ReplaceAll(p.recovery[3], "-", " "))
	use := func(code string) (*authv1.CompleteLoginResponse, error) {
		return h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
			ChallengeToken: p.login(t, "").GetToken(), Proof: recoveryProof(code), Origin: stranger,
		})
	}
	signedIn, err := use(code)
	if err != nil {
		t.Fatalf("a recovery code: %v", err)
	}
	wantLevel(t, signedIn.GetTokens(), "aal2", "mfa", "pwd", "rec")
	_, err = use(p.recovery[3])
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	// It counts as recent: its owner enrols another app, which ends the old codes.
	lost := p.recovery
	p.origin = h.originOf(t, p.account.GetId())
	p.enrol(t)
	_, err = use(lost[4])
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	if _, err := use(p.recovery[0]); err != nil {
		t.Errorf("a new recovery code: %v", err)
	}
	// Another account's code is none.
	other := h.protect(t, "bob@example.com")
	_, err = use(other.recovery[0])
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	if n := h.count(t, "SELECT count(*) FROM auth.recovery_codes WHERE use_time IS NULL AND account_id = $1", other.account.GetId()); n != 10 {
		t.Errorf("%d of the other account's codes are left, want 10", n)
	}
}

func TestALostAnswerOfASecondFactorCostsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t, remembering)
	p := h.protect(t, "ada@example.com")
	p.forgetCodes(t)
	request := &authv1.CompleteLoginRequest{
		ChallengeToken: p.login(t, "").GetToken(), Proof: totpProof(p.code(t, 0)), RememberDevice: true, IdempotencyKey: "one", Origin: stranger,
	}
	first, err := h.sessions.CompleteLogin(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	sessions, devices := h.count(t, "SELECT count(*) FROM auth.sessions"), h.count(t, "SELECT count(*) FROM auth.remembered_devices")
	again, err := h.sessions.CompleteLogin(t.Context(), request)
	if err != nil {
		t.Fatalf("the repeated call: %v", err)
	}
	if again.GetTokens().GetRefreshToken() != first.GetTokens().GetRefreshToken() || again.GetDeviceToken() != first.GetDeviceToken() {
		t.Error("the repeated call returns other tokens")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != sessions {
		t.Errorf("the repeated call began %d sessions", n-sessions)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.remembered_devices"); n != devices || n != 1 {
		t.Errorf("%d devices are remembered, then %d; want 1", devices, n)
	}
	for name, change := range map[string]func(*authv1.CompleteLoginRequest){
		"another key":   func(r *authv1.CompleteLoginRequest) { r.IdempotencyKey = "two" },
		"no key":        func(r *authv1.CompleteLoginRequest) { r.IdempotencyKey = "" },
		"another proof": func(r *authv1.CompleteLoginRequest) { r.Proof = totpProof("000000") },
	} {
		other := &authv1.CompleteLoginRequest{
			ChallengeToken: request.GetChallengeToken(), Proof: request.GetProof(), RememberDevice: true, IdempotencyKey: "one", Origin: stranger,
		}
		change(other)
		_, err := h.sessions.CompleteLogin(t.Context(), other)
		if fault.Reason(err) != "CHALLENGE_USED" {
			t.Errorf("with %s: got %v, want CHALLENGE_USED", name, err)
		}
	}
	h.exec(t, "UPDATE auth.challenges SET end_time = end_time - interval '3 minutes' WHERE end_reason = 'used'")
	_, err = h.sessions.CompleteLogin(t.Context(), request)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestALostAnswerOfAnEnrolmentCostsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	p := &protected{h: h, account: account, origin: h.originOf(t, account.GetId())}
	begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: p.origin})
	if err != nil {
		t.Fatal(err)
	}
	p.secret = secretOf(t, begun.GetSecret())
	if n := h.count(t, "SELECT count(*) FROM auth.totp_factors"); n != 0 {
		t.Errorf("%d apps are stored before the enrolment is finished, want none", n)
	}
	request := &authv1.FinishTOTPEnrolmentRequest{EnrolmentToken: begun.GetEnrolmentToken(), Code: p.code(t, 0), IdempotencyKey: "one", Origin: p.origin}
	first, err := h.factors.FinishTOTPEnrolment(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.factors.FinishTOTPEnrolment(t.Context(), request)
	if err != nil {
		t.Fatalf("the repeated call: %v", err)
	}
	if !slices.Equal(first.GetRecoveryCodes(), again.GetRecoveryCodes()) || first.GetTokens().GetRefreshToken() != again.GetTokens().GetRefreshToken() {
		t.Errorf("the repeated call returned\n%v, want\n%v", again, first)
	}
	request.IdempotencyKey = ""
	_, err = h.factors.FinishTOTPEnrolment(t.Context(), request)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

// wrongCode returns a code that no step around the current one has.
func (p *protected) wrongCode(t testing.TB) string {
	t.Helper()
	current := p.step(t)
	for number := range 1_000_000 {
		code := fmt.Sprintf("%06d", number)
		if _, ok := p.secret.Match(code, current); !ok {
			if _, soon := p.secret.Match(code, current+2); !soon {
				return code
			}
		}
	}
	t.Fatal("every code is right")
	return ""
}
