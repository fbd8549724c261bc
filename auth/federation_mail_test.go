package auth_test

import (
	"fmt"
	"maps"
	"net/http"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/provider"
	"gatehouse/internal/provider/providertest"
)

// claims signs in as somebody with an email that the provider does not vouch for, and
// returns the token of the challenge and the code, if one is mailed to the email.
func (f *federated) claims(t *testing.T, subject, email string) (token, code string) {
	t.Helper()
	f.provider.SetClaims(jwt.MapClaims{"sub": subject, "email": email, "email_verified": false})
	response, err := f.signIn(t)
	if err != nil || response.GetTokens() != nil || fmt.Sprint(response.GetChallenge().GetMethods()) != "[link email_code]" || response.GetReturnTo() != "/account" {
		t.Fatalf("%s: got %v, %v, want a challenge for a mailed code", email, response, err)
	}
	return response.GetChallenge().GetToken(), f.codeTo(t, email)
}

// codeTo returns the code that was mailed to an email; "" for none.
func (f *federated) codeTo(t *testing.T, email string) (code string) {
	t.Helper()
	for _, mail := range f.addressAll(t) {
		if mail.Kind == "sign_in" && mail.To == email {
			code = mail.Values["code"]
		}
	}
	return code
}

func (f *federated) identities(t *testing.T, account *authv1.Account) int {
	t.Helper()
	return f.count(t, `SELECT count(*) FROM auth.identities WHERE account_id = $1`, account.GetId())
}

func TestAMailedCodeProvesAnAddressThatTheProviderDoesNotVouchFor(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	token, code := f.claims(t, "grace", "grace@example.org")
	if n := f.count(t, `SELECT (SELECT count(*) FROM auth.accounts) + (SELECT count(*) FROM auth.identities)`); n != 0 {
		t.Fatalf("%d rows before the code is given", n)
	}
	_, err := f.giveCode(t, token, otherThan(code), "")
	wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
	done, err := f.giveCode(t, token, code, "key")
	if err != nil || done.GetAccount().GetEmail() != "grace@example.org" || !done.GetAccount().GetEmailVerified() || done.GetTokens() == nil {
		t.Fatalf("got %v, %v, want a session of a verified account", done, err)
	}
	again, err := f.giveCode(t, token, code, "key")
	if err != nil || again.GetTokens().GetRefreshToken() != done.GetTokens().GetRefreshToken() {
		t.Errorf("repeated: got %v, %v, want the same session", again, err)
	}
	if next := f.mustSignIn(t); next.GetAccount().GetId() != done.GetAccount().GetId() {
		t.Errorf("the identity signs in to %s, want %s", next.GetAccount().GetId(), done.GetAccount().GetId())
	}
}

// nOAuth: a stranger's provider says the address of somebody else.
func TestAStrangerWhoClaimsAnAddressLearnsAndGetsNothing(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	verified, _ := f.signUp(t, "victim@example.com")
	f.verify(t, verified)
	unverified, _ := f.signUp(t, "planted@example.com")
	disabled, _ := f.signUp(t, "disabled@example.com")
	f.exec(t, `UPDATE auth.accounts SET status = 'disabled' WHERE id = $1`, disabled.GetId())
	before := f.count(t, `SELECT count(*) FROM auth.sessions`)
	for _, email := range []string{"victim@example.com", "planted@example.com", "disabled@example.com", "nobody@example.com"} {
		token, _ := f.claims(t, "mallory", email) // the same answer for each
		for range 5 {
			_, err := f.giveCode(t, token, "BBBBBBBB", "")
			wantReason(t, err, connect.CodeInvalidArgument, "CODE_WRONG")
		}
		_, err := f.giveCode(t, token, "BBBBBBBB", "")
		wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_EXHAUSTED")
	}
	if n := f.count(t, `SELECT count(*) FROM auth.identities`); n != 0 {
		t.Errorf("%d identities were written", n)
	}
	if n := f.count(t, `SELECT count(*) FROM auth.sessions`); n != before {
		t.Errorf("%d sessions, want %d", n, before)
	}
	if n := f.count(t, `SELECT count(*) FROM auth.accounts WHERE email_verified AND id = $1`, unverified.GetId()); n != 0 {
		t.Error("the address was proven by nobody")
	}
}

