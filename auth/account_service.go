package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/accountlog"
	"gatehouse/auth/accounts"
	"gatehouse/auth/apikeys"
	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/factors"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/relay"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/database"
	"gatehouse/internal/standby"
)

// accountService implements authv1.AccountServiceHandler.
type accountService struct {
	db           *database.Pool
	reads        standby.Reads
	registration Registration
	accounts     *accounts.Store
	passwords    *passwords.Checker
	sessions     *sessions
	links        *links.Sender
	calls        *idempotency.Keys
	log          *audit.Log
	mails        *outbox.Outbox
	events       *accountlog.Log
	relay        *relay.Relay
	revocations  *revocations.Feed
	factors      *factors.Service
	apiKeys      *apikeys.Service
}

const selectAccountFacts = `
	SELECT ` + accounts.Columns + `, CASE WHEN ` + accounts.PasswordHash + ` <> '' THEN a.password_change_time END, a.last_sign_in_time,
		a.second_factor, (SELECT count(*) FROM auth.recovery_codes r WHERE r.account_id = a.id AND r.use_time IS NULL),
		(SELECT count(*) FROM auth.sessions s
		 WHERE s.account_id = a.id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND s.expire_time > now())
	FROM auth.accounts a WHERE a.id = @id`

// GetAccount implements authv1.AccountServiceHandler.
func (s *accountService) GetAccount(ctx context.Context, req *authv1.GetAccountRequest) (*authv1.GetAccountResponse, error) {
	var passwordChanged, signedIn *time.Time
	security := &authv1.SecurityFacts{}
	account, err := accounts.Scan(s.reads.Of(ctx).QueryRow(ctx, selectAccountFacts, pgx.NamedArgs{"id": req.GetAccountId()}),
		&passwordChanged, &signedIn, &security.SecondFactor, &security.RecoveryCodesLeft, &security.ActiveSessions)
	if database.Missing(err) {
		return nil, accounts.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	if passwordChanged != nil {
		security.PasswordChangeTime = timestamppb.New(*passwordChanged)
	}
	if signedIn != nil {
		security.LastSignInTime = timestamppb.New(*signedIn)
	}
	return &authv1.GetAccountResponse{Account: account, Security: security}, nil
}

const selectAccounts = `
	SELECT ` + accounts.Columns + `
	FROM unnest(@ids::uuid[]) WITH ORDINALITY AS asked (id, place) JOIN auth.accounts a USING (id)
	ORDER BY asked.place`

// BatchGetAccounts implements authv1.AccountServiceHandler.
func (s *accountService) BatchGetAccounts(ctx context.Context, req *authv1.BatchGetAccountsRequest) (*authv1.BatchGetAccountsResponse, error) {
	rows, err := s.db.Query(ctx, selectAccounts, pgx.NamedArgs{"ids": req.GetAccountIds()})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Account, error) { return accounts.Scan(row) })
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	return &authv1.BatchGetAccountsResponse{Accounts: accounts}, nil
}

const updateStatus = `
	UPDATE auth.accounts SET status = @status, authz_version = authz_version + 1
	WHERE id = @id AND status <> @status`

// SetAccountStatus implements authv1.AccountServiceHandler.
func (s *accountService) SetAccountStatus(ctx context.Context, req *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
	status, happening := accounts.Active, audit.AccountEnable
	if req.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_DISABLED {
		status, happening = accounts.Disabled, audit.AccountDisable
	}
	account, err := s.accounts.Change(ctx, req.GetAccountId(), happening, req.GetOrigin(), func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		tag, err := tx.Exec(ctx, updateStatus, pgx.NamedArgs{"id": before.GetId(), "status": status})
		if err != nil {
			return false, fmt.Errorf("set the status: %w", err)
		}
		if tag.RowsAffected() > 0 {
			if err := revocations.RevokeBelow(ctx, tx, before.GetId(), before.GetAuthzVersion()+1); err != nil {
				return false, err
			}
		}
		if status == accounts.Disabled {
			if _, err := revocations.RevokeSessions(ctx, tx, before.GetId(), "", "disabled"); err != nil {
				return false, err
			}
		}
		return tag.RowsAffected() > 0, nil
	})
	if err != nil {
		return nil, err
	}
	return &authv1.SetAccountStatusResponse{Account: account}, nil
}

