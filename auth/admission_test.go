package auth_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"gatehouse/auth"
	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/challenge"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/provider"
	"gatehouse/internal/provider/providertest"
)

// rightCode is the code that the verifier of newFactorHarness accepts, any number of times.
const rightCode = "287082"

// newFactorHarness returns a harness whose accounts can have a second factor: one that
// always has the same code, so that the tests are about the challenge.
func newFactorHarness(t *testing.T, change ...func(*auth.Config)) *harness {
	t.Helper()
	h := newHarness(t, change...)
	h.takeCodes()
	return h
}

func (h *harness) takeCodes() {
	desk := h.service.DeskForTest()
	mailed := slices.DeleteFunc(desk.Verifiers, func(v admission.Verifier) bool { return v.Kind != admission.EmailCode })
	desk.Verifiers = append(mailed, admission.Verifier{
		Kind: admission.TOTP, Field: "totp_code",
		Verify: func(_ context.Context, _ pgx.Tx, a admission.Attempt) (admission.Proof, error) {
			if a.Proof.GetTotpCode() != rightCode {
				return admission.Proof{}, challenge.ErrCodeWrong
			}
			return admission.Proof{Kind: admission.TOTP}, nil
		},
	})
}

// enrol gives an account a second factor, as an enrolment does, and returns how many
// sessions it has then.
func (h *harness) enrol(t *testing.T, account string) (sessions int) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), h.owner, func(tx pgx.Tx) error {
		if _, err := accounts.Lock(t.Context(), tx, account); err != nil {
			return err
		}
		if err := accounts.SetSecondFactor(t.Context(), tx, account, true); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `INSERT INTO auth.totp_factors (account_id, sealed_secret, key_id) VALUES ($1, 'sealed', 'one') ON CONFLICT DO NOTHING`, account); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), `SELECT count(*) FROM auth.sessions WHERE account_id = $1`, account).Scan(&sessions)
	})
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

// challenged signs in with a password and returns the challenge.
func (h *harness) challenged(t *testing.T, email string) *authv1.Challenge {
	t.Helper()
	response, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: email, Password: password, AcceptsChallenge: true})
	if err != nil || response.GetTokens() != nil || response.GetChallenge().GetToken() == "" {
		t.Fatalf("Login: got %v, %v, want a challenge", response, err)
	}
	return response.GetChallenge()
}

func (h *harness) complete(t *testing.T, token, code, key string) (*authv1.CompleteLoginResponse, error) {
	t.Helper()
	return h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
		ChallengeToken: token, IdempotencyKey: key, Proof: &authv1.Proof{Kind: &authv1.Proof_TotpCode{TotpCode: code}},
	})
}

