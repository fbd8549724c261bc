package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/mailtest"
)

func TestWithoutAMailServerUpKeepsMailInAMailboxAndLogsItsLinks(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	id := s.Invite(t, "ada@example.com")
	folder := s.Mailbox()
	harness.Eventually(t, 10*time.Second, "print the banner", func() error {
		if got := harness.BannerField(s.Processes["up"].Stdout.String(), "mailbox"); got != folder {
			return fmt.Errorf("the banner's mailbox is %q, want %q", got, folder)
		}
		return nil
	})
	var file string
	harness.Eventually(t, 30*time.Second, "find the mail", func() error {
		files, err := filepath.Glob(filepath.Join(folder, "*-invitation-"+id+".eml"))
		if err == nil && len(files) != 1 {
			err = fmt.Errorf("there are %d mails", len(files))
		}
		if err == nil {
			file = files[0]
		}
		return err
	})
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	mail, err := mailtest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(regexp.QuoteMeta(s.URL+"/link/verify#token=") + `ghl_[A-Za-z0-9_-]{43}`).FindString(mail.Text)
	if link == "" || mail.Header.Get("From") != "<no-reply@[127.0.0.1]>" || !strings.HasPrefix(mail.Subject(), "Sie sind zu") {
		t.Errorf("the mail is\n%s", raw)
	}
	harness.Eventually(t, 10*time.Second, "see the link in the log", func() error {
		if log := s.Processes["up"].Stderr.String(); !strings.Contains(log, link) {
			return fmt.Errorf("the log is %s", log)
		}
		return nil
	})
	_, token, _ := strings.Cut(link, "#token=")
	in, err := s.Client("").Auth.VerifyEmail(t.Context(), &bffv1.VerifyEmailRequest{Token: token, Password: harness.Password})
	if err != nil || in.GetUser().GetEmail() != "ada@example.com" || !in.GetUser().GetEmailVerified() {
		t.Errorf("the link's holder signs in: got %v, %v", in.GetUser(), err)
	}
}

func TestMailGoesToTheServerThatIsNamed(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Config{})
	templates := t.TempDir()
	if err := os.Mkdir(filepath.Join(templates, "de"), 0o700); err != nil {
		t.Fatal(err)
	}
	own := `{{define "subject"}}Willkommen{{end}}{{define "text"}}Grüezi: {{.Link}}{{end}}{{define "html"}}<p>{{.Link}}</p>{{end}}`
	if err := os.WriteFile(filepath.Join(templates, "de", "invitation.tmpl"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, shape := range harness.Shapes {
		s := harness.Start(t, shape, harness.WithSettings("SMTP_URL="+server.URL(), "GATEHOUSE_MAIL_FROM=Example <hello@example.com>", "GATEHOUSE_MAIL_TEMPLATES="+templates, "GATEHOUSE_REGISTRATION=verify"))
		to := strings.ReplaceAll(string(shape), " ", "-") + "@example.com"
		s.Invite(t, to)
		harness.Eventually(t, 30*time.Second, "get the mail", func() error {
			if !slices.ContainsFunc(server.Received(), func(m mailtest.Received) bool {
				return m.To == to && m.From == "hello@example.com" && m.Subject() == "Willkommen" && strings.Contains(m.Text, "Grüezi: "+s.URL)
			}) {
				return fmt.Errorf("the server has %v", server.Received())
			}
			return nil
		})
	}
}

func TestAnAdministratorSeesADeadLetterAndHasItTriedAgain(t *testing.T) {
	t.Parallel()
	var refusing atomic.Bool
	refusing.Store(true)
	server := mailtest.Start(t, mailtest.Config{Rcpt: func(to string) error {
		if refusing.Load() && strings.Contains(to, "lost@") {
			return mailtest.Refuse(550, "unknown here")
		}
		return nil
	}})
	s := harness.Start(t, harness.OneProcess, harness.WithSettings("SMTP_URL="+server.URL()))
	admin := s.Admin(t).Client()
	id := s.Invite(t, "lost@example.com")
	harness.Eventually(t, 30*time.Second, "be refused once", func() error {
		tag, err := s.Owner.Exec(t.Context(), "UPDATE auth.mails SET attempts = 2, next_attempt_time = now() WHERE id = $1 AND last_error <> ''", id)
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("not yet")
		}
		return err
	})
	var dead []*bffv1.Mail
	harness.Eventually(t, 30*time.Second, "see the dead letter", func() error {
		page, err := admin.Users.ListMails(t.Context(), &bffv1.ListMailsRequest{Status: bffv1.MailStatus_MAIL_STATUS_FAILED})
		if dead = page.GetMails(); err == nil && len(dead) != 1 {
			err = fmt.Errorf("there are %d", len(dead))
		}
		return err
	})
	if dead[0].GetId() != id || dead[0].GetRecipient() != "lost@example.com" || dead[0].GetLastError() != "550 5.1.1 unknown here" {
		t.Errorf("the dead letter is %v", dead[0])
	}
	ada := s.SignUp(t, "ada@example.com").Client()
	_, err := ada.Users.ListMails(t.Context(), &bffv1.ListMailsRequest{})
	harness.WantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")
	_, err = ada.Users.RetryMail(t.Context(), &bffv1.RetryMailRequest{MailId: id})
	harness.WantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")

	refusing.Store(false)
	if _, err := admin.Users.RetryMail(t.Context(), &bffv1.RetryMailRequest{MailId: id}); err != nil {
		t.Fatal(err)
	}
	server.Wait(t, 1)
	harness.Eventually(t, 30*time.Second, "see it sent", func() error {
		page, err := admin.Users.ListMails(t.Context(), &bffv1.ListMailsRequest{Status: bffv1.MailStatus_MAIL_STATUS_SENT})
		if err == nil && !slices.ContainsFunc(page.GetMails(), func(m *bffv1.Mail) bool { return m.GetId() == id && m.GetLastError() == "" }) {
			err = fmt.Errorf("the mails that were sent are %v", page.GetMails())
		}
		return err
	})
	_, err = admin.Users.RetryMail(t.Context(), &bffv1.RetryMailRequest{MailId: id})
	harness.WantReason(t, err, connect.CodeFailedPrecondition, "MAIL_NOT_FAILED")
	if n := s.Count(t, "SELECT count(*) FROM auth.audit_events WHERE event IN ('mail.fail', 'mail.retry')"); n != 2 {
		t.Errorf("the audit has %d events of it, want 2", n)
	}
}
