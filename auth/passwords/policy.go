package passwords

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"gatehouse/internal/fault"
	"gatehouse/internal/password"
)

const (
	// maxPassword is the maximum length of a password, in characters (NIST SP 800-63B
	// asks for 64 at least).
	maxPassword = 128
	// minEmailName is the minimum length of the email's local part to reject: a
	// shorter one occurs in good passwords by chance.
	minEmailName = 4
)

// CheckNew checks that an account with the email may have the new password, which
// is the value of the request's field. Errors: invalid_argument PASSWORD_TOO_SHORT,
// PASSWORD_TOO_LONG, PASSWORD_COMMON, PASSWORD_BREACHED or PASSWORD_CONTAINS_EMAIL.
func (p *Checker) CheckNew(field, text, email string) error {
	if err := p.CheckLength(field, text); err != nil {
		return err
	}
	if containsEmail(text, email) {
		return fault.Invalid("PASSWORD_CONTAINS_EMAIL", field, "leave the name in the email out of it: that is what is guessed first")
	}
	if password.Common(text) {
		return fault.Invalid("PASSWORD_COMMON", field, "many people use this one, so it is soon guessed: choose another, such as a few words in a row")
	}
	if p.Breached == nil {
		return nil
	}
	breached, err := p.Breached.Has(text)
	if err != nil {
		return err
	}
	if breached {
		return fault.Invalid("PASSWORD_BREACHED", field, "it was found in data of a breach, so it is soon guessed: choose another, and change it wherever else you use it")
	}
	return nil
}

// CheckLength is the only check of an operator's password. Errors:
// invalid_argument PASSWORD_TOO_SHORT or PASSWORD_TOO_LONG.
func (p *Checker) CheckLength(field, text string) error {
	length := utf8.RuneCountInString(password.Normal(text))
	switch {
	case length < p.Min:
		return fault.Invalid("PASSWORD_TOO_SHORT", field, fmt.Sprintf("give it at least %d characters", p.Min))
	case length > maxPassword:
		return fault.Invalid("PASSWORD_TOO_LONG", field, fmt.Sprintf("give it at most %d characters", maxPassword))
	}
	return nil
}

// containsEmail reports whether the password is the email or holds the name in
// it, in any case, with or without what stands after a plus.
func containsEmail(text, email string) bool {
	folded, email := password.Fold(text), password.Fold(strings.TrimSpace(email))
	name, _, _ := strings.Cut(email, "@")
	untagged, _, _ := strings.Cut(name, "+")
	for _, part := range []string{name, untagged} {
		if utf8.RuneCountInString(part) >= minEmailName && strings.Contains(folded, part) {
			return true
		}
	}
	return folded == email
}