func claimsOf(t *testing.T, access string) jwt.MapClaims {
	t.Helper()
	token, _, err := jwt.NewParser().ParseUnverified(access, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Claims.(jwt.MapClaims)
}

func TestASecondProofIsOwedBeforeASessionBegins(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t, func(c *auth.Config) { c.SecondFactorRoles = []string{"admin"} })
	account, first := h.signUp(t, "ada@example.com")
	h.exec(t, `UPDATE auth.accounts SET roles = '{admin,editor}' WHERE id = $1`, account.GetId())
	one := h.mustRefresh(t, first.GetRefreshToken(), "")
	if got := claimsOf(t, one.GetAccessToken()); got["acr"] != "aal1" || len(got["roles"].([]any)) != 1 {
		t.Errorf("at level 1 the token has %v, want acr aal1 and the role editor alone", got)
	}
	h.enrol(t, account.GetId())
	owed := h.challenged(t, "ada@example.com")
	if !slices.Equal(owed.GetMethods(), []string{"totp"}) || owed.GetExpiresIn() != 600 {
		t.Errorf("got the challenge %v, want the method totp for 600 s", owed)
	}
	_, err := h.login(t, "ada@example.com", password) // by a gateway that cannot show a challenge
	wantReason(t, err, connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED")
	_, err = h.complete(t, owed.GetToken(), "000000", "")
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	done, err := h.complete(t, owed.GetToken(), rightCode, "")
	if err != nil {
		t.Fatalf("CompleteLogin: %v", err)
	}
	for name, tokens := range map[string]*authv1.Tokens{"the first": done.GetTokens(), "a refreshed": h.mustRefresh(t, done.GetTokens().GetRefreshToken(), "")} {
		got := claimsOf(t, tokens.GetAccessToken())
		if got["acr"] != "aal2" || len(got["roles"].([]any)) != 2 || len(got["amr"].([]any)) != 3 || got["auth_time"] == nil {
			t.Errorf("%s token has %v, want acr aal2, amr mfa otp pwd, auth_time and both roles", name, got)
		}
	}
	_, err = h.complete(t, owed.GetToken(), rightCode, "")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestAChallengeEndsForItsReason(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	h.enrol(t, account.GetId())
	session := sessionOf(t, tokens.GetRefreshToken())
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: session}
	for reason, end := range map[string]func(token string) string{
		"CHALLENGE_EXHAUSTED": func(token string) string {
			for range 5 {
				_, err := h.complete(t, token, "000000", "")
				wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
			}
			return token
		},
		"CHALLENGE_EXPIRED": func(token string) string {
			h.exec(t, `UPDATE auth.challenges SET expire_time = clock_timestamp() WHERE end_time IS NULL`)
			return token
		},
		"CHALLENGE_SUPERSEDED": func(token string) string {
			if _, err := h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: account.GetId(), ExceptSessionId: session}); err != nil {
				t.Fatal(err)
			}
			return token
		},
		"ACCOUNT_DISABLED": func(token string) string {
			h.exec(t, `UPDATE auth.accounts SET status = 'disabled'`)
			return token
		},
		"CHALLENGE_INVALID": func(string) string {
			response, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin, AcceptsChallenge: true})
			if err != nil {
				t.Fatalf("Reauthenticate: %v", err)
			}
			return response.GetChallenge().GetToken() // of another purpose
		},
	} {
		token := end(h.challenged(t, "ada@example.com").GetToken())
		before := h.count(t, `SELECT count(*) FROM auth.sessions`)
		if _, err := h.complete(t, token, rightCode, ""); fault.Reason(err) != reason {
			t.Errorf("with the right code: got %v, want %s", err, reason)
		}
		if after := h.count(t, `SELECT count(*) FROM auth.sessions`); after != before {
			t.Errorf("%s: %d sessions became %d", reason, before, after)
		}
		h.exec(t, `UPDATE auth.accounts SET status = 'active'`)
	}
	// A binary older than number 8 removes the password and supersedes nothing.
	owed := h.challenged(t, "ada@example.com")
	h.exec(t, `UPDATE auth.accounts SET password_hash = ''`)
	_, err := h.complete(t, owed.GetToken(), rightCode, "")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_SUPERSEDED")
}

func TestARepeatedCompleteLoginGetsTheSameSession(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	before := h.enrol(t, account.GetId())
	owed := h.challenged(t, "ada@example.com")
	const callers = 20
	tokens := make([]string, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			response, err := h.complete(t, owed.GetToken(), rightCode, "one key")
			if err != nil {
				t.Errorf("CompleteLogin: %v", err)
			}
			tokens[i] = response.GetTokens().GetRefreshToken()
		})
	}
	group.Wait()
	if slices.Sort(tokens); tokens[0] != tokens[callers-1] || tokens[0] == "" {
		t.Errorf("the calls got other refresh tokens: %q", slices.Compact(tokens))
	}
	if n := h.count(t, `SELECT count(*) FROM auth.sessions`); n != before+1 {
		t.Errorf("%d sessions, want %d", n, before+1)
	}
	for name, repeat := range map[string]func() error{
		"another key":   func() error { _, err := h.complete(t, owed.GetToken(), rightCode, "another"); return err },
		"another proof": func() error { _, err := h.complete(t, owed.GetToken(), "287083", "one key"); return err },
		"no key":        func() error { _, err := h.complete(t, owed.GetToken(), rightCode, ""); return err },
	} {
		if err := repeat(); fault.Reason(err) != "CHALLENGE_USED" {
			t.Errorf("%s: got %v, want CHALLENGE_USED", name, err)
		}
	}
	h.mustRefresh(t, tokens[0], "")
	_, err := h.complete(t, owed.GetToken(), rightCode, "one key") // the session has gone on
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestAStepUpGivesTheNextGenerationOfTokens(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	h.enrol(t, account.GetId())
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessionOf(t, tokens.GetRefreshToken()), RequireOwnLevel: true, RequireRecentSignIn: true}
	change := func() error {
		_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: []string{"editor"}, Origin: origin})
		return err
	}
	wantReason(t, change(), connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED")
	origin.RequireOwnLevel = false
	wantReason(t, change(), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	origin.RequireOwnLevel = true
	response, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin, AcceptsChallenge: true})
	if err != nil || response.GetChallenge() == nil {
		t.Fatalf("Reauthenticate: got %v, %v, want a challenge", response, err)
	}
	wantReason(t, change(), connect.CodeFailedPrecondition, "SECOND_FACTOR_REQUIRED") // the password alone is not enough
	var raised *authv1.Tokens
	for range 2 {
		done, err := h.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{
			ChallengeToken: response.GetChallenge().GetToken(), Origin: origin, IdempotencyKey: "key",
			Proof: &authv1.Proof{Kind: &authv1.Proof_TotpCode{TotpCode: rightCode}},
		})
		if err != nil {
			t.Fatalf("CompleteReauthentication: %v", err)
		}
		if raised != nil && raised.GetRefreshToken() != done.GetTokens().GetRefreshToken() {
			t.Error("the repeated call got another refresh token")
		}
		raised = done.GetTokens()
	}
	before, after := claimsOf(t, tokens.GetAccessToken()), claimsOf(t, raised.GetAccessToken())
	if after["acr"] != "aal2" || after["sid"] != before["sid"] || after["ver"].(float64) <= before["ver"].(float64) {
		t.Errorf("after %v the token has %v, want level 2 of the same session and a higher version", before, after)
	}
	if err := change(); err != nil {
		t.Errorf("at level 2: %v", err)
	}
	h.age(t, "1 minute")
	_, err = h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_REUSED") // the token of level 1
}

