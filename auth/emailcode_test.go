package auth_test

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// byCode signs in with mailed codes.
func byCode(c *auth.Config) { withMail(c); c.EmailSignIn = true }

var browser = &authv1.Origin{IpAddress: "198.51.100.7", UserAgent: "Firefox", Locale: "de"}

// tryCode asks for a code.
func (h *harness) tryCode(t testing.TB, email, device string) (*authv1.Challenge, error) {
	t.Helper()
	response, err := authv1.NewEmailCodeServiceClient(h.client).RequestSignInCode(t.Context(), &authv1.RequestSignInCodeRequest{
		Email: email, DeviceToken: device, Origin: browser,
	})
	return response.GetChallenge(), err
}

// askCode asks for a code and returns the token of its challenge, and the code if it was
// mailed.
func (h *harness) askCode(t *testing.T, email string) (token, code string) {
	t.Helper()
	owed, err := h.tryCode(t, email, "")
	if err != nil {
		t.Fatalf("RequestSignInCode: %v", err)
	}
	if fmt.Sprint(owed.GetMethods()) != "[email_code]" || owed.GetExpiresIn() != 600 || owed.GetPasskeyOptions() != nil {
		t.Errorf("RequestSignInCode: got %v, want a challenge for a mailed code", owed)
	}
	for _, mail := range h.post(t) {
		if mail.Kind == "sign_in" {
			code = mail.Values["code"]
		}
	}
	return owed.GetToken(), code
}

func (h *harness) giveCode(t testing.TB, token, code, key string) (*authv1.CompleteLoginResponse, error) {
	t.Helper()
	return h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
		ChallengeToken: token, Proof: &authv1.Proof{Kind: &authv1.Proof_EmailCode{EmailCode: code}}, IdempotencyKey: key, Origin: browser,
	})
}

func otherThan(code string) string {
	return strings.Map(func(r rune) rune { return 'B' + (r+1)%2 }, code)
}

func TestAMailedCodeSignsIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	account, _ := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	h.post(t)
	token, code := h.askCode(t, " ADA@example.com ")
	if !regexp.MustCompile(`^[BCDFGHJKMNPQRSTVWXYZ23456789]{8}$`).MatchString(code) {
		t.Fatalf("the code is %q", code)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.challenges WHERE sealed_state LIKE '%' || $1::bytea || '%'", code); n != 0 {
		t.Error("the code is in the challenge's row")
	}
	// As people type.
	done, err := h.giveCode(t, token, strings.ToLower(code[:4])+" - "+code[4:]+"\n", "key")
	if err != nil {
		t.Fatalf("CompleteLogin: %v", err)
	}
	if done.GetAccount().GetId() != account.GetId() {
		t.Errorf("signed in to %s, want %s", done.GetAccount().GetId(), account.GetId())
	}
	claims := claimsOf(t, done.GetTokens().GetAccessToken())
	if claims["acr"] != "aal1" || fmt.Sprint(claims["amr"]) != "[email]" {
		t.Errorf("the token has acr %v and amr %v, want aal1 and email", claims["acr"], claims["amr"])
	}
	h.wantMails(t) // none about the sign-in
	again, err := h.giveCode(t, token, strings.ToLower(code[:4])+" - "+code[4:]+"\n", "key")
	if err != nil || again.GetTokens().GetRefreshToken() != done.GetTokens().GetRefreshToken() {
		t.Errorf("repeated with the same key: got %v, %v, want the same session", again, err)
	}
	_, err = h.giveCode(t, token, code, "another key")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestAMailedCodeIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	h.signUp(t, "ada@example.com")
	h.post(t)
	for name, test := range map[string]struct {
		try    func(token, code string) error
		code   connect.Code
		reason string
	}{
		"wrong": {func(token, code string) error {
			_, err := h.giveCode(t, token, otherThan(code), "")
			return err
		}, connect.CodeInvalidArgument, "CODE_WRONG"},
		"of another challenge, as in another browser": {func(_, code string) error {
			other, _ := h.askCode(t, "ada@example.com")
			_, err := h.giveCode(t, other, code, "")
			return err
		}, connect.CodeInvalidArgument, "CODE_WRONG"},
		"without a challenge": {func(_, code string) error {
			_, err := h.giveCode(t, "ghc_"+strings.Repeat("A", 43), code, "")
			return err
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"for a challenge of a password": {func(_, code string) error {
			h.enrol(t, h.create(t, "bob@example.com", password).GetId())
			_, err := h.giveCode(t, h.challenged(t, "bob@example.com").GetToken(), code, "")
			return err
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"answered by another proof": {func(token, _ string) error {
			_, err := h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: token, Proof: totpProof("123456")})
			return err
		}, connect.CodeInvalidArgument, "CHALLENGE_INVALID"},
		"late": {func(token, code string) error {
			h.exec(t, "UPDATE auth.challenges SET expire_time = clock_timestamp()")
			_, err := h.giveCode(t, token, code, "")
			return err
		}, connect.CodeFailedPrecondition, "CHALLENGE_EXPIRED"},
		"after five others": {func(token, code string) error {
			for range 5 {
				_, err := h.giveCode(t, token, otherThan(code), "")
				wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
			}
			_, err := h.giveCode(t, token, code, "")
			return err
		}, connect.CodeFailedPrecondition, "CHALLENGE_EXHAUSTED"},
		"of a disabled account": {func(token, code string) error {
			h.exec(t, "UPDATE auth.accounts SET status = 'disabled' WHERE email = 'ada@example.com'")
			defer h.exec(t, "UPDATE auth.accounts SET status = 'active'")
			_, err := h.giveCode(t, token, code, "")
			return err
		}, connect.CodePermissionDenied, "ACCOUNT_DISABLED"},
	} {
		t.Run(name, func(t *testing.T) {
			token, code := h.askCode(t, "ada@example.com")
			before := h.count(t, "SELECT count(*) FROM auth.sessions WHERE level = 1 AND amr = '{email}'")
			wantReason(t, test.try(token, code), test.code, test.reason)
			if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE level = 1 AND amr = '{email}'"); n != before {
				t.Errorf("%d sessions of codes became %d", before, n)
			}
		})
	}
}

func TestACodeWorksOnceForManyAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	token, code := h.askCode(t, "ada@example.com") // nobody's
	var group sync.WaitGroup
	var mu sync.Mutex
	reasons := map[string]int{}
	for range 20 {
		group.Go(func() {
			_, err := h.giveCode(t, token, code, "")
			mu.Lock()
			defer mu.Unlock()
			reasons[fault.Reason(err)]++
		})
	}
	group.Wait()
	if reasons[""] != 1 || reasons["CHALLENGE_USED"] != 19 {
		t.Errorf("20 concurrent answers: %v, want one session and 19 CHALLENGE_USED", reasons)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 1 {
		t.Errorf("%d accounts, want 1", n)
	}
}

