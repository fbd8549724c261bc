package accounts

import (
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// Registration says who may create an account.
type Registration string

const (
	// RegistrationOpen lets anybody create an account, signed in at once.
	RegistrationOpen Registration = "open"
	// RegistrationVerify sends a link first, and reveals nobody's account.
	RegistrationVerify Registration = "verify"
	// RegistrationClosed lets only administrators create accounts.
	RegistrationClosed Registration = "closed"
)

var (
	ErrRegistrationClosed = fault.New(connect.CodePermissionDenied, "REGISTRATION_CLOSED", "Registration is closed. Ask an administrator for an account.")
	ErrSignUpDomain       = fault.New(connect.CodePermissionDenied, "SIGN_UP_DOMAIN", "People may register here with an email of certain domains only. Use one of your organisation, or ask an administrator for an account.")
)

// SignUps decide who may create an account for themselves, in whatever way. Accounts
// that administrators and operators create are not theirs to refuse.
type SignUps struct {
	Registration Registration
	// Domains are those of the emails that people may register with, in lower case;
	// empty for all.
	Domains []string
}

// Check reports whether the owner of an email may create an account. Errors:
// permission_denied REGISTRATION_CLOSED or SIGN_UP_DOMAIN.
func (s SignUps) Check(email string) error {
	if s.Registration == RegistrationClosed {
		return ErrRegistrationClosed
	}
	if len(s.Domains) == 0 {
		return nil
	}
	folded := FoldEmail(strings.TrimSpace(email))
	if !slices.Contains(s.Domains, folded[strings.LastIndexByte(folded, '@')+1:]) {
		return ErrSignUpDomain
	}
	return nil
}
