package app

import (
	"fmt"
	"slices"
	"strings"

	"gatehouse/internal/email"
)

// emailSignInFlags say whether people sign in with mailed codes. auth decides it, and the
// gateway's pages offer it.
type emailSignInFlags struct {
	EmailSignIn string `env:"GATEHOUSE_EMAIL_SIGN_IN" default:"off" placeholder:"on|off" help:"Let people sign in with a code that is mailed to them (on); where people may register, it also creates their account. It needs mail."`
}

func (f *emailSignInFlags) on() bool { return f.EmailSignIn == "on" }

func (f *emailSignInFlags) check(c *checks) {
	if f.EmailSignIn != "on" && f.EmailSignIn != "off" {
		c.add("GATEHOUSE_EMAIL_SIGN_IN", fmt.Sprintf("%q is not known", f.EmailSignIn), "set it to on or off")
	}
	// A gateway by itself sends no mail, and has no settings for it.
	if mail := find[*mailFlags](c.settings); f.on() && mail != nil && mail.SMTPURL == "" && !mail.enabled() {
		c.add("GATEHOUSE_EMAIL_SIGN_IN", "on needs mail, and SMTP_URL is not set", "set SMTP_URL, or set GATEHOUSE_EMAIL_SIGN_IN to off")
	}
}

// signUpFlags say who may register.
type signUpFlags struct {
	SignUpDomains string `env:"GATEHOUSE_SIGNUP_DOMAINS" placeholder:"LIST" help:"Let only people with an email of these domains, such as example.com,example.org, create an account for themselves. All if empty. Administrators may create any."`

	domains []string
}

func (f *signUpFlags) check(c *checks) {
	f.domains = nil
	for _, item := range list(f.SignUpDomains) {
		domain := strings.ToLower(strings.TrimPrefix(item, "@"))
		switch {
		case !email.Mailable("somebody@" + domain):
			c.add("GATEHOUSE_SIGNUP_DOMAINS", fmt.Sprintf("%q is not the domain of an email", item), "name domains such as example.com")
		case !slices.Contains(f.domains, domain):
			f.domains = append(f.domains, domain)
		}
	}
}
