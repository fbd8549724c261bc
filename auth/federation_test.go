package auth_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/oauth2-proxy/mockoidc"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/provider"
	"gatehouse/internal/provider/providertest"
)

// federated is auth with a provider that vouches for addresses of example.com.
type federated struct {
	*harness
	federation authv1.FederationServiceClient
	provider   *providertest.Provider
	// refused counts the refusals that nobody found, by event and reason.
	refused map[string]int
}

func newFederated(t *testing.T, change ...func(*auth.Config)) *federated {
	t.Helper()
	p := providertest.New(t)
	configure := func(c *auth.Config) {
		c.Providers = []*provider.Provider{provider.New(provider.Config{
			ID: "work", Kind: provider.OIDC, Name: "Work", ClientID: "gatehouse", ClientSecret: "secret", Issuer: p.Issuer(),
			EmailDomains: []string{"example.com"}, SignUp: true, RedirectURIs: []string{"com.example.app:/callback"},
		}), provider.New(provider.Config{
			ID: "other", Kind: provider.OIDC, Name: "Other", ClientID: "gatehouse", ClientSecret: "secret", Issuer: p.Issuer(), EmailDomains: []string{"example.com"}, SignUp: true,
		})}
	}
	h := newHarness(t, append([]func(*auth.Config){configure}, change...)...)
	return &federated{harness: h, federation: authv1.NewFederationServiceClient(h.client), provider: p}
}

// visit begins a visit and signs in at the provider.
func (f *federated) visit(t *testing.T, link bool, origin *authv1.Origin) *authv1.FederatedAnswer {
	t.Helper()
	begun, err := f.federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: "work", ReturnTo: "/account", Link: link, Origin: origin})
	if err != nil {
		t.Fatalf("BeginFederation: %v", err)
	}
	back := f.provider.Visit(t, begun.GetAuthorizationUrl())
	return &authv1.FederatedAnswer{Provider: "work", FlowToken: begun.GetFlowToken(), Code: back.Get("code"), State: back.Get("state")}
}

func (f *federated) complete(t *testing.T, answer *authv1.FederatedAnswer, key string) (*authv1.CompleteFederatedLoginResponse, error) {
	t.Helper()
	return f.federation.CompleteFederatedLogin(t.Context(), &authv1.CompleteFederatedLoginRequest{Answer: answer, AccountId: newID(t), IdempotencyKey: key})
}

// signIn signs in as the provider's person.
func (f *federated) signIn(t *testing.T) (*authv1.CompleteFederatedLoginResponse, error) {
	t.Helper()
	return f.complete(t, f.visit(t, false, nil), "")
}

func (f *federated) mustSignIn(t *testing.T) *authv1.CompleteFederatedLoginResponse {
	t.Helper()
	response, err := f.signIn(t)
	if err != nil || response.GetTokens() == nil {
		t.Fatalf("sign in: got %v, %v, want tokens", response, err)
	}
	return response
}

func originOf(t *testing.T, account *authv1.Account, tokens *authv1.Tokens) *authv1.Origin {
	t.Helper()
	return &authv1.Origin{AccountId: account.GetId(), SessionId: sessionOf(t, tokens.GetRefreshToken())}
}

func (f *federated) verify(t *testing.T, account *authv1.Account) {
	t.Helper()
	f.exec(t, `UPDATE auth.accounts SET email_verified = true WHERE id = $1`, account.GetId())
}

func TestANewPersonGetsAnAccountAndTheSameOneAgain(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	first := f.mustSignIn(t)
	if a := first.GetAccount(); a.GetEmail() != "ada@example.com" || !a.GetEmailVerified() || first.GetReturnTo() != "/account" {
		t.Errorf("got %v, want a verified account of ada@example.com and /account", first)
	}
	if amr := fmt.Sprint(claimsOf(t, first.GetTokens().GetAccessToken())["amr"]); amr != "[fed]" {
		t.Errorf("amr is %s, want [fed]", amr)
	}
	// Another address at the provider changes nothing here.
	f.provider.SetClaims(jwt.MapClaims{"email": "other@example.com"})
	second := f.mustSignIn(t)
	if second.GetAccount().GetId() != first.GetAccount().GetId() || second.GetAccount().GetEmail() != "ada@example.com" {
		t.Errorf("got %v, want the account of before with its address", second.GetAccount())
	}
	if n := f.count(t, `SELECT count(*) FROM auth.sessions s JOIN auth.identities i ON i.id = s.identity_id`); n != 2 {
		t.Errorf("%d sessions name the identity, want 2", n)
	}
}

