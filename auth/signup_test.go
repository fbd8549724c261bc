package auth_test

import (
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

func ofExample(c *auth.Config) { c.SignUpDomains = []string{"example.com", "example.net"} }

func TestNobodyOfOtherDomainsRegisters(t *testing.T) {
	t.Parallel()
	h := newHarness(t, ofExample)
	for _, email := range []string{"ada@example.org", "ada@sub.example.com", "ada@notexample.com", "ada@example.com.evil.org"} {
		_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: email, Password: password, SignIn: true})
		wantReason(t, err, connect.CodePermissionDenied, "SIGN_UP_DOMAIN")
	}
	for _, email := range []string{"ada@example.com", "Bob@Example.NET"} {
		h.signUp(t, email)
	}
	h.create(t, "carol@example.org", password) // by an administrator
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 3 {
		t.Errorf("%d accounts, want 3", n)
	}
}

// With verify, the answer is the same; only the mail is missing, unless there is an
// account.
func TestNobodyOfOtherDomainsGetsALinkToRegister(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink, ofExample)
	h.create(t, "carol@example.org", password)
	inside, outside := h.register(t, "ada@example.com"), h.register(t, "ada@example.org")
	if !proto.Equal(inside, outside) {
		t.Errorf("got %v and %v, want one answer", inside, outside)
	}
	h.wantMails(t, "verify_email ada@example.com")
	h.register(t, "carol@example.org")
	h.wantMails(t, "account_exists carol@example.org")
}

// The list may change while a link is on its way.
func TestALinkOfAnotherDomainCreatesNoAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	h.register(t, "ada@example.org")
	token := h.mailed(t, "verify_email", "ada@example.org").Token
	narrower := h.config
	ofExample(&narrower)
	h.open(t, narrower)
	_, err := h.verify(t, token)
	wantReason(t, err, connect.CodePermissionDenied, "SIGN_UP_DOMAIN")
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 0 {
		t.Errorf("%d accounts, want none", n)
	}
}

// In verify mode, neither the answer nor its time tells which domains may register: not of
// a registration, and not of a request for a code.
func TestNobodyLearnsWhichDomainsMayRegister(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink, byCode, func(c *auth.Config) { c.SignUpDomains = []string{"there.example"} })
	id := newID(t)
	for name, call := range map[string]func(email string) (proto.Message, error){
		"CreateAccount": func(email string) (proto.Message, error) {
			return h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: id, Email: email, Password: password, SignIn: true})
		},
		"RequestSignInCode": func(email string) (proto.Message, error) {
			owed, err := h.tryCode(t, email, "")
			if owed != nil {
				owed.Token = "" // random
			}
			return owed, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []float64
			for try := range 2 { // as in TestNobodyLearnsWhoHasAnAccount
				inside, outside := h.timeBoth(t, try*samples, call)
				area := areaUnderCurve(inside, outside)
				t.Logf("area %.3f; medians %v for a listed domain, %v for another", area, median(inside), median(outside))
				if area > 0.45 && area < 0.55 {
					return
				}
				seen = append(seen, area)
			}
			t.Errorf("the time of %d calls a side tells which domains may register: areas %.3f, want 0.45 to 0.55", samples, seen)
		})
	}
}
