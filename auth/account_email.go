package auth

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/links"
	authv1 "gatehouse/gen/auth/v1"
)

const updateEmail = `UPDATE auth.accounts SET email = @email, email_verified = false WHERE id = @id`

// ChangeAccountEmail implements authv1.AccountServiceHandler.
func (s *accountService) ChangeAccountEmail(ctx context.Context, req *authv1.ChangeAccountEmailRequest) (*authv1.ChangeAccountEmailResponse, error) {
	email := strings.TrimSpace(req.GetEmail())
	account, err := s.accounts.Change(ctx, req.GetAccountId(), audit.EmailChange, req.GetOrigin(), func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		if email == before.GetEmail() {
			return false, nil
		}
		if err := links.Supersede(ctx, tx, before); err != nil {
			return false, err
		}
		return true, s.accounts.ReplaceEmail(ctx, tx, updateEmail, before, email, req.GetOrigin())
	})
	if err != nil {
		return nil, err
	}
	return &authv1.ChangeAccountEmailResponse{Account: account}, nil
}