func TestAgainstMockoidc(t *testing.T) {
	t.Parallel()
	mock, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mock.Shutdown() })
	mock.QueueUser(&mockoidc.MockUser{Subject: "grace", Email: "grace@example.com", EmailVerified: true})
	h := newHarness(t, func(c *auth.Config) {
		c.Providers = []*provider.Provider{provider.New(provider.Config{
			ID: "mock", Kind: provider.OIDC, Name: "Mock", ClientID: mock.ClientID, ClientSecret: mock.ClientSecret, Issuer: mock.Issuer(),
			EmailDomains: []string{"example.com"}, SignUp: true,
		})}
	})
	federation := authv1.NewFederationServiceClient(h.client)
	begun, err := federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: "mock"})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get(begun.GetAuthorizationUrl())
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	back, err := url.Parse(response.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := federation.CompleteFederatedLogin(t.Context(), &authv1.CompleteFederatedLoginRequest{AccountId: newID(t), Answer: &authv1.FederatedAnswer{
		Provider: "mock", FlowToken: begun.GetFlowToken(), Code: back.Query().Get("code"), State: back.Query().Get("state"),
	}})
	if err != nil || got.GetAccount().GetEmail() != "grace@example.com" {
		t.Fatalf("got %v, %v, want a session of grace@example.com", got, err)
	}
}

// Each minute has a row for the refusals of one kind.
const countRefusals = `
	SELECT coalesce(jsonb_object_agg(kind, n), '{}') FROM (
		SELECT event || ' ' || reason AS kind, sum(count) AS n FROM auth.audit_events WHERE outcome = 'refused' GROUP BY kind) AS refusals`

// nobody checks that a refusal wrote nothing but its audit event, and that one. All
// refusals of a test are checked, each by itself.
func (f *federated) nobody(t *testing.T, name string, err error, reasons ...string) {
	t.Helper()
	reason := fault.Reason(err)
	for _, want := range reasons {
		if reason == want {
			if n := f.count(t, `SELECT (SELECT count(*) FROM auth.accounts) + (SELECT count(*) FROM auth.sessions) + (SELECT count(*) FROM auth.identities)`); n != 0 {
				t.Errorf("%s: %d rows were written", name, n)
			}
			more := map[string]int{"session.login " + reason: 1}
			for kind, n := range f.refused {
				more[kind] += n
			}
			f.refused = nil
			if err := f.owner.QueryRow(t.Context(), countRefusals).Scan(&f.refused); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(f.refused, more) {
				t.Errorf("%s: the refusals %v are audited, want %v", name, f.refused, more)
			}
			return
		}
	}
	t.Errorf("%s: got %v (reason %q), want %v", name, err, reason, reasons)
}

// Without mail, such an address cannot be proven.
func TestAnAddressThatTheProviderDoesNotVouchForLeadsToNobodysAccount(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	account, _ := f.signUp(t, "victim@example.com")
	f.verify(t, account)
	for _, claims := range []jwt.MapClaims{
		{"email_verified": false}, {"email_verified": nil}, {"email_verified": "true"}, {"email_verified": 1}, {"email": nil, "preferred_username": "victim@example.com"},
		{"email_verified": nil, "verified": true},
	} {
		var answers []string
		for _, email := range []string{"victim@example.com", "nobody@example.com"} {
			if _, ok := claims["email"]; !ok {
				claims["email"] = email
			}
			f.provider.SetClaims(claims)
			_, err := f.signIn(t)
			answers = append(answers, fmt.Sprint(connect.CodeOf(err), fault.Reason(err)))
			if claims["email"] == email {
				delete(claims, "email")
			}
		}
		if answers[0] != answers[1] || !strings.HasSuffix(answers[0], "PROVIDER_EMAIL_UNPROVEN") {
			t.Errorf("%v: got %v, want PROVIDER_EMAIL_UNPROVEN twice", claims, answers)
		}
	}
	if n := f.count(t, `SELECT count(*) FROM auth.identities`); n != 0 {
		t.Errorf("%d identities were written", n)
	}
}

