// Package passkeys owns the passkeys of accounts: their rows, and what an assertion of
// one proves.
//
// A passkey is a way to sign in and a second factor. It counts while it is for the RP
// ID of this installation and was not found to be a copy. Lock the account's row before
// its passkeys.
package passkeys

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/challenge"
	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/webauthn"
)

// MaxPasskeys is how many passkeys an account may have.
const MaxPasskeys = 20

var (
	ErrOff      = fault.New(connect.CodeFailedPrecondition, "PASSKEYS_OFF", "Passkeys are turned off here. Use another way to sign in.")
	ErrNotFound = fault.New(connect.CodeNotFound, "PASSKEY_NOT_FOUND", "There is no such passkey.")
	// ErrUnknown makes clients delete the passkey from the device for good. It is only
	// for a passkey of which the database was asked and has no row.
	ErrUnknown = fault.New(connect.CodeUnauthenticated, "PASSKEY_UNKNOWN", "This passkey was deleted here. Sign in another way, and delete it from your device.")
	ErrInvalid = fault.New(connect.CodeInvalidArgument, "PASSKEY_INVALID", "The passkey could not be verified. Try again, or use another way to sign in.")
	ErrCloned  = fault.New(connect.CodeUnauthenticated, "PASSKEY_CLONED", "This passkey was used in two places, so it may have been copied. It was blocked. Sign in another way, and delete it.")
	ErrTaken   = fault.New(connect.CodeAlreadyExists, "PASSKEY_TAKEN", "This passkey is registered already. Use it to sign in.")
	ErrTooMany = fault.New(connect.CodeResourceExhausted, "TOO_MANY_PASSKEYS", "The account has 20 passkeys. Delete one first.")
)

// Store runs the ceremonies.
type Store struct {
	// Party is nil where passkeys are turned off.
	Party      *webauthn.Party
	DB         *database.Pool
	Challenges *challenge.Store
	Mails      *outbox.Outbox
}

// On reports whether passkeys are turned on.
func (s *Store) On() bool { return s.Party != nil }

const (
	columns   = `id, name, credential_id, rp_id, backed_up, block_time IS NOT NULL, create_time, last_used_time`
	selectAll = `
		SELECT ` + columns + ` FROM auth.passkeys WHERE account_id = @account_id ORDER BY create_time, id`
	selectUsable = `
		SELECT record FROM auth.passkeys
		WHERE account_id = @account_id AND rp_id = @rp_id AND block_time IS NULL ORDER BY last_used_time DESC NULLS LAST, id`
	countAll = `SELECT count(*) FROM auth.passkeys WHERE account_id = @account_id`
)

// QueueList adds the statement that reads the account's passkeys, the oldest first, to a
// batch.
func QueueList(batch *pgx.Batch, account string, found *[]*authv1.Passkey) {
	batch.Queue(selectAll, pgx.NamedArgs{"account_id": account}).Query(func(rows pgx.Rows) (err error) {
		*found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Passkey, error) { return scan(row) })
		return err
	})
}

func scan(row pgx.Row) (*authv1.Passkey, error) {
	var found authv1.Passkey
	var created time.Time
	var used *time.Time
	err := row.Scan(&found.PasskeyId, &found.Name, &found.CredentialId, &found.RpId, &found.BackedUp, &found.Blocked, &created, &used)
	found.CreateTime = timestamppb.New(created)
	if used != nil {
		found.LastUsedTime = timestamppb.New(*used)
	}
	return &found, err
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// usable returns the records of the passkeys that the account can use, the last used
// first; none where passkeys are turned off.
func (s *Store) usable(ctx context.Context, db querier, account string) ([][]byte, error) {
	if !s.On() {
		return nil, nil
	}
	rows, err := db.Query(ctx, selectUsable, pgx.NamedArgs{"account_id": account, "rp_id": s.Party.ID()})
	if err != nil {
		return nil, fmt.Errorf("read the passkeys: %w", err)
	}
	records, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("read the passkeys: %w", err)
	}
	return records, nil
}

const insertPasskey = `
	INSERT INTO auth.passkeys (id, account_id, credential_id, record, sign_count, rp_id, aaguid, name, backup_eligible, backed_up, create_time)
	VALUES (@id, @account_id, @credential_id, @record, @sign_count, @rp_id, @aaguid, @name, @backup_eligible, @backed_up, clock_timestamp())
	RETURNING ` + columns