func TestAMailedCodeLinksAnIdentityToTheAccountOfTheAddress(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	f.takeCodes()
	account, _ := f.signUp(t, "victim@example.com")
	f.verify(t, account)
	f.enrol(t, account.GetId())
	token, code := f.claims(t, "grace", "victim@example.com")
	further, err := f.giveCode(t, token, code, "")
	if err != nil || further.GetTokens() != nil || f.identities(t, account) != 0 {
		t.Fatalf("got %v, %v, want the challenge of the second factor and no identity", further, err)
	}
	done, err := f.harness.complete(t, further.GetChallenge().GetToken(), rightCode, "")
	if err != nil || done.GetAccount().GetId() != account.GetId() || f.identities(t, account) != 1 {
		t.Fatalf("got %v, %v, want a session and the identity", done, err)
	}
	f.mailed(t, "identity_linked", "victim@example.com")
}

func TestACodeForAProviderRemovesWhatWasPlanted(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	planted, tokens := f.signUp(t, "grace@example.org")
	f.exec(t, `INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), 'https://evil.example', 'mallory', $1, 'work')`, planted.GetId())
	token, code := f.claims(t, "grace", "grace@example.org")
	if done, err := f.giveCode(t, token, code, ""); err != nil || done.GetAccount().GetId() != planted.GetId() {
		t.Fatalf("got %v, %v, want the account", done, err)
	}
	_, err := f.login(t, "grace@example.org", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = f.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken()})
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	if n := f.count(t, `SELECT count(*) FROM auth.identities WHERE subject = 'mallory'`); n != 0 || f.identities(t, planted) != 1 {
		t.Errorf("%d planted identities are left of %d", n, f.identities(t, planted))
	}
}

func TestAnIdentityIsTakenWhileItsCodeIsOnTheWay(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	token, code := f.claims(t, "grace", "grace@example.org")
	f.linked(t, "other@example.com", "grace")
	_, err := f.giveCode(t, token, code, "")
	wantReason(t, err, connect.CodeAlreadyExists, "IDENTITY_TAKEN")
	if n := f.count(t, `SELECT count(*) FROM auth.accounts WHERE email = 'grace@example.org'`); n != 0 {
		t.Error("an account was made without its identity")
	}
}

// Without an email of the provider's, the person is asked for one.
func TestAProviderThatTellsNoEmail(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	f.provider.SetClaims(jwt.MapClaims{"sub": "grace", "email": nil})
	answer := f.visit(t, false, nil)
	give := func(email string) (*authv1.CompleteFederatedLoginResponse, error) {
		return f.federation.CompleteFederatedLogin(t.Context(), &authv1.CompleteFederatedLoginRequest{Answer: answer, AccountId: newID(t), Email: email})
	}
	for range 2 { // a page may be loaded again
		_, err := give("")
		wantReason(t, err, connect.CodeFailedPrecondition, "PROVIDER_EMAIL_MISSING")
	}
	response, err := give("grace@example.org")
	if err != nil || fmt.Sprint(response.GetChallenge().GetMethods()) != "[link email_code]" {
		t.Fatalf("got %v, %v, want a challenge for a mailed code", response, err)
	}
	_, err = give("mallory@example.org")
	wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
	done, err := f.giveCode(t, response.GetChallenge().GetToken(), f.codeTo(t, "grace@example.org"), "")
	if err != nil || done.GetAccount().GetEmail() != "grace@example.org" {
		t.Fatalf("got %v, %v, want a session", done, err)
	}
	if n := f.provider.Calls("/token"); n != 1 {
		t.Errorf("the code was exchanged %d times, want once", n)
	}
	if next := f.mustSignIn(t); next.GetAccount().GetId() != done.GetAccount().GetId() {
		t.Errorf("got the account %s, want %s", next.GetAccount().GetId(), done.GetAccount().GetId())
	}
}

func TestNobodyGetsAnAccountByMailWhereNobodySignsUp(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*auth.Config){
		"by the entry":        func(c *auth.Config) { c.Providers[0].SignUp = false },
		"by the registration": func(c *auth.Config) { c.Registration = auth.RegistrationClosed },
		"by the domain":       func(c *auth.Config) { c.SignUpDomains = []string{"example.com"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, withMail, change)
			if token, code := f.claims(t, "grace", "grace@example.org"); code != "" {
				t.Errorf("a code was mailed for the challenge %s", token)
			}
			// Somebody who has an account links it.
			account := f.create(t, "ada@example.org", password)
			token, code := f.claims(t, "ada", "ada@example.org")
			if done, err := f.giveCode(t, token, code, ""); err != nil || done.GetAccount().GetId() != account.GetId() {
				t.Errorf("got %v, %v, want the account that there is", done, err)
			}
		})
	}
}