func TestAnIdentityIsLinkedByTheProofsOfTheAccountThatHasItsAddress(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	account, _ := f.signUp(t, "ada@example.com")
	f.verify(t, account)
	response, err := f.signIn(t)
	if err != nil || response.GetTokens() != nil || fmt.Sprint(response.GetChallenge().GetMethods()) != "[link password]" {
		t.Fatalf("got %v, %v, want a challenge with link and password", response, err)
	}
	answer := func(text string) (*authv1.CompleteLoginResponse, error) {
		return f.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
			ChallengeToken: response.GetChallenge().GetToken(), Proof: &authv1.Proof{Kind: &authv1.Proof_Password{Password: text}},
		})
	}
	_, err = answer("wrong horse battery")
	wantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_WRONG")
	if n := f.count(t, `SELECT count(*) FROM auth.identities`); n != 0 {
		t.Fatalf("%d identities without the proof", n)
	}
	if got, err := answer(password); err != nil || got.GetAccount().GetId() != account.GetId() || got.GetTokens() == nil {
		t.Fatalf("got %v, %v, want a session", got, err)
	}
	f.mailed(t, "identity_linked", "ada@example.com")
	if again := f.mustSignIn(t); again.GetAccount().GetId() != account.GetId() {
		t.Errorf("got the account %s, want %s", again.GetAccount().GetId(), account.GetId())
	}
}

func TestALinkNeedsTheSecondFactorToo(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	desk := f.service.DeskForTest()
	ofPasswords := desk.Verifiers[len(desk.Verifiers)-1]
	f.takeCodes()
	desk.Verifiers = append(desk.Verifiers, ofPasswords)
	account, _ := f.signUp(t, "ada@example.com")
	f.verify(t, account)
	f.enrol(t, account.GetId())
	response, err := f.signIn(t)
	if err != nil {
		t.Fatal(err)
	}
	token := response.GetChallenge().GetToken()
	_, err = f.harness.complete(t, token, rightCode, "")
	wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID") // a second proof first
	for range 2 {                                                        // a repeated first proof is answered alike
		further, err := f.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: token, Proof: &authv1.Proof{Kind: &authv1.Proof_Password{Password: password}}})
		if err != nil || further.GetTokens() != nil || further.GetChallenge().GetToken() != token || f.count(t, `SELECT count(*) FROM auth.identities`) != 0 {
			t.Fatalf("got %v, %v, want the same challenge and no identity", further, err)
		}
	}
	if done, err := f.harness.complete(t, token, rightCode, ""); err != nil || done.GetTokens() == nil || f.count(t, `SELECT count(*) FROM auth.identities`) != 1 {
		t.Fatalf("got %v, %v, want a session and the identity", done, err)
	}
	// A known identity is a first proof only; a repeated answer owes the same.
	answer, owed := f.visit(t, false, nil), ""
	for range 2 {
		again, err := f.complete(t, answer, "key")
		if err != nil || again.GetTokens() != nil || fmt.Sprint(again.GetChallenge().GetMethods()) != "[totp]" || owed != "" && again.GetChallenge().GetToken() != owed {
			t.Errorf("got %v, %v, want the challenge %s of the second factor", again, err, owed)
		}
		owed = again.GetChallenge().GetToken()
	}
}

func TestNothingPlantedSurvivesTheOwnersArrival(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	planted, tokens := f.signUp(t, "ada@example.com")
	f.exec(t, `INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), 'https://evil.example', 'mallory', $1, 'work')`, planted.GetId())
	f.exec(t, `INSERT INTO auth.passkeys (id, account_id, credential_id, record, rp_id, aaguid, name) VALUES (gen_random_uuid(), $1, 'x', '{}', 'localhost', gen_random_uuid(), 'x')`, planted.GetId())
	f.exec(t, `INSERT INTO auth.api_keys (id, secret_hash, account_id, name, scopes, expire_time) VALUES (gen_random_uuid(), sha256('x'), $1, 'x', '{me:read}', now() + interval '1 day')`, planted.GetId())
	f.enrol(t, planted.GetId())
	got := f.mustSignIn(t)
	if got.GetAccount().GetId() != planted.GetId() || !got.GetAccount().GetEmailVerified() {
		t.Errorf("got %v, want the account, verified", got.GetAccount())
	}
	_, err := f.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: password, AcceptsChallenge: true})
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = f.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken()})
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	for _, table := range []string{"passkeys", "totp_factors", "recovery_codes", "remembered_devices"} {
		if n := f.count(t, `SELECT count(*) FROM auth.`+table); n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
	}
	if n := f.count(t, `SELECT count(*) FROM auth.identities WHERE subject = 'mallory'`); n != 0 {
		t.Error("the planted identity is left")
	}
	if n := f.count(t, `SELECT count(*) FROM auth.api_keys WHERE revoke_time IS NULL`); n != 0 {
		t.Error("the planted API key works")
	}
}

