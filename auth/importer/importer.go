// Package importer creates accounts from JSON lines.
package importer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/auth/accountlog"
	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/email"
	"gatehouse/internal/password"
)

const (
	// importBatch is how many rows one transaction writes.
	importBatch   = 500
	maxImportLine = 1 << 20
)

// origin is that of every import.
var origin = &authv1.Origin{UserAgent: "gatehouse admin import"}

// importedAccount is one line of an import. Without a password hash, the owner needs
// a password reset to sign in.
type importedAccount struct {
	ID            string   `json:"id"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	PasswordHash  string   `json:"password_hash"`
	FirstName     string   `json:"first_name"`
	LastName      string   `json:"last_name"`
	Locale        string   `json:"locale"`
	Roles         []string `json:"roles"`
	Status        string   `json:"status"`

	line int
}

// Run creates an account from each JSON line and returns how many it created. A line
// that is not valid is refused with the reason, and the others continue; with
// dryRun, nothing is written. An error means that it could not continue: accounts
// created until then exist.
func Run(ctx context.Context, db *database.Pool, source io.Reader, dryRun bool, refuse func(line int, reason string)) (int, error) {
	lines := bufio.NewScanner(source)
	lines.Buffer(nil, maxImportLine)
	emails, ids := map[string]int{}, map[string]int{}
	var batch []importedAccount
	made, number := 0, 0
	flush := func() error {
		n, err := importLines(ctx, db, batch, dryRun, refuse)
		made, batch = made+n, batch[:0]
		return err
	}
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // a byte order mark, which some editors write
		}
		if len(line) == 0 {
			continue
		}
		account, err := parseImported(line)
		if err != nil {
			refuse(number, err.Error())
			continue
		}
		account.line = number
		if before, ok := emails[accounts.FoldEmail(account.Email)]; ok {
			refuse(number, fmt.Sprintf("email: line %d has it already", before))
			continue
		}
		if before, ok := ids[account.ID]; ok {
			refuse(number, fmt.Sprintf("id: line %d has it already", before))
			continue
		}
		emails[accounts.FoldEmail(account.Email)], ids[account.ID] = number, number
		if batch = append(batch, account); len(batch) == importBatch {
			if err := flush(); err != nil {
				return made, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return made, errors.Join(fmt.Errorf("read line %d: %w", number+1, err), flush())
	}
	return made, flush()
}

// The API's other constraints on profiles.
var localeForm = regexp.MustCompile(`^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?$`)

// parseImported parses a line and checks it against the API's rules for accounts.
// Its errors name the field.
func parseImported(line []byte) (importedAccount, error) {
	account := importedAccount{Status: accounts.Active}
	if !utf8.Valid(line) {
		return account, errors.New("it contains invalid UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&account); err != nil {
		return account, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return account, errors.New("more follows the object: give each account a line of its own")
	}
	if account.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return account, fmt.Errorf("make an id: %w", err)
		}
		account.ID = id.String()
	}
	account.Email = email.Normalize(account.Email)
	account.ID = strings.ToLower(account.ID) // as Postgres writes it
	if err := validImported(account); err != nil {
		return account, err
	}
	return account, nil
}

func validImported(account importedAccount) error {
	err := protovalidate.Validate(&authv1.CreateAccountRequest{
		AccountId: account.ID, Email: account.Email, Roles: account.Roles,
		Profile: &authv1.ProfileSeed{FirstName: account.FirstName, LastName: account.LastName, Locale: account.Locale},
	})
	if invalid, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		var faults []string
		for _, violation := range invalid.Violations {
			field := strings.TrimPrefix(protovalidate.FieldPathString(violation.Proto.GetField()), "profile.")
			if field == "account_id" {
				field = "id"
			}
			faults = append(faults, field+": "+violation.Proto.GetMessage())
		}
		return errors.New(strings.Join(faults, "; "))
	}
	switch {
	case err != nil:
		return err
	case strings.ContainsFunc(account.FirstName, unicode.IsControl):
		return errors.New("first_name: it contains a control character")
	case strings.ContainsFunc(account.LastName, unicode.IsControl):
		return errors.New("last_name: it contains a control character")
	case strings.Contains(account.FirstName, "<") || strings.Contains(account.FirstName, "://"):
		return errors.New("first_name: it must be a name, without < and ://")
	case strings.Contains(account.LastName, "<") || strings.Contains(account.LastName, "://"):
		return errors.New("last_name: it must be a name, without < and ://")
	case !localeForm.MatchString(account.Locale):
		return errors.New(`locale: it is not a BCP 47 tag, such as "pt-BR"`)
	case account.Status != accounts.Active && account.Status != accounts.Disabled:
		return fmt.Errorf("status: it is neither %q nor %q", accounts.Active, accounts.Disabled)
	case account.PasswordHash == "":
		return nil
	}
	if err := password.Acceptable(account.PasswordHash); err != nil {
		return fmt.Errorf("password_hash: %w", err)
	}
	return nil
}

// queued defers statements until the batch is sent.
type queued struct{ *pgx.Batch }

func (q queued) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	q.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}

const (
	insertImported = `
		INSERT INTO auth.accounts (id, email, email_verified, vouched, password_hash, roles, status)
		VALUES (@id, @email, @email_verified, true, @password_hash, @roles, @status)
		ON CONFLICT DO NOTHING`
	existsEmail = `SELECT EXISTS (SELECT FROM auth.accounts WHERE lower(email COLLATE "C") = lower(@email COLLATE "C"))`
)

var errDryRun = errors.New("dry run")

// importLines creates the accounts, in one transaction, and returns how many.
func importLines(ctx context.Context, db *database.Pool, imported []importedAccount, dryRun bool, refuse func(int, string)) (int, error) {
	if len(imported) == 0 {
		return 0, nil
	}
	var taken map[int]string
	err := db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if taken, err = writeImported(ctx, tx, imported); err != nil {
			return err
		}
		if dryRun {
			return errDryRun
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return 0, fmt.Errorf("import lines %d to %d: %w", imported[0].line, imported[len(imported)-1].line, err)
	}
	for _, account := range imported {
		if reason, ok := taken[account.line]; ok {
			refuse(account.line, reason)
		}
	}
	return len(imported) - len(taken), nil
}

// writeImported writes the accounts whose email and id are free, with their
// initial profiles and audit rows, and returns why the other lines are refused.
func writeImported(ctx context.Context, tx pgx.Tx, imported []importedAccount) (map[int]string, error) {
	inserts := &pgx.Batch{}
	taken := map[int]string{}
	for _, account := range imported {
		inserts.Queue(insertImported, pgx.NamedArgs{
			"id": account.ID, "email": account.Email, "email_verified": account.EmailVerified,
			"password_hash": password.Imported(account.PasswordHash), "roles": accounts.SortedRoles(account.Roles), "status": account.Status,
		}).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() == 0 {
				taken[account.line] = "id: another account has it"
			}
			return nil
		})
	}
	if err := tx.SendBatch(ctx, inserts).Close(); err != nil {
		return nil, fmt.Errorf("write the accounts: %w", err)
	}
	news := queued{&pgx.Batch{}}
	for _, account := range imported {
		if _, ok := taken[account.line]; ok {
			var email bool
			if err := tx.QueryRow(ctx, existsEmail, pgx.NamedArgs{"email": account.Email}).Scan(&email); err != nil {
				return nil, fmt.Errorf("look for the email: %w", err)
			}
			if email {
				taken[account.line] = "email: another account has it"
			}
			continue
		}
		err := accountlog.SetProfile(ctx, news, account.ID, accountlog.Profile{FirstName: account.FirstName, LastName: account.LastName, Locale: account.Locale})
		if err != nil {
			return nil, err
		}
		if err := audit.Write(ctx, news, audit.Row{Event: audit.AccountCreate, Outcome: audit.Succeeded, Account: account.ID, Origin: origin}); err != nil {
			return nil, err
		}
	}
	if err := tx.SendBatch(ctx, news.Batch).Close(); err != nil {
		return nil, fmt.Errorf("write the profiles and the audit: %w", err)
	}
	return taken, nil
}