// No way in skips the second factor; a lost answer keeps the further challenge.
func TestTheSecondFactorIsAskedAfterAMailedCode(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	p := h.enrolFor(t, h.create(t, "ada@example.com", password))
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	h.post(t)
	p.forgetCodes(t)
	sessions := h.count(t, "SELECT count(*) FROM auth.sessions")
	token, code := h.askCode(t, "ada@example.com")
	owed, err := h.giveCode(t, token, code, "key")
	if err != nil || owed.GetTokens() != nil || owed.GetAccount() != nil || owed.GetChallenge().GetMethods()[0] != "totp" {
		t.Fatalf("CompleteLogin: got %v, %v, want a challenge for the app", owed, err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != sessions {
		t.Fatalf("%d sessions became %d", sessions, n)
	}
	again, err := h.giveCode(t, token, code, "key")
	if err != nil || again.GetChallenge().GetToken() != owed.GetChallenge().GetToken() {
		t.Errorf("repeated with the same key: got %v, %v, want the same challenge", again, err)
	}
	_, err = h.giveCode(t, token, code, "another key")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	done, err := p.complete(t, owed.GetChallenge().GetToken(), p.code(t, 0))
	if err != nil {
		t.Fatalf("CompleteLogin with the app: %v", err)
	}
	if amr := fmt.Sprint(claimsOf(t, done.GetTokens().GetAccessToken())["amr"]); amr != "[email mfa otp]" {
		t.Errorf("the token has amr %s, want email, mfa and otp", amr)
	}
	_, err = h.giveCode(t, token, code, "key")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestAMailedCodeCreatesAnAccountWherePeopleMayRegister(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change  func(*auth.Config)
		email   string
		created bool
	}{
		"open":                    {func(c *auth.Config) { c.Registration = auth.RegistrationOpen }, "ada@example.com", true},
		"verify":                  {func(c *auth.Config) { c.Registration = auth.RegistrationVerify }, "ada@example.com", true},
		"closed":                  {func(c *auth.Config) { c.Registration = auth.RegistrationClosed }, "ada@example.com", false},
		"a domain of the list":    {func(c *auth.Config) { c.SignUpDomains = []string{"example.com"} }, "ada@EXAMPLE.com", true},
		"another domain":          {func(c *auth.Config) { c.SignUpDomains = []string{"example.com"} }, "ada@example.org", false},
		"a domain below the list": {func(c *auth.Config) { c.SignUpDomains = []string{"example.com"} }, "ada@evil.example.com", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, byCode, test.change)
			token, code := h.askCode(t, test.email)
			if (code != "") != test.created {
				t.Fatalf("mailed the code %q, want one: %t", code, test.created)
			}
			if !test.created {
				_, err := h.giveCode(t, token, "BCDFGHJK", "")
				wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
				return
			}
			done, err := h.giveCode(t, token, code, "key")
			if err != nil || !done.GetAccount().GetEmailVerified() || done.GetAccount().GetEmail() != test.email {
				t.Fatalf("CompleteLogin: got %v, %v, want a verified account of %s", done, err, test.email)
			}
			again, err := h.giveCode(t, token, code, "key")
			if err != nil || again.GetAccount().GetId() != done.GetAccount().GetId() {
				t.Errorf("repeated with the same key: got %v, %v, want the same account", again, err)
			}
			_, err = h.login(t, test.email, password)
			wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		})
	}
}

// The gate may close while a code is on its way.
func TestACodeOfAClosedRegistrationCreatesNoAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	token, code := h.askCode(t, "ada@example.com")
	closed := h.config
	closed.Registration = auth.RegistrationClosed
	h.open(t, closed)
	_, err := h.giveCode(t, token, code, "")
	wantReason(t, err, connect.CodePermissionDenied, "REGISTRATION_CLOSED")
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 0 {
		t.Errorf("%d accounts, want none", n)
	}
}

func TestAMailedCodeRemovesWhatWasPlanted(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t, byCode)
	account, planted := h.signUp(t, "ada@example.com")
	h.plant(t, account.GetId())
	link := h.mailed(t, "verify_email", "ada@example.com").Token
	owed := h.challenged(t, "ada@example.com")
	token, code := h.askCode(t, "ada@example.com")
	done, err := h.giveCode(t, token, code, "")
	if err != nil || done.GetTokens() == nil || !done.GetAccount().GetEmailVerified() {
		t.Fatalf("CompleteLogin: got %v, %v, want a session of a verified account", done, err)
	}
	for _, table := range []string{"totp_factors", "recovery_codes", "passkeys", "remembered_devices"} {
		if n := h.count(t, `SELECT count(*) FROM auth.`+table); n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
	}
	_, err = h.complete(t, owed.GetToken(), rightCode, "")
	wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID")
	_, err = h.refresh(t, planted.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = h.verify(t, link)
	wantReason(t, err, connect.CodeFailedPrecondition, "LINK_SUPERSEDED")
}

