package app

import (
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryProblemInTheMailSettingsIsReported(t *testing.T) {
	t.Parallel()
	broken := t.TempDir()
	if err := os.Mkdir(filepath.Join(broken, "fr"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "fr", "invitation.tmpl"), []byte(`{{define "subject"}}Bienvenue{{end}}{{define "text"}}{{.Lien}}{{end}}{{define "html"}}{{end}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		flags           mailFlags
		registration    string
		want, wantClear []string
	}{
		"none":                        {mailFlags{}, "open", nil, nil},
		"verify without a server":     {mailFlags{}, "verify", []string{"GATEHOUSE_REGISTRATION", "SMTP_URL"}, nil},
		"verify with a mailbox":       {mailFlags{mailbox: "mailbox"}, "verify", nil, nil},
		"verify with a server":        {mailFlags{SMTPURL: "smtp://localhost:25"}, "verify", nil, []string{"GATEHOUSE_REGISTRATION"}},
		"verify with a broken server": {mailFlags{SMTPURL: "http://u:hunter2@mail.example.com"}, "verify", []string{"SMTP_URL", "smtps://"}, []string{"hunter2", "GATEHOUSE_REGISTRATION"}},
		"a password in the clear":     {mailFlags{SMTPURL: "smtp://u:hunter2@mail.example.com?tls=none"}, "open", []string{"SMTP_URL", "password"}, []string{"hunter2"}},
		"who it is from":              {mailFlags{MailFrom: "nobody"}, "open", []string{"GATEHOUSE_MAIL_FROM", "nobody"}, nil},
		"from with a name":            {mailFlags{MailFrom: "Example <no-reply@example.com>"}, "open", nil, nil},
		"no folder":                   {mailFlags{MailTemplates: filepath.Join(broken, "nothing")}, "open", []string{"GATEHOUSE_MAIL_TEMPLATES", "not a folder"}, nil},
		"a broken template":           {mailFlags{MailTemplates: broken}, "open", []string{"GATEHOUSE_MAIL_TEMPLATES", "fr/invitation.tmpl", "Lien"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m problems
			s := &settings{}
			s.add(&publicFlags{PublicURL: "https://auth.example.com"}, &test.flags, &passwordFlags{PasswordMin: 8}, &accountFlags{
				Registration: test.registration, SessionIdle: "30d", SessionMax: "365d", AdminEmail: "admin@localhost", KeyLife: "30d", AuditLife: "400d",
			})
			s.checkValues(&m)
			if (len(m) > 0) != (len(test.want) > 0) {
				t.Fatalf("got the problems %v", m)
			}
			for _, want := range test.want {
				if !strings.Contains(m.Error(), want) {
					t.Errorf("it doesn't say %q: %v", want, m)
				}
			}
			for _, clear := range test.wantClear {
				if strings.Contains(m.Error(), clear) {
					t.Errorf("it says %q: %v", clear, m)
				}
			}
		})
	}
}

func TestMailIsFromThePublicURLsHost(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://auth.example.com":      "no-reply@auth.example.com",
		"https://auth.example.com:8443": "no-reply@auth.example.com",
		"http://localhost:8001":         "no-reply@localhost",
		"http://127.0.0.1:8001":         "no-reply@[127.0.0.1]",
		"http://[::1]:8001":             "no-reply@localhost",
	} {
		var m problems
		var flags mailFlags
		flags.parse(&m, url)
		if got := flags.from; got != want || len(m) > 0 {
			t.Errorf("%s: got %q, want %q, and %v", url, got, want, m)
		}
		if _, err := netmail.ParseAddress(want); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
}
