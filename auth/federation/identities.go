package federation

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/provider"
)

const (
	identityColumns  = `id::text, provider, email, create_time, last_used_time, issuer, subject`
	selectIdentities = `
		SELECT ` + identityColumns + ` FROM auth.identities WHERE account_id = @account_id ORDER BY create_time, id LIMIT 100`
	selectIdentity = `SELECT ` + identityColumns + ` FROM auth.identities WHERE id = @id AND account_id = @account_id`
	selectOwner    = `SELECT id::text, account_id::text FROM auth.identities WHERE issuer = @issuer AND subject = @subject`
	useIdentity    = `
		UPDATE auth.identities SET last_used_time = clock_timestamp(), provider = @provider, email = @email, email_authoritative = @authoritative
		WHERE id = @id AND account_id = @account_id`
	insertIdentity = `
		INSERT INTO auth.identities (id, issuer, subject, account_id, provider, email, email_authoritative)
		VALUES (@id, @issuer, @subject, @account_id, @provider, @email, @authoritative)
		ON CONFLICT (issuer, subject) DO NOTHING`
	deleteIdentity = `DELETE FROM auth.identities WHERE id = @id AND account_id = @account_id RETURNING provider`
	noteSignIn     = `
		UPDATE auth.accounts a
		SET has_sign_in = EXISTS (SELECT FROM auth.passkeys WHERE account_id = a.id AND block_time IS NULL)
			OR EXISTS (SELECT FROM auth.identities WHERE account_id = a.id)
		WHERE a.id = @account_id`
)

// List returns an account's identities, the oldest first.
func List(ctx context.Context, db *database.Pool, account string) ([]*authv1.Identity, error) {
	rows, err := db.Query(ctx, selectIdentities, pgx.NamedArgs{"account_id": account})
	if err != nil {
		return nil, fmt.Errorf("list the identities: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Identity, error) { return scan(row) })
	if err != nil {
		return nil, fmt.Errorf("list the identities: %w", err)
	}
	return found, nil
}

func scan(row pgx.Row) (*authv1.Identity, error) {
	var found authv1.Identity
	var created, used time.Time
	err := row.Scan(&found.IdentityId, &found.Provider, &found.Email, &created, &used, &found.Issuer, &found.Subject)
	found.CreateTime, found.LastUsedTime = timestamppb.New(created), timestamppb.New(used)
	return &found, err
}

// ListIdentities implements authv1.FederationServiceHandler.
func (s *Service) ListIdentities(ctx context.Context, req *authv1.ListIdentitiesRequest) (*authv1.ListIdentitiesResponse, error) {
	found, err := List(ctx, s.DB, req.GetAccountId())
	if err != nil {
		return nil, err
	}
	return &authv1.ListIdentitiesResponse{Identities: found}, nil
}

// ownerOf returns the identity's id and account; empty for an unknown one.
func ownerOf(ctx context.Context, db database.Querier, who provider.Identity) (id, account string, err error) {
	err = db.QueryRow(ctx, selectOwner, pgx.NamedArgs{"issuer": who.Issuer, "subject": who.Subject}).Scan(&id, &account)
	if err != nil && !database.Missing(err) {
		return "", "", fmt.Errorf("look up the identity: %w", err)
	}
	return id, account, nil
}

// pending is an identity that waits for the proofs of an account.
type pending struct {
	Provider string            `json:"provider"`
	Identity provider.Identity `json:"identity"`
}

func (p pending) encode() ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the identity: %w", err)
	}
	return text, nil
}

// LinkPending links the identity of a challenge. It is an admission.Desk's LinkPending.
// Errors: already_exists IDENTITY_TAKEN, failed_precondition EMAIL_UNVERIFIED.
func (s *Service) LinkPending(ctx context.Context, tx pgx.Tx, account *authv1.Account, text []byte, origin *authv1.Origin) error {
	var waiting pending
	if err := json.Unmarshal(text, &waiting); err != nil {
		return fmt.Errorf("decode the identity: %w", err)
	}
	_, err := s.link(ctx, tx, account, waiting, origin)
	return err
}

