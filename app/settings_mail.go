package app

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"gatehouse/auth"
	mailer "gatehouse/internal/mail"
)

// mailFlags say how mail is sent.
type mailFlags struct {
	SMTPURL       string `name:"smtp-url" aliases:"smtpurl" env:"SMTP_URL" placeholder:"URL" help:"Send mail through this server, such as smtps://user:password@mail.example.com:465, or smtp:// with STARTTLS. In up, mail goes to a mailbox in the data folder if empty."`
	MailFrom      string `env:"GATEHOUSE_MAIL_FROM" placeholder:"EMAIL" help:"Send mail from this address; no-reply at the public URL's host if empty."`
	MailTemplates string `env:"GATEHOUSE_MAIL_TEMPLATES" placeholder:"FOLDER" help:"Use the mail templates in this folder instead of the built-in ones of the same name. If empty, only the built-in ones are used."`

	// mailbox is the folder for mail where there is no server; set by up.
	mailbox string

	smtp      *mailer.SMTP // nil without a server
	from      string
	templates *mailer.Templates
}

// enabled reports whether mail can be sent at all.
func (f *mailFlags) enabled() bool { return f.smtp != nil || f.mailbox != "" }

func (f *mailFlags) check(c *checks) { f.parse(c.problems, find[*publicFlags](c.settings).url) }

func (f *mailFlags) parse(p *problems, publicURL string) {
	var err error
	if f.SMTPURL != "" {
		f.mailbox = ""
		// The error doesn't show the value: it may hold a password.
		if f.smtp, err = mailer.NewSMTP(f.SMTPURL); err != nil {
			p.add("SMTP_URL", err.Error(), "set it to a URL such as smtps://user:password@mail.example.com:465")
		}
	}
	f.from = f.MailFrom
	if f.MailFrom == "" {
		f.from = "no-reply@" + mailHost(publicURL)
	} else if _, err := mail.ParseAddress(f.MailFrom); err != nil {
		p.add("GATEHOUSE_MAIL_FROM", fmt.Sprintf("%q is not an email", f.MailFrom), "set it to one such as no-reply@example.com or Example <no-reply@example.com>")
	}
	var folder fs.FS
	if f.MailTemplates != "" {
		folder = os.DirFS(f.MailTemplates)
		if info, err := os.Stat(f.MailTemplates); err != nil || !info.IsDir() {
			p.add("GATEHOUSE_MAIL_TEMPLATES", fmt.Sprintf("%q is not a folder that can be read", f.MailTemplates), "name such a folder, or unset it")
			return
		}
	}
	if f.templates, err = mailer.Open(folder); err != nil {
		p.add("GATEHOUSE_MAIL_TEMPLATES", strings.ReplaceAll(err.Error(), "\n", "; "), "fix that file, or remove it")
	}
}

// mailer returns the sender of mail; nil if no mail can be sent.
func (f *mailFlags) mailer(logger *slog.Logger) auth.Mailer {
	switch {
	case f.smtp != nil:
		return f.smtp
	case f.mailbox != "":
		return mailer.NewMailbox(f.mailbox, logger)
	}
	return nil
}

// mailHost is the public URL's host in the form that an email address needs.
// net/mail parses no IPv6 address there.
func mailHost(publicURL string) string {
	parsed, err := url.Parse(publicURL)
	if err != nil {
		return "localhost"
	}
	address, err := netip.ParseAddr(parsed.Hostname())
	switch {
	case err != nil:
		return parsed.Hostname()
	case address.Is4():
		return "[" + address.String() + "]"
	}
	return "localhost"
}
