package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/fault"
)

var (
	errUserNotFound       = fault.New(connect.CodeNotFound, "USER_NOT_FOUND", "There is no such user.")
	errEmailTaken         = fault.New(connect.CodeAlreadyExists, "EMAIL_TAKEN", "Another account has this email. Sign in with it, or use another.")
	errAccountExists      = fault.New(connect.CodeAlreadyExists, "ACCOUNT_EXISTS", "There is an account with this id already.")
	errRegistrationClosed = fault.New(connect.CodePermissionDenied, "REGISTRATION_CLOSED", "Registration is closed. Ask an administrator for an account.")
	errLastAdministrator  = fault.New(connect.CodeFailedPrecondition, "LAST_ADMINISTRATOR", "This is the last active administrator. Make another one first.")
	errReauthenticate     = fault.New(connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED", "Give your password again (Reauthenticate), then repeat this within five minutes.")
)

// violates reports whether Postgres refused for the sake of a constraint.
func violates(err error, constraint string) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.ConstraintName == constraint
}

// sortedRoles returns the roles sorted, each once, never nil.
func sortedRoles(roles []string) []string {
	sorted := append([]string{}, roles...)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

const accountColumns = `a.id, a.email, a.email_verified, a.status, a.roles, a.authz_version, a.create_time, a.update_time`

// scanAccount reads the columns of accountColumns, and more into rest.
func scanAccount(row pgx.Row, rest ...any) (*authv1.Account, error) {
	var found authv1.Account
	var status string
	var created, updated time.Time
	into := []any{&found.Id, &found.Email, &found.EmailVerified, &status, &found.Roles, &found.AuthzVersion, &created, &updated}
	if err := row.Scan(append(into, rest...)...); err != nil {
		return nil, err
	}
	found.CreateTime, found.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	found.Status = authv1.AccountStatus_ACCOUNT_STATUS_DISABLED
	if status == statusActive {
		found.Status = authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE
	}
	return &found, nil
}

const (
	statusActive   = "active"
	statusDisabled = "disabled"
)

const (
	selectAccount     = `SELECT ` + accountColumns + ` FROM auth.accounts a WHERE a.id = @id`
	selectAccountLock = selectAccount + ` FOR UPDATE`
)

// accountByID returns an account. Errors: not_found USER_NOT_FOUND.
func accountByID(ctx context.Context, tx pgx.Tx, id string) (*authv1.Account, error) {
	return queryAccount(ctx, tx, selectAccount, id)
}

// lockedAccount locks an account's row and returns it. Errors: not_found
// USER_NOT_FOUND.
func lockedAccount(ctx context.Context, tx pgx.Tx, id string) (*authv1.Account, error) {
	return queryAccount(ctx, tx, selectAccountLock, id)
}

func queryAccount(ctx context.Context, tx pgx.Tx, query, id string) (*authv1.Account, error) {
	account, err := scanAccount(tx.QueryRow(ctx, query, pgx.NamedArgs{"id": id}))
	if missing(err) {
		return nil, errUserNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	return account, nil
}

const selectAccountFacts = `
	SELECT ` + accountColumns + `, a.password_change_time, a.last_sign_in_time,
		(SELECT count(*) FROM auth.sessions s
		 WHERE s.account_id = a.id AND s.revoke_time IS NULL AND s.epoch >= ` + currentEpoch + ` AND s.expire_time > now())
	FROM auth.accounts a WHERE a.id = @id`

// GetAccount implements authv1.AccountServiceHandler.
func (s *Service) GetAccount(ctx context.Context, req *authv1.GetAccountRequest) (*authv1.GetAccountResponse, error) {
	var passwordChanged time.Time
	var signedIn *time.Time
	var sessions int32
	account, err := scanAccount(s.db.QueryRow(ctx, selectAccountFacts, pgx.NamedArgs{"id": req.GetAccountId()}),
		&passwordChanged, &signedIn, &sessions)
	if missing(err) {
		return nil, errUserNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	security := &authv1.SecurityFacts{PasswordChangeTime: timestamppb.New(passwordChanged), ActiveSessions: sessions}
	if signedIn != nil {
		security.LastSignInTime = timestamppb.New(*signedIn)
	}
	return &authv1.GetAccountResponse{Account: account, Security: security}, nil
}

const selectAccounts = `
	SELECT ` + accountColumns + `
	FROM unnest(@ids::uuid[]) WITH ORDINALITY AS asked (id, place) JOIN auth.accounts a USING (id)
	ORDER BY asked.place`

// BatchGetAccounts implements authv1.AccountServiceHandler.
func (s *Service) BatchGetAccounts(ctx context.Context, req *authv1.BatchGetAccountsRequest) (*authv1.BatchGetAccountsResponse, error) {
	rows, err := s.db.Query(ctx, selectAccounts, pgx.NamedArgs{"ids": req.GetAccountIds()})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Account, error) { return scanAccount(row) })
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	return &authv1.BatchGetAccountsResponse{Accounts: accounts}, nil
}

// change locks an account, lets apply change it, and writes what stands or
// falls with the change: the outbox row and the audit row. Afterwards it tells
// users. apply returns whether anything changed. A refusal is audited too.
func (s *Service) change(ctx context.Context, id string, event event, origin *authv1.Origin,
	apply func(tx pgx.Tx, before *authv1.Account) (bool, error),
) (*authv1.Account, error) {
	var after *authv1.Account
	var changed bool
	row := audited{event: event, outcome: succeeded, account: id, origin: origin}
	crashpoint.Reach("auth: before the account is changed")
	err := s.transact(ctx, func(tx pgx.Tx) error {
		before, err := lockedAccount(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := requireIfAsked(ctx, tx, origin); err != nil {
			return err
		}
		if changed, err = apply(tx, before); err != nil || !changed {
			after = before
			return err
		}
		if err := keepsAnAdministrator(ctx, tx, before); err != nil {
			return err
		}
		crashpoint.Reach("auth: before the change's outbox is written")
		var version int64
		if err := tx.QueryRow(ctx, raiseVersion, pgx.NamedArgs{"id": id}).Scan(&version); err != nil {
			return fmt.Errorf("raise the version: %w", err)
		}
		if err := enqueue(ctx, tx, id, version, nil); err != nil {
			return err
		}
		if after, err = accountByID(ctx, tx, id); err != nil {
			return err
		}
		err = audit(ctx, tx, row)
		crashpoint.Reach("auth: before the change is committed")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", event, s.refuse(ctx, row, err))
	}
	crashpoint.Reach("auth: after the change is committed")
	if changed {
		s.revocations.Soon()
		s.tell(ctx, id)
	}
	return after, nil
}

const raiseVersion = `
	UPDATE auth.accounts SET version = version + 1, update_time = clock_timestamp() WHERE id = @id RETURNING version`

const (
	// Held to the end of the transaction, it makes removals of administrators
	// take turns, so that two can't remove each other.
	lockAdministrators = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse administrators', 0))"
	// One who has yet to choose a password can't sign in, and doesn't count.
	existsAdministrators = `
		SELECT EXISTS (SELECT FROM auth.accounts WHERE status = 'active' AND 'admin' = ANY (roles) AND password_hash <> '')`
)

// keepsAnAdministrator refuses a change that leaves no active administrator,
// where the account was one before it. Errors: failed_precondition
// LAST_ADMINISTRATOR.
func keepsAnAdministrator(ctx context.Context, tx pgx.Tx, before *authv1.Account) error {
	if before.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE || !slices.Contains(before.GetRoles(), AdminRole) {
		return nil
	}
	if _, err := tx.Exec(ctx, lockAdministrators); err != nil {
		return fmt.Errorf("lock the administrators: %w", err)
	}
	var left bool
	if err := tx.QueryRow(ctx, existsAdministrators).Scan(&left); err != nil {
		return fmt.Errorf("look for an administrator: %w", err)
	}
	if !left {
		return errLastAdministrator
	}
	return nil
}

const updateStatus = `
	UPDATE auth.accounts SET status = @status, authz_version = authz_version + 1
	WHERE id = @id AND status <> @status`

// SetAccountStatus implements authv1.AccountServiceHandler.
func (s *Service) SetAccountStatus(ctx context.Context, req *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
	status, happening := statusActive, eventAccountEnable
	if req.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_DISABLED {
		status, happening = statusDisabled, eventAccountDisable
	}
	account, err := s.change(ctx, req.GetAccountId(), happening, req.GetOrigin(), func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		tag, err := tx.Exec(ctx, updateStatus, pgx.NamedArgs{"id": before.GetId(), "status": status})
		if err != nil {
			return false, fmt.Errorf("set the status: %w", err)
		}
		if tag.RowsAffected() > 0 {
			if err := revokeBelow(ctx, tx, before.GetId(), before.GetAuthzVersion()+1); err != nil {
				return false, err
			}
		}
		if status == statusDisabled {
			if _, err := revokeSessions(ctx, tx, before.GetId(), "", "disabled"); err != nil {
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
func (s *Service) SetAccountRoles(ctx context.Context, req *authv1.SetAccountRolesRequest) (*authv1.SetAccountRolesResponse, error) {
	account, err := s.change(ctx, req.GetAccountId(), eventRolesChange, req.GetOrigin(), func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		tag, err := tx.Exec(ctx, updateRoles, pgx.NamedArgs{"id": before.GetId(), "roles": sortedRoles(req.GetRoles())})
		if err != nil {
			return false, fmt.Errorf("set the roles: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return false, nil
		}
		return true, revokeBelow(ctx, tx, before.GetId(), before.GetAuthzVersion()+1)
	})
	if err != nil {
		return nil, err
	}
	return &authv1.SetAccountRolesResponse{Account: account}, nil
}

const (
	deleteAccount = `DELETE FROM auth.accounts WHERE id = @id RETURNING version`
	// What names the person without naming the account: a link that was asked
	// for by their address, mail that went there.
	eraseByAddress = `
		WITH links AS (DELETE FROM auth.links WHERE lower(email COLLATE "C") = lower(@email COLLATE "C"))
		DELETE FROM auth.mails WHERE lower(recipient COLLATE "C") = lower(@email COLLATE "C")`
	eraseAudit = `SELECT auth.erase_audit(@id)`
)

// DeleteAccount implements authv1.AccountServiceHandler.
func (s *Service) DeleteAccount(ctx context.Context, req *authv1.DeleteAccountRequest) (*authv1.DeleteAccountResponse, error) {
	crashpoint.Reach("auth: before the account is deleted")
	row := audited{event: eventAccountDelete, outcome: succeeded, account: req.GetAccountId(), origin: req.GetOrigin()}
	err := s.transact(ctx, func(tx pgx.Tx) error {
		before, err := lockedAccount(ctx, tx, req.GetAccountId())
		if err != nil {
			return err
		}
		if err := requireIfAsked(ctx, tx, req.GetOrigin()); err != nil {
			return err
		}
		if req.GetRequireRecentSignIn() {
			owner := &authv1.Origin{AccountId: req.GetAccountId(), SessionId: req.GetOrigin().GetSessionId()}
			if err := requireRecentSignIn(ctx, tx, owner); err != nil {
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
		return nil, fmt.Errorf("delete an account: %w", s.refuse(ctx, row, err))
	}
	crashpoint.Reach("auth: after the deletion is committed")
	s.revocations.Soon()
	s.tell(ctx, req.GetAccountId())
	return &authv1.DeleteAccountResponse{}, nil
}

// erase deletes an account with all that is held about its person, and notes the
// deletion. Of the person, the audit keeps the account's id alone. Sessions,
// links and mails that name the account go with its row.
func (s *Service) erase(ctx context.Context, tx pgx.Tx, account *authv1.Account, row audited) error {
	var version int64
	if err := tx.QueryRow(ctx, deleteAccount, pgx.NamedArgs{"id": account.GetId()}).Scan(&version); err != nil {
		return fmt.Errorf("delete the account: %w", err)
	}
	if err := keepsAnAdministrator(ctx, tx, account); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, eraseByAddress, pgx.NamedArgs{"email": account.GetEmail()}); err != nil {
		return fmt.Errorf("erase what its address names: %w", err)
	}
	// Its sessions are gone with it, so that its tokens are named by the account.
	if err := revokeBelow(ctx, tx, account.GetId(), account.GetAuthzVersion()+1); err != nil {
		return err
	}
	crashpoint.Reach("auth: before the deletion's outbox is written")
	if err := enqueueDeletion(ctx, tx, account.GetId(), version+1); err != nil {
		return err
	}
	if err := audit(ctx, tx, row); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, eraseAudit, pgx.NamedArgs{"id": account.GetId()}); err != nil {
		return fmt.Errorf("erase from the audit where the person came from: %w", err)
	}
	return nil
}
