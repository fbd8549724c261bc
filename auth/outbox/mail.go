package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// Kind is the name of a mail's template.
type Kind string

const (
	VerifyEmail     Kind = "verify_email"           // link: VerifyEmail
	AccountExists   Kind = "account_exists"         // link: VerifyEmail; somebody registered an email that has an account
	Invitation      Kind = "invitation"             // link: VerifyEmail
	ResetPassword   Kind = "reset_password"         // link: ResetPassword
	ConfirmEmail    Kind = "confirm_email"          // link: ConfirmEmailChange, to the new address
	EmailInUse      Kind = "email_in_use"           // to the new address, which another account has
	EmailRequested  Kind = "email_change_requested" // to the old address
	EmailChanged    Kind = "email_changed"          // to both addresses, once it is changed
	PasswordChanged Kind = "password_changed"
	NewSignIn       Kind = "new_sign_in" // from an unknown device

	TOTPAdded        Kind = "totp_added"
	TOTPRemoved      Kind = "totp_removed"
	FactorsReset     Kind = "factors_reset"        // by an administrator
	RecoveryCodeUsed Kind = "recovery_code_used"   // values: codes_left
	FactorFailed     Kind = "second_factor_failed" // a wrong code after a right password
	EnrolmentCode    Kind = "enrolment_code"       // values: code
	SignInCode       Kind = "sign_in"              // link: the page with the code; values: code

	KeyCreated  Kind = "key_created"  // values: key_name, expire_time
	KeyExpiring Kind = "key_expiring" // values: key_name, expire_time

	WebhookFailed   Kind = "webhook_failed"   // to administrators; values: webhook_url
	WebhookDisabled Kind = "webhook_disabled" // to administrators; values: webhook_url

	IdentityLinked   Kind = "identity_linked"   // values: provider
	IdentityUnlinked Kind = "identity_unlinked" // values: provider

	PasskeyAdded    Kind = "passkey_added"
	PasskeyRemoved  Kind = "passkey_removed"
	PasskeyBlocked  Kind = "passkey_blocked" // it may have been copied
	PasswordRemoved Kind = "password_removed"
)

// Page is the last part of the path of a mail's link; empty for a mail without a
// link.
func (k Kind) Page() string {
	switch k {
	case VerifyEmail, AccountExists, Invitation:
		return "verify"
	case ResetPassword:
		return "reset"
	case ConfirmEmail:
		return "email"
	case SignInCode:
		return "sign-in"
	}
	return ""
}

// Mail is one mail to send.
type Mail struct {
	Kind    Kind
	To      string
	Account string // "" when there is none or it is unknown
	Locale  string // a BCP 47 tag; "" for the default
	// Token is the link's, for kinds with a link.
	Token string
	// Values are the template's other values, by name: "ip_address",
	// "user_agent", "time" (RFC 3339), "new_email", "old_email", "first_name",
	// "code", "codes_left", "provider", "key_name", "expire_time" (RFC 3339),
	// "webhook_url".
	Values map[string]string
}

// fragment is that of the mail's link: after the #, nothing appears in a server's log.
func (m Mail) fragment() string {
	if m.Kind == SignInCode {
		return "code=" + m.Values["code"]
	}
	return "token=" + m.Token
}

// secret is what a mail server's answer must not reveal.
func (m Mail) secret() string { return cmp.Or(m.Token, m.Values["code"]) }

// ErrUnavailable is the error of a system without a mail server.
var ErrUnavailable = fault.New(connect.CodeFailedPrecondition, "MAIL_UNAVAILABLE", "This system can't send mail. Ask an administrator.")

// Enabled reports whether mail can be sent at all.
func (o *Outbox) Enabled() bool { return o.mailer != nil }

// sealedMail is the part of a mail that is sealed in its row.
type sealedMail struct {
	Token  string            `json:"token,omitempty"`
	Values map[string]string `json:"values,omitempty"`
}

// mailPurpose is the purpose of sealing; the label is the row's id.
const mailPurpose = "mail v1"

const (
	insertMail = `
		INSERT INTO auth.mails (id, kind, recipient, account_id, locale, sealed_values)
		VALUES (@id, @kind, @recipient, @account_id, @locale, @sealed_values)`
	// To the account's email at the time when the statement runs.
	insertMailIf = `
		INSERT INTO auth.mails (id, kind, recipient, account_id, locale, sealed_values)
		SELECT @id, @kind, a.email, a.id, @locale, @sealed_values FROM auth.accounts a WHERE a.id = @account_id AND %s`
)

// Enqueue writes a mail's outbox row, in the transaction of the change that it is
// about. Without a mailer it does nothing.
func (o *Outbox) Enqueue(ctx context.Context, db database.Execer, m Mail) error {
	if !o.Enabled() {
		return nil
	}
	args, err := o.arguments(m)
	if err != nil {
		return err
	}
	if _, err := db.Exec(ctx, insertMail, args); err != nil {
		return fmt.Errorf("write the mail %s: %w", m.Kind, err)
	}
	o.Wake()
	return nil
}

// Queue adds the statement that writes the outbox row of a mail to its account's
// email to a batch. It writes the row only if the condition holds, in SQL with the
// arguments args, after the batch's earlier statements. Without a mailer it does
// nothing. Call Wake when the batch is committed.
func (o *Outbox) Queue(batch *pgx.Batch, m Mail, condition string, args pgx.NamedArgs) error {
	if !o.Enabled() {
		return nil
	}
	all, err := o.arguments(m)
	if err != nil {
		return err
	}
	maps.Copy(all, args)
	batch.Queue(fmt.Sprintf(insertMailIf, condition), all)
	return nil
}

func (o *Outbox) arguments(m Mail) (pgx.NamedArgs, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	text, err := json.Marshal(sealedMail{Token: m.Token, Values: m.Values})
	if err != nil {
		return nil, fmt.Errorf("encode the mail: %w", err)
	}
	sealed, err := secretkey.Seal(o.secrets[0], mailPurpose, id.String(), text)
	if err != nil {
		return nil, fmt.Errorf("seal the mail: %w", err)
	}
	return pgx.NamedArgs{
		"id": id.String(), "kind": string(m.Kind), "recipient": m.To, "account_id": database.Optional(m.Account),
		"locale": m.Locale, "sealed_values": sealed,
	}, nil
}