// Accounts that administrators create count as verified: what they were given stays.
func TestAMailedCodeKeepsWhatAnAdministratorGave(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	h.create(t, "ada@example.com", password)
	token, code := h.askCode(t, "ada@example.com")
	done, err := h.giveCode(t, token, code, "")
	if err != nil || !done.GetAccount().GetEmailVerified() {
		t.Fatalf("CompleteLogin: got %v, %v, want a session of a verified account", done, err)
	}
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("Login with the given password: %v", err)
	}
}

func TestAtMostThreeCodesAreMailedInTenMinutes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode, throttled)
	h.create(t, "ada@example.com", password)
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		h.post(t)
		var group sync.WaitGroup
		for i := range 12 {
			asked := email
			if i%2 == 1 {
				asked = strings.ToUpper(email)
			}
			group.Go(func() {
				if owed, err := h.tryCode(t, asked, ""); err != nil || owed.GetToken() == "" {
					t.Errorf("RequestSignInCode: got %v, %v, want a challenge", owed, err)
				}
			})
		}
		group.Wait()
		// Concurrent requests may each skip a slot that another one is taking.
		for range 3 {
			if _, err := h.tryCode(t, email, ""); err != nil {
				t.Fatal(err)
			}
		}
		if mails := h.post(t); len(mails) != 3 {
			t.Errorf("15 requests for %s: %d mails, want 3", email, len(mails))
		}
	}
	// One goes out again as soon as the first is ten minutes old.
	h.exec(t, "UPDATE auth.throttles SET wait_until = wait_until - interval '10 minutes'")
	for range 5 {
		if _, err := h.tryCode(t, "ada@example.com", ""); err != nil {
			t.Fatal(err)
		}
	}
	if mails := h.post(t); len(mails) != 3 {
		t.Errorf("ten minutes later: %d mails, want 3", len(mails))
	}
}

func TestGuessedMailedCodesMeetTheThrottle(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode, throttled)
	account := h.create(t, "ada@example.com", password)
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	known, err := h.login(t, "ada@example.com", password)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]string, 250)
	for i := range tokens {
		owed, err := h.tryCode(t, "ada@example.com", "")
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = owed.GetToken()
	}
	start, answers := time.Now(), map[string]int{}
	for n := range 1000 {
		_, err := h.giveCode(t, tokens[n%len(tokens)], "BCDFGHJK", "")
		answers[fault.Reason(err)]++
	}
	took := time.Since(start)
	if most := 5 + int(math.Log2(took.Seconds()+1)) + 1; answers["CODE_WRONG"] < 5 || answers["CODE_WRONG"] > most {
		t.Errorf("of 1,000 guesses in %s, these answers: %v; want 5 to %d evaluated", took, answers, most)
	}
	if answers["CODE_WRONG"]+answers["TOO_MANY_ATTEMPTS"] != 1000 {
		t.Errorf("1,000 guesses got the answers %v", answers)
	}
	// Neither the password nor a device of the owner is delayed.
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("Login with the password: %v", err)
	}
	h.exec(t, "UPDATE auth.throttles SET wait_until = now() + interval '1 hour' WHERE failures >= 5")
	h.exec(t, "DELETE FROM auth.throttles WHERE failures = 0")
	h.post(t)
	owed, err := h.tryCode(t, "ada@example.com", known.GetDeviceToken())
	if err != nil {
		t.Fatal(err)
	}
	code := h.mailed(t, "sign_in", "ada@example.com").Values["code"]
	if done, err := h.giveCode(t, owed.GetToken(), code, ""); err != nil || done.GetAccount().GetId() != account.GetId() {
		t.Errorf("the owner's device: got %v, %v, want a session", done, err)
	}
	stranger, err := h.tryCode(t, "ada@example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.giveCode(t, stranger.GetToken(), h.mailed(t, "sign_in", "ada@example.com").Values["code"], "")
	wantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS")
}

func TestMailedCodesAreOffUnlessTurnedOn(t *testing.T) {
	t.Parallel()
	_, err := newHarness(t, withMail).tryCode(t, "ada@example.com", "")
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_SIGN_IN_OFF")
	_, err = newHarness(t, func(c *auth.Config) { c.EmailSignIn = true }).tryCode(t, "ada@example.com", "")
	wantReason(t, err, connect.CodeFailedPrecondition, "MAIL_UNAVAILABLE")
}