// Whatever the order, no session begins by a password alone once the account has a
// second factor.
func TestSigningInNeverOvertakesAnEnrolment(t *testing.T) {
	t.Parallel()
	h := newFactorHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	for range 60 {
		var group sync.WaitGroup
		var challenges int
		group.Go(func() {
			response, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: password, AcceptsChallenge: true})
			if err != nil {
				t.Errorf("Login: %v", err)
			}
			if response.GetChallenge() != nil {
				challenges++
			}
		})
		var sessions int
		group.Go(func() { sessions = h.enrol(t, account.GetId()) })
		group.Wait()
		if after := h.count(t, `SELECT count(*) FROM auth.sessions`); after != sessions {
			t.Fatalf("%d sessions when the factor was added became %d", sessions, after)
		}
		err := pgx.BeginFunc(t.Context(), h.owner, func(tx pgx.Tx) error { return accounts.SetSecondFactor(t.Context(), tx, account.GetId(), false) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// waysIn are the methods whose answers can have tokens, each with a call that gives
// everything but the second proof.
func (h *harness) waysIn(t *testing.T, other *providertest.Provider, account *authv1.Account, link, key string, tokens *authv1.Tokens) map[string]func() (interface{ GetTokens() *authv1.Tokens }, error) {
	idempotency := &authv1.IdempotencyKey{Key: key, Procedure: "/bff.v1.AuthService/Register", RequestHash: make([]byte, 32)}
	proof := &authv1.Proof{Kind: &authv1.Proof_TotpCode{TotpCode: "000000"}}
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessionOf(t, tokens.GetRefreshToken())}
	return map[string]func() (interface{ GetTokens() *authv1.Tokens }, error){
		"auth.v1.SessionService.Login": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			return h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: account.GetEmail(), Password: password, AcceptsChallenge: true})
		},
		"auth.v1.FederationService.CompleteFederatedLogin": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			h.exec(t, `INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), $1, 'ada', $2, 'work')`, other.Issuer(), account.GetId())
			return (&federated{harness: h, federation: authv1.NewFederationServiceClient(h.client), provider: other}).signIn(t)
		},
		"auth.v1.SessionService.CompleteLogin": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			return h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: h.challenged(t, account.GetEmail()).GetToken(), Proof: proof})
		},
		"auth.v1.SessionService.CompleteReauthentication": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			response, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin, AcceptsChallenge: true})
			if err != nil {
				t.Fatal(err)
			}
			return h.sessions.CompleteReauthentication(t.Context(), &authv1.CompleteReauthenticationRequest{ChallengeToken: response.GetChallenge().GetToken(), Proof: proof, Origin: origin})
		},
		"auth.v1.FactorService.FinishTOTPEnrolment": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			begun, err := h.factors.BeginTOTPEnrolment(t.Context(), &authv1.BeginTOTPEnrolmentRequest{Origin: origin})
			if err != nil {
				return (*authv1.FinishTOTPEnrolmentResponse)(nil), err
			}
			return h.factors.FinishTOTPEnrolment(t.Context(), &authv1.FinishTOTPEnrolmentRequest{EnrolmentToken: begun.GetEnrolmentToken(), Code: "000000", Origin: origin})
		},
		"auth.v1.PasskeyService.FinishPasskeyRegistration": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			passkeys := authv1.NewPasskeyServiceClient(h.client)
			begun, err := passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: origin})
			if err != nil {
				return (*authv1.FinishPasskeyRegistrationResponse)(nil), err
			}
			return passkeys.FinishPasskeyRegistration(t.Context(), &authv1.FinishPasskeyRegistrationRequest{RegistrationToken: begun.GetRegistrationToken(), Origin: origin})
		},
		"auth.v1.LinkService.VerifyEmail": func() (interface{ GetTokens() *authv1.Tokens }, error) {
			return h.links.VerifyEmail(t.Context(), &authv1.VerifyEmailRequest{Token: link, Password: password, AccountId: newID(t), AcceptsChallenge: true})
		},
		"auth.v1.AccountService.CreateAccount": func() (interface{ GetTokens() *authv1.Tokens }, error) { // repeated
			return h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
				AccountId: account.GetId(), Email: account.GetEmail(), Password: password, SignIn: true, IdempotencyKey: idempotency,
			})
		},
	}
}

