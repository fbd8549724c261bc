package app

import (
	"fmt"
	"strings"
	"time"

	"gatehouse/auth"
	"gatehouse/internal/email"
)

// passwordFlags are the rules for new passwords.
type passwordFlags struct {
	PasswordMin int `env:"GATEHOUSE_PASSWORD_MIN" default:"8" placeholder:"NUMBER" help:"Require at least this many characters in a new password: 8 to 64. 15 is recommended for passwords without a second factor."`
}

func (f *passwordFlags) check(c *checks) { f.parse(c.problems) }

func (f *passwordFlags) parse(p *problems) {
	if f.PasswordMin < auth.DefaultPasswordMin || f.PasswordMin > 64 {
		p.add("GATEHOUSE_PASSWORD_MIN", fmt.Sprintf("%d is out of range", f.PasswordMin), "set it to 8 to 64")
	}
}

// checkPassword checks a new password of an account.
func (f *passwordFlags) checkPassword(p *problems, name, password string) {
	if length := len([]rune(password)); length < f.PasswordMin || length > 128 {
		p.add(name, fmt.Sprintf("has %d characters", length), fmt.Sprintf("use %d to 128", f.PasswordMin))
	}
}

// defaultRegistration is the default in the tag of accountFlags.
const defaultRegistration = string(auth.RegistrationVerify)

// accountFlags are the rules for accounts and sessions.
type accountFlags struct {
	Registration  string `env:"GATEHOUSE_REGISTRATION" default:"verify" placeholder:"open|verify|closed" help:"Let anybody create an account (open), anybody who follows a mailed link (verify), or administrators only (closed)."`
	SessionIdle   string `env:"GATEHOUSE_SESSION_IDLE" default:"30d" placeholder:"TIME" help:"End sessions that have not been used for this time, such as 30d or 12h."`
	SessionMax    string `env:"GATEHOUSE_SESSION_MAX" default:"365d" placeholder:"TIME" help:"End every session after this time."`
	AdminEmail    string `env:"GATEHOUSE_ADMIN_EMAIL" default:"admin@localhost" placeholder:"EMAIL" help:"Create the administrator of the first run with this email."`
	AdminPassword string `env:"GATEHOUSE_ADMIN_PASSWORD" placeholder:"PASSWORD" help:"Create that administrator with this password. If empty, up generates one, and other commands create no administrator."`
	KeyLife       string `env:"GATEHOUSE_KEY_LIFE" default:"30d" placeholder:"TIME" help:"Rotate signing keys after this time."`
	AuditLife     string `env:"GATEHOUSE_AUDIT_LIFE" default:"400d" placeholder:"TIME" help:"Keep audit events for this time: at least 30d."`

	sessionIdle, sessionMax time.Duration
	keyLife, auditLife      time.Duration
}

func (f *accountFlags) check(c *checks) {
	f.sessionIdle = parseDuration(c.problems, "GATEHOUSE_SESSION_IDLE", f.SessionIdle)
	f.sessionMax = parseDuration(c.problems, "GATEHOUSE_SESSION_MAX", f.SessionMax)
	f.keyLife = parseDuration(c.problems, "GATEHOUSE_KEY_LIFE", f.KeyLife)
	f.auditLife = parseDuration(c.problems, "GATEHOUSE_AUDIT_LIFE", f.AuditLife)
	f.AdminEmail = email.Normalize(f.AdminEmail)
	mail := find[*mailFlags](c.settings)
	switch auth.Registration(f.Registration) {
	case auth.RegistrationOpen, auth.RegistrationClosed:
	case auth.RegistrationVerify:
		if mail.SMTPURL == "" && !mail.enabled() {
			c.add("GATEHOUSE_REGISTRATION", "verify needs mail, and SMTP_URL is not set", "set SMTP_URL, or set GATEHOUSE_REGISTRATION to open or closed")
		}
	default:
		c.add("GATEHOUSE_REGISTRATION", fmt.Sprintf("%q is not known", f.Registration), "set it to open, verify or closed")
	}
	if f.keyLife < time.Hour {
		c.add("GATEHOUSE_KEY_LIFE", fmt.Sprintf("%q is less than an hour", f.KeyLife), "set it to a time such as 30d")
	}
	if f.auditLife < 30*24*time.Hour {
		c.add("GATEHOUSE_AUDIT_LIFE", fmt.Sprintf("%q is less than 30 days", f.AuditLife), "set it to a time such as 400d")
	}
	checkEmail(c.problems, "GATEHOUSE_ADMIN_EMAIL", f.AdminEmail)
	if f.AdminPassword != "" {
		find[*passwordFlags](c.settings).checkPassword(c.problems, "GATEHOUSE_ADMIN_PASSWORD", f.AdminPassword)
	}
}

// checkEmail checks a new email of an account.
func checkEmail(p *problems, name, address string) {
	if !email.Mailable(email.Normalize(address)) {
		p.add(name, fmt.Sprintf("%q is not an email that mail can be sent to", address), "use one such as admin@example.com")
	}
}

// parseDuration parses Go's durations and whole days, such as 30d.
func parseDuration(p *problems, name, text string) time.Duration {
	var days int
	if rest, ok := strings.CutSuffix(text, "d"); ok {
		if _, err := fmt.Sscanf(rest+"d", "%dd", &days); err == nil && days > 0 && days <= 3650 {
			return time.Duration(days) * 24 * time.Hour
		}
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration < time.Minute || duration > 3650*24*time.Hour {
		p.add(name, fmt.Sprintf("%q is not a time from one minute to ten years", text), "set it to a time such as 30d or 12h")
	}
	return duration
}