// A mail whose code no longer works is not sent.
func TestALateMailWithACodeIsNotSent(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	if _, err := h.tryCode(t, "ada@example.com", ""); err != nil {
		t.Fatal(err)
	}
	h.exec(t, "UPDATE auth.challenges SET expire_time = clock_timestamp()")
	h.wantMails(t)
}

// Somebody without a password or a factor gives a mailed code before what needs a
// recent sign-in, also where codes do not sign in.
func TestAMailedCodeIsARecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, _ := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.accounts SET email_verified = true, password_hash = ''")
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '1 hour'")
	h.post(t)
	origin := h.originOf(t, account.GetId())
	response, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Origin: origin, AcceptsChallenge: true})
	if err != nil || fmt.Sprint(response.GetChallenge().GetMethods()) != "[email_code]" {
		t.Fatalf("Reauthenticate: got %v, %v, want a challenge for a mailed code", response, err)
	}
	code := h.mailed(t, "sign_in", "ada@example.com").Values["code"]
	complete := func(code string) error {
		_, err := h.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{
			ChallengeToken: response.GetChallenge().GetToken(), Proof: &authv1.Proof{Kind: &authv1.Proof_EmailCode{EmailCode: code}}, Origin: origin,
		})
		return err
	}
	wantReason(t, complete(otherThan(code)), connect.CodeInvalidArgument, "CODE_WRONG")
	_, err = h.giveCode(t, response.GetChallenge().GetToken(), code, "")
	wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID") // it begins no session
	if err := complete(code); err != nil {
		t.Fatalf("CompleteReauthentication: %v", err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE authenticate_time > now() - interval '1 minute' AND level = 1"); n != 1 {
		t.Errorf("%d sessions have a recent sign-in, want 1", n)
	}
}

// Neither the answer nor its time tells whether an email has an account: not of a
// request, and not of a guess.
func TestNobodyLearnsByACodeWhoHasAnAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byCode)
	h.signUp(t, "asker@example.com")
	h.exec(t, `INSERT INTO auth.accounts (id, email, email_verified, password_hash)
		SELECT gen_random_uuid(), 'person' || n || '@there.example', true, a.password_hash
		FROM auth.accounts a, generate_series(10000, 10000 + $1 - 1) n WHERE a.email = 'asker@example.com'`, 2*samples)
	h.exec(t, "ANALYZE auth.accounts")
	pending := map[string]string{}
	for name, call := range map[string]func(email string) (proto.Message, error){
		"RequestSignInCode": func(email string) (proto.Message, error) {
			owed, err := h.tryCode(t, email, "")
			if owed != nil {
				owed.Token = "" // random
			}
			return owed, err
		},
		"CompleteLogin": func(email string) (proto.Message, error) {
			_, err := h.giveCode(t, pending[email], "BCDFGHJK", "")
			if fault.Reason(err) != "CODE_WRONG" {
				return nil, err
			}
			return &authv1.CompleteLoginResponse{}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []float64
			for try := range 2 { // as in TestNobodyLearnsWhoHasAnAccount
				if name == "CompleteLogin" {
					for n := range samples {
						for _, domain := range []string{"there", "never"} {
							email := fmt.Sprintf("person%d@%s.example", 10000+try*samples+n, domain)
							owed, err := h.tryCode(t, email, "")
							if err != nil {
								t.Fatal(err)
							}
							pending[email] = owed.GetToken()
						}
					}
				}
				with, without := h.timeBoth(t, try*samples, call)
				area := areaUnderCurve(with, without)
				t.Logf("area %.3f; medians %v with an account, %v without", area, median(with), median(without))
				if area > 0.45 && area < 0.55 {
					return
				}
				seen = append(seen, area)
			}
			t.Errorf("the time of %d calls a side tells who has an account: areas %.3f, want 0.45 to 0.55", samples, seen)
		})
	}
}