func TestAClosedInstallationTakesNobodyIn(t *testing.T) {
	t.Parallel()
	f := newFederated(t, func(c *auth.Config) { c.Registration = auth.RegistrationClosed })
	_, err := f.signIn(t)
	f.nobody(t, "closed", err, "REGISTRATION_CLOSED")
}

func TestOnlyDomainsOfSignUpsGetAnAccountByAnotherProvider(t *testing.T) {
	t.Parallel()
	f := newFederated(t, func(c *auth.Config) { c.SignUpDomains = []string{"example.org"} })
	_, err := f.signIn(t)
	f.nobody(t, "another domain", err, "SIGN_UP_DOMAIN")
	// Somebody who has an account signs in, whatever its domain.
	made, err := f.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "grace@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	account := made.GetAccount()
	f.exec(t, `INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), $1, 'grace', $2, 'work')`, f.provider.Issuer(), account.GetId())
	f.provider.SetClaims(jwt.MapClaims{"sub": "grace", "email": "grace@example.com"})
	if got := f.mustSignIn(t); got.GetAccount().GetId() != account.GetId() {
		t.Errorf("got the account %s, want %s", got.GetAccount().GetId(), account.GetId())
	}
}

func TestOneCodeBeginsOneSession(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	answer := f.visit(t, false, nil)
	var group sync.WaitGroup
	var mu sync.Mutex
	begun := 0
	for range 50 {
		group.Go(func() {
			response, err := f.complete(t, answer, "")
			mu.Lock()
			defer mu.Unlock()
			if response.GetTokens() != nil {
				begun++
			} else if fault.Reason(err) != "CHALLENGE_USED" {
				t.Errorf("got %v, want CHALLENGE_USED", err)
			}
		})
	}
	group.Wait()
	if n := f.count(t, `SELECT count(*) FROM auth.sessions`); begun != 1 || n != 1 || f.provider.Calls("/token") != 1 {
		t.Errorf("%d answers with tokens, %d sessions, %d exchanges, want 1 of each", begun, n, f.provider.Calls("/token"))
	}
}