// link links an identity to an account, whose row is locked, and mails its owner. It
// returns the identity's id. Errors: already_exists IDENTITY_TAKEN, failed_precondition
// EMAIL_UNVERIFIED.
func (s *Service) link(ctx context.Context, tx pgx.Tx, account *authv1.Account, new pending, origin *authv1.Origin) (string, error) {
	verified, err := accounts.IsVerified(ctx, tx, account.GetId())
	if err != nil {
		return "", err
	}
	if !verified {
		return "", accounts.ErrUnverified
	}
	id, linked, err := insert(ctx, tx, account.GetId(), new)
	if err != nil || !linked {
		return id, err
	}
	row := audit.Row{Event: audit.IdentityLink, Outcome: audit.Succeeded, Account: account.GetId(), Origin: origin}
	if err := audit.Write(ctx, tx, row); err != nil {
		return "", err
	}
	return id, s.mail(ctx, tx, outbox.IdentityLinked, account, new.Provider, origin)
}

// insert writes an identity of an account, and reports whether the account did not have
// it yet. Errors: already_exists IDENTITY_TAKEN.
func insert(ctx context.Context, tx pgx.Tx, account string, new pending) (id string, linked bool, err error) {
	made, err := uuid.NewV7()
	if err != nil {
		return "", false, fmt.Errorf("make an id: %w", err)
	}
	tag, err := tx.Exec(ctx, insertIdentity, pgx.NamedArgs{
		"id": made.String(), "issuer": new.Identity.Issuer, "subject": new.Identity.Subject, "account_id": account,
		"provider": new.Provider, "email": new.Identity.Email, "authoritative": new.Identity.Authoritative,
	})
	if err != nil {
		return "", false, fmt.Errorf("write the identity: %w", err)
	}
	if tag.RowsAffected() == 0 {
		id, owner, err := ownerOf(ctx, tx, new.Identity)
		if err == nil && owner != account {
			err = errTaken
		}
		return id, false, err
	}
	if _, err := tx.Exec(ctx, noteSignIn, pgx.NamedArgs{"account_id": account}); err != nil {
		return "", false, fmt.Errorf("note the way to sign in: %w", err)
	}
	return made.String(), true, nil
}

func (s *Service) mail(ctx context.Context, tx pgx.Tx, kind outbox.Kind, account *authv1.Account, id string, origin *authv1.Origin) error {
	values := outbox.Circumstances(origin)
	if origin.GetAccountId() != account.GetId() { // an administrator's address is not for the owner
		values = map[string]string{"time": values["time"]}
	}
	values["provider"] = id
	if p, err := s.provider(id); err == nil {
		values["provider"] = p.Name
	}
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: kind, To: account.GetEmail(), Account: account.GetId(), Locale: outbox.LocaleOf(origin, account.GetId()), Values: values,
	})
}

// CompleteLinkIdentity implements authv1.FederationServiceHandler.
func (s *Service) CompleteLinkIdentity(ctx context.Context, req *authv1.CompleteLinkIdentityRequest) (*authv1.CompleteLinkIdentityResponse, error) {
	origin := req.GetOrigin()
	response, err := s.completeLink(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("link an identity: %w", s.Log.Refuse(ctx, s.row(origin, true), err))
	}
	return response, nil
}

