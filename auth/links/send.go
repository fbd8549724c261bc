package links

import (
	"context"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
)

// SendUnaddressed sends a link to an email without checking whether it has an
// account.
func (s *Sender) SendUnaddressed(ctx context.Context, tx pgx.Tx, kind outbox.Kind, l Link, token string, origin *authv1.Origin) error {
	if err := write(ctx, tx, l, token); err != nil {
		return err
	}
	values := outbox.Circumstances(origin)
	values[valueRequest] = origin.GetRequestId()
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{Kind: kind, To: l.Email, Locale: origin.GetLocale(), Token: token, Values: values})
}

// SendToOwner sends an account's owner a link that an administrator requested.
func (s *Sender) SendToOwner(ctx context.Context, tx pgx.Tx, kind outbox.Kind, purpose Kind, account *authv1.Account, locale string) error {
	token, err := Issue(ctx, tx, Link{Kind: purpose, Email: account.GetEmail(), Account: account.GetId()})
	if err != nil {
		return err
	}
	// Without the administrator's address and user agent.
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{Kind: kind, To: account.GetEmail(), Account: account.GetId(), Locale: locale, Token: token})
}

// SendVerification sends an account's owner a link that verifies the email.
func (s *Sender) SendVerification(ctx context.Context, tx pgx.Tx, account *authv1.Account, origin *authv1.Origin) error {
	token, err := Issue(ctx, tx, Link{Kind: Verify, Email: account.GetEmail(), Account: account.GetId()})
	if err != nil {
		return err
	}
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: outbox.VerifyEmail, To: account.GetEmail(), Account: account.GetId(),
		Locale: outbox.LocaleOf(origin, account.GetId()), Token: token, Values: outbox.Circumstances(origin),
	})
}