// continues are the methods that give the tokens of a session that has begun, at its
// level.
var continues = []string{"auth.v1.SessionService.Refresh"}

func TestNoWayInSkipsTheSecondFactor(t *testing.T) {
	t.Parallel()
	other := providertest.New(t)
	h := newFactorHarness(t, withMail, withPasskeys, func(c *auth.Config) {
		c.Providers = []*provider.Provider{provider.New(provider.Config{ID: "work", Kind: provider.OIDC, ClientID: "gatehouse", Issuer: other.Issuer()})}
	})
	key := "way in"
	created, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: "ada@example.com", Password: password, SignIn: true,
		IdempotencyKey: &authv1.IdempotencyKey{Key: key, Procedure: "/bff.v1.AuthService/Register", RequestHash: make([]byte, 32)},
	})
	if err != nil {
		t.Fatal(err)
	}
	link := h.mailed(t, "verify_email", "ada@example.com").Token
	before := h.enrol(t, created.GetAccount().GetId())
	ways := h.waysIn(t, other, created.GetAccount(), link, key, created.GetTokens())
	for _, method := range methodsWithTokens(t) {
		call, ok := ways[method]
		if !ok {
			if !slices.Contains(continues, method) {
				t.Errorf("%s can answer with tokens, and is no listed way in", method)
			}
			continue
		}
		response, err := call()
		if response.GetTokens() != nil {
			t.Errorf("%s: got tokens without the second factor", method)
		}
		if challenged, ok := response.(interface{ GetChallenge() *authv1.Challenge }); (!ok || challenged.GetChallenge() == nil) &&
			!slices.Contains([]string{"SECOND_FACTOR_REQUIRED", "CODE_WRONG"}, fault.Reason(err)) {
			t.Errorf("%s: got %v, %v, want a challenge or a refusal", method, response, err)
		}
	}
	if after := h.count(t, `SELECT count(*) FROM auth.sessions`); after != before {
		t.Errorf("%d sessions became %d", before, after)
	}
}

// methodsWithTokens returns the methods of auth whose answers can have Tokens, at any
// depth.
func methodsWithTokens(t *testing.T) (found []string) {
	t.Helper()
	tokens := (&authv1.Tokens{}).ProtoReflect().Descriptor().FullName()
	var has func(m protoreflect.MessageDescriptor, seen []protoreflect.FullName) bool
	has = func(m protoreflect.MessageDescriptor, seen []protoreflect.FullName) bool {
		if m.FullName() == tokens {
			return true
		}
		if slices.Contains(seen, m.FullName()) {
			return false
		}
		for i := range m.Fields().Len() {
			if field := m.Fields().Get(i).Message(); field != nil && has(field, append(seen, m.FullName())) {
				return true
			}
		}
		return false
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("auth.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				if has(methods.Get(k).Output(), nil) {
					found = append(found, string(methods.Get(k).FullName()))
				}
			}
		}
		return true
	})
	if len(found) < 5 {
		t.Fatalf("%d methods can answer with tokens, want at least 5: %v", len(found), found)
	}
	return found
}