func (s *Service) completeLink(ctx context.Context, req *authv1.CompleteLinkIdentityRequest) (*authv1.CompleteLinkIdentityResponse, error) {
	origin := req.GetOrigin()
	answer, err := answerID(req.GetIdempotencyKey(), req.GetAnswer())
	if err != nil {
		return nil, err
	}
	v, err := s.read(ctx, req.GetAnswer(), true, answer)
	if err != nil {
		return nil, err
	}
	// Another session, or another account, must not get what this one's visit brings.
	if origin.GetAccountId() == "" || v.challenge.Account != origin.GetAccountId() || v.challenge.Session != origin.GetSessionId() {
		return nil, challenge.ErrInvalid
	}
	if _, ok := v.challenge.Repeated(); ok {
		return s.linkedAgain(ctx, v)
	}
	if err := s.mayLink(ctx, s.DB, origin); err != nil {
		return nil, err
	}
	who, err := s.redeem(ctx, v, req.GetAnswer())
	if err != nil {
		return nil, err
	}
	response := &authv1.CompleteLinkIdentityResponse{ReturnTo: v.ReturnTo}
	err = s.DB.Transact(ctx, func(tx pgx.Tx) error {
		account, err := accounts.Lock(ctx, tx, origin.GetAccountId())
		if err != nil {
			return err
		}
		if err := s.mayLink(ctx, tx, origin); err != nil {
			return err
		}
		if v.Linked, err = s.link(ctx, tx, account, pending{v.Provider, who}, origin); err != nil {
			return err
		}
		if response.Identity, err = read(ctx, tx, account.GetId(), v.Linked); err != nil {
			return err
		}
		if err := s.note(ctx, tx, v); err != nil { // for a repeated answer
			return err
		}
		return v.challenge.Spend(ctx, tx, answer, challenge.Made{})
	})
	return response, err
}

// linkedAgain returns what a repeated answer got the first time. Errors:
// failed_precondition CHALLENGE_USED if the identity was unlinked since.
func (s *Service) linkedAgain(ctx context.Context, v visit) (*authv1.CompleteLinkIdentityResponse, error) {
	linked, err := read(ctx, s.DB, v.challenge.Account, v.Linked)
	if database.Missing(err) {
		return nil, challenge.Used()
	}
	return &authv1.CompleteLinkIdentityResponse{Identity: linked, ReturnTo: v.ReturnTo}, err
}

// read returns an identity of an account.
func read(ctx context.Context, db database.Querier, account, id string) (*authv1.Identity, error) {
	found, err := scan(db.QueryRow(ctx, selectIdentity, pgx.NamedArgs{"id": id, "account_id": account}))
	if err != nil {
		return nil, fmt.Errorf("read the identity: %w", err)
	}
	return found, nil
}

// UnlinkIdentity implements authv1.FederationServiceHandler.
func (s *Service) UnlinkIdentity(ctx context.Context, req *authv1.UnlinkIdentityRequest) (*authv1.UnlinkIdentityResponse, error) {
	origin := req.GetOrigin()
	asked, account := recentAtOwnLevel(origin), cmp.Or(req.GetAccountId(), origin.GetAccountId())
	_, err := s.Accounts.Change(ctx, account, audit.IdentityUnlink, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		if err := accounts.RequireIfAsked(ctx, tx, asked); err != nil {
			return false, err
		}
		return true, s.unlink(ctx, tx, before, req.GetIdentityId(), origin)
	})
	if err != nil {
		return nil, err
	}
	return &authv1.UnlinkIdentityResponse{}, nil
}

// unlink removes an identity of an account, whose row is locked. Errors: not_found
// IDENTITY_NOT_FOUND, failed_precondition LAST_SIGN_IN_METHOD.
func (s *Service) unlink(ctx context.Context, tx pgx.Tx, account *authv1.Account, id string, origin *authv1.Origin) error {
	args := pgx.NamedArgs{"id": id, "account_id": account.GetId()}
	var from string
	err := tx.QueryRow(ctx, deleteIdentity, args).Scan(&from)
	if database.Missing(err) {
		return errIdentityNotFound
	}
	if err != nil {
		return fmt.Errorf("delete the identity: %w", err)
	}
	if _, err := tx.Exec(ctx, noteSignIn, args); err != nil {
		return fmt.Errorf("note the way to sign in: %w", err)
	}
	if !s.Codes.SignsIn() {
		if err := s.Accounts.WaysIn.Require(ctx, tx, account.GetId()); err != nil {
			return err
		}
	}
	if err := challenge.Supersede(ctx, tx, account.GetId()); err != nil {
		return err
	}
	if err := admission.EndBegunWith(ctx, tx, account.GetId(), id); err != nil {
		return err
	}
	return s.mail(ctx, tx, outbox.IdentityUnlinked, account, from, origin)
}