func TestARepeatedAnswerGetsTheSameSession(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	answer := f.visit(t, false, nil)
	first, err := f.complete(t, answer, "key")
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.complete(t, answer, "key")
	if err != nil || again.GetTokens().GetRefreshToken() != first.GetTokens().GetRefreshToken() {
		t.Errorf("got %v, %v, want the same tokens", again, err)
	}
	_, err = f.complete(t, answer, "another")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestAnAnswerOfAnotherVisitIsRefused(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	mine, other := f.visit(t, false, nil), f.visit(t, false, nil)
	for name, spoil := range map[string]func(a *authv1.FederatedAnswer){
		"the state of another visit":    func(a *authv1.FederatedAnswer) { a.State = other.GetState() },
		"no state":                      func(a *authv1.FederatedAnswer) { a.State = "" },
		"another provider":              func(a *authv1.FederatedAnswer) { a.Provider = "other" },
		"no flow token":                 func(a *authv1.FederatedAnswer) { a.FlowToken = "" },
		"a flow token that is not ours": func(a *authv1.FederatedAnswer) { a.FlowToken = "ghc_" + strings.Repeat("A", 43) },
		"the flow token of another":     func(a *authv1.FederatedAnswer) { a.FlowToken = other.GetFlowToken() },
	} {
		answer := &authv1.FederatedAnswer{Provider: mine.GetProvider(), FlowToken: mine.GetFlowToken(), Code: mine.GetCode(), State: mine.GetState()}
		spoil(answer)
		_, err := f.complete(t, answer, "")
		f.nobody(t, name, err, "CHALLENGE_INVALID")
	}
	// The code of another visit is bound to that one's verifier.
	_, err := f.complete(t, &authv1.FederatedAnswer{Provider: "work", FlowToken: mine.GetFlowToken(), Code: other.GetCode(), State: mine.GetState()}, "")
	f.nobody(t, "the code of another visit", err, "PROVIDER_ANSWER_INVALID")
}

// linked returns an account of a person with a password, and links an identity to it.
func (f *federated) linked(t *testing.T, email, subject string) (*authv1.Account, *authv1.Origin, *authv1.Identity) {
	t.Helper()
	account, tokens := f.signUp(t, email)
	f.verify(t, account)
	origin := originOf(t, account, tokens)
	f.provider.SetClaims(jwt.MapClaims{"sub": subject})
	response, err := f.federation.CompleteLinkIdentity(t.Context(), &authv1.CompleteLinkIdentityRequest{Answer: f.visit(t, true, origin), Origin: origin})
	if err != nil {
		t.Fatalf("CompleteLinkIdentity: %v", err)
	}
	return account, origin, response.GetIdentity()
}

func TestLinkingIsForTheSessionThatBeganIt(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	account, origin, identity := f.linked(t, "grace@example.com", "grace")
	f.mailed(t, "identity_linked", "grace@example.com")
	if got := f.mustSignIn(t); got.GetAccount().GetId() != account.GetId() {
		t.Errorf("got the account %s, want %s", got.GetAccount().GetId(), account.GetId())
	}
	list, err := f.federation.ListIdentities(t.Context(), &authv1.ListIdentitiesRequest{AccountId: account.GetId()})
	if err != nil || len(list.GetIdentities()) != 1 || list.GetIdentities()[0].GetIdentityId() != identity.GetIdentityId() {
		t.Errorf("got %v, %v, want the identity", list, err)
	}
	mallory, tokens := f.signUp(t, "mallory@example.com")
	f.verify(t, mallory)
	theirs := originOf(t, mallory, tokens)
	f.provider.SetClaims(jwt.MapClaims{"sub": "mallory"})
	// Forced linking: the answer to mallory's visit in grace's session.
	for name, visit := range map[string]*authv1.FederatedAnswer{"another account's": f.visit(t, true, theirs), "a sign-in's": f.visit(t, false, nil)} {
		_, err = f.federation.CompleteLinkIdentity(t.Context(), &authv1.CompleteLinkIdentityRequest{Answer: visit, Origin: origin})
		if fault.Reason(err) != "CHALLENGE_INVALID" {
			t.Errorf("the answer of %s visit: got %v, want CHALLENGE_INVALID", name, err)
		}
	}
	_, err = f.complete(t, f.visit(t, true, origin), "")
	wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID") // a link's answer is no sign-in
	f.provider.SetClaims(jwt.MapClaims{"sub": "grace"})
	_, err = f.federation.CompleteLinkIdentity(t.Context(), &authv1.CompleteLinkIdentityRequest{Answer: f.visit(t, true, theirs), Origin: theirs})
	wantReason(t, err, connect.CodeAlreadyExists, "IDENTITY_TAKEN")
	f.exec(t, `UPDATE auth.sessions SET authenticate_time = now() - interval '1 hour'`)
	_, err = f.federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: "work", Link: true, Origin: origin})
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	f.exec(t, `UPDATE auth.accounts SET email_verified = false`)
	_, err = f.federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: "work", Link: true, Origin: origin})
	wantReason(t, err, connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED")
}