const updateRoles = `
	UPDATE auth.accounts SET roles = @roles, authz_version = authz_version + 1
	WHERE id = @id AND roles <> @roles`

// SetAccountRoles implements authv1.AccountServiceHandler.
func (s *accountService) SetAccountRoles(ctx context.Context, req *authv1.SetAccountRolesRequest) (*authv1.SetAccountRolesResponse, error) {
	account, err := s.accounts.Change(ctx, req.GetAccountId(), audit.RolesChange, req.GetOrigin(), func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		tag, err := tx.Exec(ctx, updateRoles, pgx.NamedArgs{"id": before.GetId(), "roles": accounts.SortedRoles(req.GetRoles())})
		if err != nil {
			return false, fmt.Errorf("set the roles: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return false, nil
		}
		return true, revocations.RevokeBelow(ctx, tx, before.GetId(), before.GetAuthzVersion()+1)
	})
	if err != nil {
		return nil, err
	}
	return &authv1.SetAccountRolesResponse{Account: account}, nil
}

const (
	deleteAccount = `DELETE FROM auth.accounts WHERE id = @id`
	// Rows that name the person but not the account: links that were requested for
	// the address, mail that was sent there.
	eraseByAddress = `
		WITH links AS (DELETE FROM auth.links WHERE lower(email COLLATE "C") = lower(@email COLLATE "C"))
		DELETE FROM auth.mails WHERE lower(recipient COLLATE "C") = lower(@email COLLATE "C")`
	eraseAudit = `SELECT auth.erase_audit(@id)`
)

// DeleteAccount implements authv1.AccountServiceHandler.
func (s *accountService) DeleteAccount(ctx context.Context, req *authv1.DeleteAccountRequest) (*authv1.DeleteAccountResponse, error) {
	crashpoint.Reach("auth: before the account is deleted")
	row := audit.Row{Event: audit.AccountDelete, Outcome: audit.Succeeded, Account: req.GetAccountId(), Origin: req.GetOrigin()}
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		before, err := accounts.Lock(ctx, tx, req.GetAccountId())
		if err != nil {
			return err
		}
		if err := accounts.RequireIfAsked(ctx, tx, req.GetOrigin()); err != nil {
			return err
		}
		if req.GetRequireRecentSignIn() {
			owner := &authv1.Origin{AccountId: req.GetAccountId(), SessionId: req.GetOrigin().GetSessionId()}
			if err := accounts.RequireRecentSignIn(ctx, tx, owner); err != nil {
				return err
			}
		}
		if err := s.erase(ctx, tx, before, row); err != nil {
			return err
		}
		crashpoint.Reach("auth: before the deletion is committed")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("delete an account: %w", s.log.Refuse(ctx, row, err))
	}
	crashpoint.Reach("auth: after the deletion is committed")
	s.revocations.Soon()
	s.events.Soon()
	return &authv1.DeleteAccountResponse{}, nil
}

// erase deletes an account with all data about the person, and audits the deletion.
// The audit keeps only the account's id. Sessions, links and mails that reference
// the account are deleted with its row.
func (s *accountService) erase(ctx context.Context, tx pgx.Tx, account *authv1.Account, row audit.Row) error {
	keep, err := s.accounts.KeepAdministrator(ctx, tx, account)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, deleteAccount, pgx.NamedArgs{"id": account.GetId()}); err != nil {
		return fmt.Errorf("delete the account: %w", err)
	}
	if err := keep(); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, eraseByAddress, pgx.NamedArgs{"email": account.GetEmail()}); err != nil {
		return fmt.Errorf("erase the rows of its address: %w", err)
	}
	// Its sessions are deleted with it, so its tokens are revoked by the account.
	if err := revocations.RevokeBelow(ctx, tx, account.GetId(), account.GetAuthzVersion()+1); err != nil {
		return err
	}
	crashpoint.Reach("auth: before the outbox is erased")
	if err := accountlog.Erase(ctx, tx, account.GetId()); err != nil {
		return err
	}
	if err := audit.Write(ctx, tx, row); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, eraseAudit, pgx.NamedArgs{"id": account.GetId()}); err != nil {
		return fmt.Errorf("erase client info from the audit: %w", err)
	}
	return nil
}
