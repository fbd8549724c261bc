package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"gatehouse/internal/fault"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// mailKind is which mail it is: its template's name.
type mailKind string

const (
	mailVerifyEmail     mailKind = "verify_email"           // link: VerifyEmail
	mailAccountExists   mailKind = "account_exists"         // link: VerifyEmail; somebody registered an email that has an account
	mailInvitation      mailKind = "invitation"             // link: VerifyEmail
	mailResetPassword   mailKind = "reset_password"         // link: ResetPassword
	mailConfirmEmail    mailKind = "confirm_email"          // link: ConfirmEmailChange, to the new address
	mailEmailInUse      mailKind = "email_in_use"           // to the new address, which another account has
	mailEmailRequested  mailKind = "email_change_requested" // to the old address
	mailEmailChanged    mailKind = "email_changed"          // to both addresses, once it is changed
	mailPasswordChanged mailKind = "password_changed"
	mailNewSignIn       mailKind = "new_sign_in" // from an unknown device
)

var mailKinds = []mailKind{
	mailVerifyEmail, mailAccountExists, mailInvitation, mailResetPassword, mailConfirmEmail,
	mailEmailInUse, mailEmailRequested, mailEmailChanged, mailPasswordChanged, mailNewSignIn,
}

// page is the last part of the path that a mail's link leads to; empty for a
// mail without a link.
func (k mailKind) page() string {
	switch k {
	case mailVerifyEmail, mailAccountExists, mailInvitation:
		return "verify"
	case mailResetPassword:
		return "reset"
	case mailConfirmEmail:
		return "email"
	}
	return ""
}

// mail is one mail to be sent.
type mail struct {
	kind    mailKind
	to      string
	account string // "" when it isn't known, or there is none
	locale  string // a BCP 47 tag; "" for the default
	// token is the link's, for kinds that have a link.
	token string
	// values are what else its template says, by name: "ip_address",
	// "user_agent", "time" (RFC 3339), "new_email", "old_email", "first_name".
	values map[string]string
}

var errMailUnavailable = fault.New(connect.CodeFailedPrecondition, "MAIL_UNAVAILABLE", "This system can't send mail. Ask an administrator.")

// sendsMail reports whether mail can be sent at all.
func (s *Service) sendsMail() bool { return s.mails.mailer != nil }

// sealedMail is what of a mail is sealed in its row.
type sealedMail struct {
	Token  string            `json:"token,omitempty"`
	Values map[string]string `json:"values,omitempty"`
}

// mailPurpose binds what is sealed to being a mail's; the label is the row's id.
const mailPurpose = "mail v1"

const insertMail = `
	INSERT INTO auth.mails (id, kind, recipient, account_id, locale, sealed_values)
	VALUES (@id, @kind, @recipient, @account_id, @locale, @sealed_values)`

// enqueueMail writes a mail's outbox row. In a transaction it stands or falls
// with the change that it is about. Without a mailer it does nothing.
func (s *Service) enqueueMail(ctx context.Context, db execer, m mail) error {
	if !s.sendsMail() {
		return nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	text, err := json.Marshal(sealedMail{Token: m.token, Values: m.values})
	if err != nil {
		return fmt.Errorf("encode the mail: %w", err)
	}
	sealed, err := seal(s.mails.secrets[0], mailPurpose, id.String(), text)
	if err != nil {
		return fmt.Errorf("seal the mail: %w", err)
	}
	_, err = db.Exec(ctx, insertMail, pgx.NamedArgs{
		"id": id.String(), "kind": string(m.kind), "recipient": m.to, "account_id": optional(m.account),
		"locale": m.locale, "sealed_values": sealed,
	})
	if err != nil {
		return fmt.Errorf("write the mail %s: %w", m.kind, err)
	}
	s.mails.soon()
	return nil
}