// add stores a new passkey of the account, whose row is locked. Errors: already_exists
// PASSKEY_TAKEN, resource_exhausted TOO_MANY_PASSKEYS.
func (s *Store) add(ctx context.Context, tx pgx.Tx, account string, made webauthn.Passkey, name string) (*authv1.Passkey, error) {
	if err := requireRoom(ctx, tx, account); err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	if name == "" {
		name = webauthn.NameOf(made.AAGUID)
	}
	added, err := scan(tx.QueryRow(ctx, insertPasskey, pgx.NamedArgs{
		"id": id.String(), "account_id": account, "credential_id": made.CredentialID, "record": json.RawMessage(made.Record), "sign_count": made.SignCount,
		"rp_id": s.Party.ID(), "aaguid": made.AAGUID.String(), "name": name, "backup_eligible": made.BackupEligible, "backed_up": made.BackedUp,
	}))
	switch {
	case database.Violates(err, "passkeys_credential_id_key"):
		return nil, ErrTaken
	case err != nil:
		return nil, fmt.Errorf("store the passkey: %w", err)
	}
	return added, noteSignIn(ctx, tx, account)
}

// requireRoom refuses if the account has MaxPasskeys. Errors: resource_exhausted
// TOO_MANY_PASSKEYS.
func requireRoom(ctx context.Context, db database.Querier, account string) error {
	var count int
	if err := db.QueryRow(ctx, countAll, pgx.NamedArgs{"account_id": account}).Scan(&count); err != nil {
		return fmt.Errorf("count the passkeys: %w", err)
	}
	if count >= MaxPasskeys {
		return ErrTooMany
	}
	return nil
}

const (
	renamePasskey = `
		UPDATE auth.passkeys SET name = @name WHERE id = @id AND account_id = @account_id RETURNING ` + columns
	deletePasskey   = `DELETE FROM auth.passkeys WHERE id = @id AND account_id = @account_id`
	updateHasSignIn = `
		UPDATE auth.accounts a
		SET has_sign_in = EXISTS (SELECT FROM auth.passkeys WHERE account_id = a.id AND block_time IS NULL)
			OR EXISTS (SELECT FROM auth.identities WHERE account_id = a.id)
		WHERE a.id = @account_id`
)

// Rename names one of the account's passkeys. Errors: not_found PASSKEY_NOT_FOUND.
func Rename(ctx context.Context, db database.Querier, account, id, name string) (*authv1.Passkey, error) {
	renamed, err := scan(db.QueryRow(ctx, renamePasskey, pgx.NamedArgs{"id": id, "account_id": account, "name": name}))
	if database.Missing(err) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("rename the passkey: %w", err)
	}
	return renamed, nil
}

// Delete deletes one of the account's passkeys. The account is locked. Errors: not_found
// PASSKEY_NOT_FOUND.
func Delete(ctx context.Context, tx pgx.Tx, account, id string) error {
	tag, err := tx.Exec(ctx, deletePasskey, pgx.NamedArgs{"id": id, "account_id": account})
	if err != nil {
		return fmt.Errorf("delete the passkey: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return noteSignIn(ctx, tx, account)
}

// noteSignIn stores in the account's row whether it can sign in without a password.
func noteSignIn(ctx context.Context, tx pgx.Tx, account string) error {
	if _, err := tx.Exec(ctx, updateHasSignIn, pgx.NamedArgs{"account_id": account}); err != nil {
		return fmt.Errorf("note whether the account can sign in: %w", err)
	}
	return nil
}

const countStranded = `SELECT rp_id, count(*) FROM auth.passkeys WHERE rp_id <> @rp_id GROUP BY rp_id`

// Stranded counts the passkeys that were registered for another RP ID, by that ID. They
// sign nobody in.
func Stranded(ctx context.Context, db querier, rpID string) (map[string]int, error) {
	rows, err := db.Query(ctx, countStranded, pgx.NamedArgs{"rp_id": rpID})
	if err != nil {
		return nil, fmt.Errorf("count the passkeys for another RP ID: %w", err)
	}
	found := map[string]int{}
	var id string
	var count int
	_, err = pgx.ForEachRow(rows, []any{&id, &count}, func() error { found[id] = count; return nil })
	if err != nil {
		return nil, fmt.Errorf("count the passkeys for another RP ID: %w", err)
	}
	return found, nil
}

// toStruct converts JSON to a message.
func toStruct(encoded []byte) (*structpb.Struct, error) {
	var made structpb.Struct
	if err := protojson.Unmarshal(encoded, &made); err != nil {
		return nil, fmt.Errorf("convert JSON: %w", err)
	}
	return &made, nil
}

// toJSON converts a message to JSON. Errors: invalid_argument PASSKEY_INVALID.
func toJSON(message *structpb.Struct) ([]byte, error) {
	encoded, err := protojson.Marshal(message)
	if err != nil {
		return nil, ErrInvalid.WithCause(err)
	}
	return encoded, nil
}
