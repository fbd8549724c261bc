package auth

import (
	"context"
	"encoding/json"
	"fmt"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
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

var errMailUnavailable = rpc.NewError(connect.CodeFailedPrecondition, "MAIL_UNAVAILABLE", "This system can't send mail. Ask an administrator.")

// sendsMail reports whether mail can be sent at all.
func (s *Service) sendsMail() bool { return s.mailer != nil }

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
	plain, err := json.Marshal(map[string]any{"token": m.token, "values": m.values})
	if err != nil {
		return fmt.Errorf("encode the mail: %w", err)
	}
	sealed, err := seal(s.secrets[0], "mail v1", id.String(), plain)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, insertMail, pgx.NamedArgs{
		"id": id.String(), "kind": string(m.kind), "recipient": m.to, "account_id": optional(m.account), "locale": m.locale, "sealed": sealed,
	})
	if err != nil {
		return fmt.Errorf("write the mail: %w", err)
	}
	return nil
}

const insertMail = `
	INSERT INTO auth.mails (id, kind, recipient, account_id, locale, sealed_values)
	VALUES (@id, @kind, @recipient, @account_id, @locale, @sealed)`

// ListMails implements authv1.MailServiceHandler.
func (s *Service) ListMails(ctx context.Context, req *authv1.ListMailsRequest) (*authv1.ListMailsResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// RetryMail implements authv1.MailServiceHandler.
func (s *Service) RetryMail(ctx context.Context, req *authv1.RetryMailRequest) (*authv1.RetryMailResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}