// An account without a password and a passkey proves itself by mail.
func TestAnAccountWithoutAPasswordLinksByMail(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withMail)
	account, _ := f.signUp(t, "ada@example.com")
	f.verify(t, account)
	f.exec(t, `UPDATE auth.accounts SET password_hash = '' WHERE id = $1`, account.GetId())
	response, err := f.signIn(t) // the provider vouches for the address
	if err != nil || fmt.Sprint(response.GetChallenge().GetMethods()) != "[link email_code]" {
		t.Fatalf("got %v, %v, want a challenge for a mailed code", response, err)
	}
	done, err := f.giveCode(t, response.GetChallenge().GetToken(), f.codeTo(t, "ada@example.com"), "")
	if err != nil || done.GetAccount().GetId() != account.GetId() || f.identities(t, account) != 1 {
		t.Fatalf("got %v, %v, want a session and the identity", done, err)
	}
}

// A login cannot be taken over by the code of a challenge that links nothing.
func TestACodeOfAnotherChallengeLinksNothing(t *testing.T) {
	t.Parallel()
	f := newFederated(t, byCode)
	account, _ := f.signUp(t, "victim@example.com")
	f.verify(t, account)
	f.post(t)
	own, code := f.askCode(t, "victim@example.com")
	token, _ := f.claims(t, "mallory", "victim@example.com")
	_, err := f.giveCode(t, token, code, "")
	if fault.Reason(err) != "CODE_WRONG" || f.identities(t, account) != 0 {
		t.Errorf("got %v and %d identities, want CODE_WRONG and none", err, f.identities(t, account))
	}
	if done, err := f.giveCode(t, own, code, ""); err != nil || done.GetTokens() == nil || f.identities(t, account) != 0 {
		t.Errorf("got %v, %v and %d identities, want a session and none", done, err, f.identities(t, account))
	}
}

// nOAuth: the administrator of any tenant can give its people any email.
func TestATenantOfMicrosoftSaysTheEmailOfSomebodyElse(t *testing.T) {
	t.Parallel()
	const tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	p := providertest.New(t)
	p.Spoil("/common/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		metadata := p.Metadata()
		metadata["issuer"] = p.URL + "/{tenantid}/v2.0"
		providertest.JSON(w, metadata)
	})
	f := newFederated(t, withMail, func(c *auth.Config) {
		c.Providers = []*provider.Provider{provider.New(provider.Config{
			ID: "work", Kind: provider.Microsoft, Tenant: "common", ClientID: "gatehouse", ClientSecret: "secret", Issuer: p.URL, SignUp: true,
		})}
	})
	f.provider = p
	account, _ := f.signUp(t, "victim@example.com")
	f.verify(t, account)
	outcome := func(email string, claims jwt.MapClaims) string {
		said := jwt.MapClaims{"iss": p.URL + "/" + tenant + "/v2.0", "tid": tenant, "sub": "mallory", "email": email, "email_verified": true}
		maps.Copy(said, claims)
		if said["preferred_username"] != nil {
			said["email"], said["preferred_username"] = nil, email
		}
		p.SetClaims(said)
		response, err := f.signIn(t)
		if response.GetTokens() != nil {
			t.Errorf("%v: signed in to %s", claims, response.GetAccount().GetEmail())
		}
		return fmt.Sprint(response.GetChallenge().GetMethods(), fault.Reason(err))
	}
	for _, claims := range []jwt.MapClaims{
		{}, {"xms_edov": false}, {"xms_edov": "0"}, {"xms_edov": 0}, {"xms_edov": "false"}, {"xms_edov": "yes"}, {"xms_edov": []any{true}}, {"preferred_username": "", "xms_edov": true},
	} {
		want := "[link email_code]"
		if _, ok := claims["preferred_username"]; ok {
			want = "[]PROVIDER_EMAIL_MISSING"
		}
		if victim, nobody := outcome("victim@example.com", claims), outcome("nobody@example.com", claims); victim != want || nobody != want {
			t.Errorf("%v: got %s for an account's email and %s for another, want %s", claims, victim, nobody, want)
		}
	}
	if n := f.count(t, `SELECT count(*) FROM auth.identities`); n != 0 {
		t.Errorf("%d identities were written", n)
	}
	// Even with a tenant that vouches, the account's own proof is owed.
	if got := outcome("victim@example.com", jwt.MapClaims{"xms_edov": true}); got != "[link password]" {
		t.Errorf("with xms_edov: got %s, want [link password]", got)
	}
}