func TestARepeatedLinkGetsTheSameIdentity(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	account, tokens := f.signUp(t, "grace@example.com")
	f.verify(t, account)
	origin := originOf(t, account, tokens)
	request := &authv1.CompleteLinkIdentityRequest{Answer: f.visit(t, true, origin), Origin: origin, IdempotencyKey: "key"}
	first, err := f.federation.CompleteLinkIdentity(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.federation.CompleteLinkIdentity(t.Context(), request)
	if err != nil || !proto.Equal(again, first) {
		t.Errorf("repeated: got %v, %v, want %v", again, err, first)
	}
	if n := f.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'identity.link'`); n != 1 || f.identities(t, account) != 1 {
		t.Errorf("%d links were audited and %d identities exist, want 1 of each", n, f.identities(t, account))
	}
	mallory, theirs := f.signUp(t, "mallory@example.com")
	request.Origin = originOf(t, mallory, theirs)
	_, err = f.federation.CompleteLinkIdentity(t.Context(), request)
	wantReason(t, err, connect.CodeInvalidArgument, "CHALLENGE_INVALID")
	request.Origin, request.IdempotencyKey = origin, "another"
	_, err = f.federation.CompleteLinkIdentity(t.Context(), request)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	request.IdempotencyKey = "key"
	if _, err := f.federation.UnlinkIdentity(t.Context(), &authv1.UnlinkIdentityRequest{IdentityId: first.GetIdentity().GetIdentityId(), Origin: origin}); err != nil {
		t.Fatal(err)
	}
	_, err = f.federation.CompleteLinkIdentity(t.Context(), request)
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
}

func TestOfTwoAccountsThatLinkOneIdentityOneWins(t *testing.T) {
	t.Parallel()
	f := newFederated(t)
	f.provider.SetClaims(jwt.MapClaims{"sub": "shared"})
	requests := make([]*authv1.CompleteLinkIdentityRequest, 2)
	for i := range requests {
		account, tokens := f.signUp(t, fmt.Sprintf("person%d@example.com", i))
		f.verify(t, account)
		origin := originOf(t, account, tokens)
		requests[i] = &authv1.CompleteLinkIdentityRequest{Answer: f.visit(t, true, origin), Origin: origin}
	}
	var group sync.WaitGroup
	failures := make([]error, 2)
	for i, request := range requests {
		group.Go(func() { _, failures[i] = f.federation.CompleteLinkIdentity(t.Context(), request) })
	}
	group.Wait()
	if reasons := fault.Reason(failures[0]) + fault.Reason(failures[1]); reasons != "IDENTITY_TAKEN" {
		t.Errorf("got %v, want one success and one IDENTITY_TAKEN", failures)
	}
}

func TestUnlinkingLeavesAWayToSignIn(t *testing.T) {
	t.Parallel()
	for ways := range 1 << 4 {
		password, passkey, second, email := ways&1 != 0, ways&2 != 0, ways&4 != 0, ways&8 != 0
		t.Run(fmt.Sprintf("password %t passkey %t another identity %t email %t", password, passkey, second, email), func(t *testing.T) {
			t.Parallel()
			change := withMail
			if email {
				change = byCode
			}
			f := newFederated(t, change, withPasskeys)
			account, origin, identity := f.linked(t, "grace@example.com", "grace")
			begun := f.mustSignIn(t)
			if !password {
				f.exec(t, `UPDATE auth.accounts SET password_hash = ''`)
			}
			if passkey {
				f.exec(t, `INSERT INTO auth.passkeys (id, account_id, credential_id, record, rp_id, aaguid, name) VALUES (gen_random_uuid(), $1, 'x', '{}', $2, gen_random_uuid(), 'x')`, account.GetId(), passkeyRPID)
			}
			if second {
				f.exec(t, `INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), $2, 'second', $1, 'other')`, account.GetId(), f.provider.Issuer())
			}
			_, err := f.federation.UnlinkIdentity(t.Context(), &authv1.UnlinkIdentityRequest{IdentityId: identity.GetIdentityId(), Origin: origin})
			if ways == 0 {
				wantReason(t, err, connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD")
				if f.identities(t, account) != 1 {
					t.Error("the identity was removed all the same")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.mailed(t, "identity_unlinked", "grace@example.com")
			_, err = f.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: begun.GetTokens().GetRefreshToken()})
			wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
			if n := f.count(t, `SELECT count(*) FROM auth.sessions WHERE revoke_time IS NULL`); n != 1 {
				t.Errorf("%d sessions are left, want the one that began with a password", n)
			}
		})
	}
}

// A provider's second factor counts only where its entry trusts it.
func TestASecondFactorAtAProviderCountsWhereItIsTrusted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		trusted bool
		claims  jwt.MapClaims
		level   string
	}{
		"trusted":                 {true, jwt.MapClaims{"amr": []string{"pwd", "otp", "mfa"}}, "aal2"},
		"trusted, by acr":         {true, jwt.MapClaims{"acr": "phr"}, "aal2"},
		"trusted, one factor":     {true, jwt.MapClaims{"amr": []string{"pwd"}, "acr": "1"}, "aal1"},
		"trusted, amr is a text":  {true, jwt.MapClaims{"amr": "mfa"}, "aal1"},
		"trusted, nothing said":   {true, jwt.MapClaims{}, "aal1"},
		"not trusted":             {false, jwt.MapClaims{"amr": []string{"mfa"}, "acr": "phr"}, "aal1"},
		"not trusted, mere claim": {false, jwt.MapClaims{"mfa": true}, "aal1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, func(c *auth.Config) { c.Providers[0].TrustSecondFactor = test.trusted })
			f.takeCodes()
			f.provider.SetClaims(test.claims)
			first := f.mustSignIn(t)
			if acr := claimsOf(t, first.GetTokens().GetAccessToken())["acr"]; acr != test.level {
				t.Errorf("the session is at %v, want %s", acr, test.level)
			}
			f.enrol(t, first.GetAccount().GetId())
			again, err := f.signIn(t)
			if err != nil || (again.GetChallenge() == nil) != (test.level == "aal2") {
				t.Errorf("got %v, %v with a second factor here", again, err)
			}
		})
	}
}
