package e2e

import (
	"encoding/hex"
	"fmt"
	"html"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/auth/outbox"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/mail"
	"gatehouse/internal/mailtest"
)

// kindsOfMail are those that have a template.
func kindsOfMail(t *testing.T) []string {
	t.Helper()
	files, err := os.ReadDir("internal/mail/templates/en")
	if err != nil || len(files) < 20 {
		t.Fatalf("there are %d templates, %v", len(files), err)
	}
	var kinds []string
	for _, file := range files {
		kinds = append(kinds, strings.TrimSuffix(file.Name(), ".tmpl"))
	}
	return kinds
}

// linkedMails makes the API send every kind of mail that has a link of its own, and returns
// the recipient of each.
func linkedMails(t *testing.T, s *harness.System) map[string]string {
	t.Helper()
	admin := s.Admin(t).Client()
	if _, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: "new@example.com", Password: harness.Password}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: "guest@example.com"}, Password: harness.Password}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: "guest@example.com", Password: harness.Password}); err != nil {
		t.Fatal(err)
	}
	s.Invite(t, "invited@example.com")
	if _, err := s.Client("").Auth.RequestPasswordReset(t.Context(), &bffv1.RequestPasswordResetRequest{Email: harness.AdminEmail}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Account.RequestEmailChange(t.Context(), &bffv1.RequestEmailChangeRequest{NewEmail: "other@example.com"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client("").Auth.RequestSignInCode(t.Context(), &bffv1.RequestSignInCodeRequest{Email: "guest@example.com"}); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"verify_email": "new@example.com", "account_exists": "guest@example.com", "invitation": "invited@example.com",
		"reset_password": harness.AdminEmail, "confirm_email": "other@example.com", "sign_in": "guest@example.com",
	}
}

// queuer writes mails into the outbox of a system, as auth does.
func queuer(t *testing.T, s *harness.System, smtp string) func(kind, to, locale string) {
	t.Helper()
	secret, err := hex.DecodeString(harness.SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	mailer, err := mail.NewSMTP(smtp)
	if err != nil {
		t.Fatal(err)
	}
	box, err := outbox.New(outbox.Config{Mailer: mailer, Secrets: [][]byte{secret}})
	if err != nil {
		t.Fatal(err)
	}
	return func(kind, to, locale string) {
		t.Helper()
		values := map[string]string{"provider": "Google", "code": "K7MQ2XWB", "key_name": "Nightly"}
		if err := box.Enqueue(t.Context(), s.Owner, outbox.Mail{Kind: outbox.Kind(kind), To: to, Locale: locale, Values: values}); err != nil {
			t.Fatal(err)
		}
	}
}

// address is a link in a mail's text, without what ends its sentence.
var address = regexp.MustCompile(`https?://[^\s<>"]*[^\s<>".,:;]`)

func TestEveryMailNamesTheProductAndLinksToPagesThatAreThere(t *testing.T) {
	t.Parallel()
	const app = "Loom & Söhne"
	server := mailtest.Start(t, mailtest.Config{})
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings(
		"SMTP_URL="+server.URL(), "GATEHOUSE_APP_NAME="+app, "GATEHOUSE_REGISTRATION=verify", "GATEHOUSE_EMAIL_SIGN_IN=on"))
	linked := linkedMails(t, s)
	queue := queuer(t, s, server.URL())
	kinds := kindsOfMail(t)
	for _, kind := range kinds {
		if linked[kind] == "" {
			queue(kind, strings.ReplaceAll(kind, "_", "-")+"@en.example.com", "en")
			queue(kind, strings.ReplaceAll(kind, "_", "-")+"@de.example.com", "de")
		}
	}
	harness.Eventually(t, 60*time.Second, "send every mail", func() error {
		if n := s.Count(t, "SELECT count(*) FROM auth.mails WHERE sent_time IS NULL"); n > 0 {
			return fmt.Errorf("%d are not sent", n)
		}
		return nil
	})
	for _, kind := range kinds {
		if sent := s.Count(t, "SELECT count(*) FROM auth.mails WHERE kind = $1", kind); sent == 0 {
			t.Errorf("%s was not sent", kind)
		}
	}
	pages := map[string]bool{}
	for _, got := range server.Received() {
		if !strings.Contains(got.Subject(), app) || !strings.Contains(got.Text, app) || !strings.Contains(html.UnescapeString(got.HTML), app) {
			t.Errorf("%s (%q) does not name the product:\n%s", got.To, got.Subject(), got.Text)
		}
		if from, err := got.Header.AddressList("From"); err != nil || from[0].Name != app {
			t.Errorf("%s (%q) is from %v, %v", got.To, got.Subject(), from, err)
		}
		links := address.FindAllString(got.Text, -1)
		if helpful := slices.DeleteFunc(slices.Clone(links), func(link string) bool { return link == s.URL || strings.Contains(link, "#") }); len(helpful) == 0 {
			t.Errorf("%s (%q) links to no page:\n%s", got.To, got.Subject(), got.Text)
		}
		for _, link := range append(links, address.FindAllString(html.UnescapeString(got.HTML), -1)...) {
			page, _, _ := strings.Cut(link, "#")
			pages[page] = true
		}
	}
	for page := range pages {
		if status, body := harness.Get(t, page); !strings.HasPrefix(page, s.URL) || status != 200 || !strings.Contains(body, "<html") {
			t.Errorf("%s is %d", page, status)
		}
	}
	if len(pages) < 12 {
		t.Errorf("the mails link to %v", pages)
	}
}

func TestMailsOfASystemWithoutPagesLinkToNone(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Config{})
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("SMTP_URL="+server.URL(), "GATEHOUSE_PAGES=off"))
	queue := queuer(t, s, server.URL())
	queue("password_changed", "ada@example.com", "en")
	queue("new_sign_in", "ada@example.com", "de")
	for _, got := range server.Wait(t, 2) {
		if links := address.FindAllString(got.Text, -1); !slices.Equal(links, []string{s.URL}) {
			t.Errorf("%q links to %v", got.Subject(), links)
		}
		if host := strings.TrimPrefix(s.URL, "http://"); !strings.Contains(got.Subject(), host) {
			t.Errorf("without a name, the subject is %q", got.Subject())
		}
	}
}
