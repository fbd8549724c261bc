package outbox

import (
	"strings"
	"testing"
	"time"

	post "gatehouse/internal/mail"
)

var kinds = []Kind{
	VerifyEmail, AccountExists, Invitation, ResetPassword, ConfirmEmail,
	EmailInUse, EmailRequested, EmailChanged, PasswordChanged, NewSignIn,
	TOTPAdded, TOTPRemoved, FactorsReset, RecoveryCodeUsed, FactorFailed, EnrolmentCode, SignInCode,
	KeyCreated, KeyExpiring, WebhookFailed, WebhookDisabled, IdentityLinked, IdentityUnlinked,
	PasskeyAdded, PasskeyRemoved, PasskeyBlocked, PasswordRemoved,
}

const linkToken = "ghl_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU"

func TestTheBackoffGrowsToAnHour(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: 10 * time.Second, 2: 20 * time.Second, 5: 160 * time.Second, 10: time.Hour, 1000: time.Hour} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := backoffAfter(attempts)
			if got < want*3/4 || got > want*5/4 {
				t.Errorf("after %d tries it waits %s, want about %s", attempts, got, want)
			}
			seen[got] = true
		}
		if len(seen) < 2 {
			t.Errorf("after %d tries all wait equally long", attempts)
		}
	}
}

func TestAServersAnswerIsKeptWithoutTheLink(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"554 no user":      "554 no user",
		"554 " + linkToken: "554 [link]",
		"554 <http://x/#token=3D" + linkToken + ">!":                      "554 [link]",
		"554 broken " + linkToken[:20] + "=\r\n" + linkToken[20:] + " up": "554 broken [link] [link] up",
		"554 a\x00b \xff\r\n\tc":                                          "554 ab ? c",
		"554 " + strings.Repeat("long ", 99):                              strings.TrimSuffix(("554 " + strings.Repeat("long ", 99))[:200], "") + "…",
	} {
		if got := shown(linkToken, text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestEveryKindOfMailHasATemplateAndItsLinkLeadsToAPage(t *testing.T) {
	t.Parallel()
	templates, err := post.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kinds {
		kind, page := string(name), name.Page()
		const link = "https://example.com/link/x#token=y"
		if !templates.Has(kind) {
			t.Errorf("%s has no template", kind)
			continue
		}
		rendered, err := templates.Render(post.Letter{Kind: kind, Link: link, Site: "https://example.com"})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(rendered.Text, link) != (page != "") {
			t.Errorf("%s leads to the page %q, and its text is\n%s", kind, page, rendered.Text)
		}
	}
	if len(kinds) != 27 {
		t.Errorf("there are %d kinds, want 27", len(kinds))
	}
}
