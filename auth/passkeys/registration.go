package passkeys

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/auth/challenge"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/webauthn"
)

// Registration is the purpose of the challenge that a new passkey answers.
const Registration challenge.Purpose = "passkey_registration"

// Ceremony returns the options for a new passkey of the account, and the state that
// Register needs. The passkeys that it has are excluded. Errors: failed_precondition
// PASSKEYS_OFF, resource_exhausted TOO_MANY_PASSKEYS.
func (s *Store) Ceremony(ctx context.Context, tx pgx.Tx, account *authv1.Account, name string) (state []byte, options *structpb.Struct, err error) {
	if !s.On() {
		return nil, nil, ErrOff
	}
	if err := requireRoom(ctx, tx, account.GetId()); err != nil {
		return nil, nil, err
	}
	id, err := uuid.Parse(account.GetId())
	if err != nil {
		return nil, nil, fmt.Errorf("read the account's id: %w", err)
	}
	records, err := s.usable(ctx, tx, account.GetId())
	if err != nil {
		return nil, nil, err
	}
	begun, err := s.Party.BeginRegistration(webauthn.User{ID: id, Email: account.GetEmail(), Name: name}, records)
	if err != nil {
		return nil, nil, err
	}
	options, err = toStruct(begun.Options)
	return begun.State, options, err
}

const tooLate = `SELECT clock_timestamp() - @begun::timestamptz > @life::interval`

// Register verifies the answer to the options of a ceremony, and stores the passkey. The
// account and the challenge are locked. It also returns the methods of a proof by the
// passkey. Errors: invalid_argument PASSKEY_INVALID, already_exists PASSKEY_TAKEN,
// failed_precondition PASSKEYS_OFF or CHALLENGE_EXPIRED, resource_exhausted
// TOO_MANY_PASSKEYS.
func (s *Store) Register(ctx context.Context, tx pgx.Tx, c challenge.Challenge, state []byte, response *structpb.Struct, name string) (added *authv1.Passkey, amr []string, err error) {
	if !s.On() {
		return nil, nil, ErrOff
	}
	var late bool
	if err := tx.QueryRow(ctx, tooLate, pgx.NamedArgs{"begun": c.CreateTime, "life": webauthn.RegistrationLife}).Scan(&late); err != nil {
		return nil, nil, fmt.Errorf("compare the time of the registration: %w", err)
	}
	if late {
		return nil, nil, challenge.ErrRegistrationLate
	}
	encoded, err := toJSON(response)
	if err != nil {
		return nil, nil, err
	}
	account, err := uuid.Parse(c.Account)
	if err != nil {
		return nil, nil, fmt.Errorf("read the account's id: %w", err)
	}
	made, err := s.Party.FinishRegistration(account, state, encoded)
	if err != nil {
		return nil, nil, ErrInvalid.WithCause(err)
	}
	added, err = s.add(ctx, tx, c.Account, made, name)
	return added, methodsOf(made.BackupEligible), err
}

const selectOne = `SELECT ` + columns + ` FROM auth.passkeys WHERE id = @id AND account_id = @account_id`

// Get returns one of the account's passkeys. Errors: not_found PASSKEY_NOT_FOUND.
func Get(ctx context.Context, db database.Querier, account, id string) (*authv1.Passkey, error) {
	found, err := scan(db.QueryRow(ctx, selectOne, pgx.NamedArgs{"id": id, "account_id": account}))
	if database.Missing(err) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the passkey: %w", err)
	}
	return found, nil
}
