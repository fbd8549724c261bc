// Package accounts reads and writes accounts.
//
// A change of an account locks its row, writes its outbox row and its audit row in
// one transaction, and is delivered to users afterwards. An account's row is locked
// before those of its sessions and links.
package accounts

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

var (
	ErrNotFound          = fault.New(connect.CodeNotFound, "USER_NOT_FOUND", "There is no such user.")
	ErrEmailTaken        = fault.New(connect.CodeAlreadyExists, "EMAIL_TAKEN", "Another account has this email. Sign in with it, or use another.")
	ErrExists            = fault.New(connect.CodeAlreadyExists, "ACCOUNT_EXISTS", "There is an account with this id already.")
	ErrLastAdministrator = fault.New(connect.CodeFailedPrecondition, "LAST_ADMINISTRATOR", "This is the last active administrator. Make another one first.")
	// ErrLastSignIn refuses the removal of the only way to sign in.
	ErrLastSignIn = fault.New(connect.CodeFailedPrecondition, "LAST_SIGN_IN_METHOD", "The account could not sign in after this. Add another passkey or provider first, or set a password (RequestPasswordReset).")
	ErrDisabled   = fault.New(connect.CodePermissionDenied, "ACCOUNT_DISABLED", "This account is disabled. Ask an administrator to enable it.")
)

// SortedRoles returns the roles sorted, each once, never nil.
func SortedRoles(roles []string) []string {
	sorted := append([]string{}, roles...)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// Columns are the columns of an account, aliased a, for Scan.
const Columns = `a.id, a.email, a.email_verified, a.status, a.roles, a.authz_version, a.create_time, a.update_time`

// Scan reads Columns, and further columns into rest.
func Scan(row pgx.Row, rest ...any) (*authv1.Account, error) {
	var found authv1.Account
	var status string
	var created, updated time.Time
	into := []any{&found.Id, &found.Email, &found.EmailVerified, &status, &found.Roles, &found.AuthzVersion, &created, &updated}
	if err := row.Scan(append(into, rest...)...); err != nil {
		return nil, err
	}
	found.CreateTime, found.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	found.Status = authv1.AccountStatus_ACCOUNT_STATUS_DISABLED
	if status == Active {
		found.Status = authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE
	}
	return &found, nil
}

// Statuses of an account.
const (
	Active   = "active"
	Disabled = "disabled"
)

const (
	Select            = `SELECT ` + Columns + ` FROM auth.accounts a WHERE a.id = @id`
	selectAccountLock = Select + ` FOR UPDATE`
)

// ByID returns an account. Errors: not_found USER_NOT_FOUND.
func ByID(ctx context.Context, tx pgx.Tx, id string) (*authv1.Account, error) {
	return queryAccount(ctx, tx, Select, id)
}

// Lock locks an account's row and returns it. Errors: not_found
// USER_NOT_FOUND.
func Lock(ctx context.Context, tx pgx.Tx, id string) (*authv1.Account, error) {
	return queryAccount(ctx, tx, selectAccountLock, id)
}

func queryAccount(ctx context.Context, tx pgx.Tx, query, id string) (*authv1.Account, error) {
	account, err := Scan(tx.QueryRow(ctx, query, pgx.NamedArgs{"id": id}))
	if database.Missing(err) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	return account, nil
}

const selectAccountByEmailLock = `
		SELECT ` + Columns + ` FROM auth.accounts a WHERE lower(a.email COLLATE "C") = lower(@email COLLATE "C") FOR UPDATE`

// LockByEmail locks the account with the email, in any case, and
// returns it; nil when there is none.
func LockByEmail(ctx context.Context, tx pgx.Tx, email string) (*authv1.Account, error) {
	account, err := Scan(tx.QueryRow(ctx, selectAccountByEmailLock, pgx.NamedArgs{"email": email}))
	if database.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the account: %w", err)
	}
	return account, nil
}
