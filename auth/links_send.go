package auth

import (
	"context"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
)

// sendUnaddressed sends a link to an email, without a look whether it has an
// account.
func (s *links) sendUnaddressed(ctx context.Context, tx pgx.Tx, kind outbox.Kind, l link, token string, origin *authv1.Origin) error {
	if err := writeLink(ctx, tx, l, token); err != nil {
		return err
	}
	values := circumstances(origin)
	values[valueRequest] = origin.GetRequestId()
	return s.mails.Enqueue(ctx, tx, outbox.Mail{Kind: kind, To: l.email, Locale: origin.GetLocale(), Token: token, Values: values})
}

// sendOwnersLink sends an account's owner a link that an administrator asked
// for.
func (s *links) sendOwnersLink(ctx context.Context, tx pgx.Tx, kind outbox.Kind, purpose linkKind, account *authv1.Account, locale string) error {
	token, err := issueLink(ctx, tx, link{kind: purpose, email: account.GetEmail(), account: account.GetId()})
	if err != nil {
		return err
	}
	// Where the administrator sits is nothing to its reader.
	return s.mails.Enqueue(ctx, tx, outbox.Mail{Kind: kind, To: account.GetEmail(), Account: account.GetId(), Locale: locale, Token: token})
}

// sendVerifyLink sends an account's owner a link by which they show that the
// email is theirs.
func (s *links) sendVerifyLink(ctx context.Context, tx pgx.Tx, account *authv1.Account, origin *authv1.Origin) error {
	token, err := issueLink(ctx, tx, link{kind: linkVerify, email: account.GetEmail(), account: account.GetId()})
	if err != nil {
		return err
	}
	return s.mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: outbox.VerifyEmail, To: account.GetEmail(), Account: account.GetId(),
		Locale: localeOf(origin, account.GetId()), Token: token, Values: circumstances(origin),
	})
}
