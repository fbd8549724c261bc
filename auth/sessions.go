package auth

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/passwords"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

var (
	errCredentials = fault.New(connect.CodeUnauthenticated, "CREDENTIALS_INVALID", "The email or the password is wrong.")
)

// sessions signs in by passwords.
type sessions struct {
	*admission.Desk
	db        *database.Pool
	log       *audit.Log
	passwords *passwords.Checker
}

const (
	credentialColumns = `a.id, a.email, ` + accounts.PasswordHash + `, a.status = 'active', a.second_factor`
	selectCredentials = `
		SELECT ` + credentialColumns + ` FROM auth.accounts a WHERE lower(a.email COLLATE "C") = lower(@email COLLATE "C")`
	selectCredentialsByID = `SELECT ` + credentialColumns + ` FROM auth.accounts a WHERE a.id = @id`
)

// credentials of an account; the zero value is for no account.
type credentials struct {
	id, email, hash string
	active          bool
	secondFactor    bool
}

func readCredentials(ctx context.Context, db database.Querier, query string, args pgx.NamedArgs) (credentials, error) {
	var found credentials
	err := db.QueryRow(ctx, query, args).Scan(&found.id, &found.email, &found.hash, &found.active, &found.secondFactor)
	if err != nil && !database.Missing(err) {
		return credentials{}, fmt.Errorf("look up the account: %w", err)
	}
	return found, nil
}

// signIn begins a session of the account if the password is right, or returns a
// challenge.
func (s *sessions) signIn(ctx context.Context, req *authv1.LoginRequest, found credentials) (*authv1.LoginResponse, error) {
	id, hash := found.id, found.hash
	client := throttle.Client{Email: accounts.FoldEmail(req.GetEmail()), Address: req.GetOrigin().GetIpAddress()}
	row := audit.Row{Event: audit.Login, Outcome: audit.Succeeded, Account: id, Origin: req.GetOrigin(), Subject: "email:" + strings.ToLower(req.GetEmail())}
	caller := passwords.Stranger(req.GetOrigin())
	if device, known := s.DeviceKeys.Verify(req.GetDeviceToken(), id); known {
		client.DeviceID, caller = device.String(), passwords.KnownDevice(id)
	}
	outdated, err := s.passwords.Try(ctx, passwords.Attempt{Client: client, Caller: caller, Password: req.GetPassword(), Hash: hash, Wrong: errCredentials, Row: row})
	if err != nil {
		return nil, err
	}
	if !found.active {
		return nil, s.log.Refuse(ctx, row, accounts.ErrDisabled)
	}
	newHash := ""
	if outdated {
		if newHash, err = s.passwords.Hasher.Hash(ctx, caller, req.GetPassword()); err != nil {
			return nil, err
		}
	}
	outcome, err := s.AdmitAlone(ctx, admission.Entry{
		Account: id, Email: found.email, Proof: admission.Proof{Kind: admission.Password}, Hash: hash, NewHash: newHash,
		DeviceToken: req.GetDeviceToken(), MayBeChallenged: found.secondFactor, AcceptsChallenge: req.GetAcceptsChallenge(),
		Origin: req.GetOrigin(), Row: &row,
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("sign in: %w", s.log.Refuse(ctx, row, err))
	case outcome.Account == nil:
		return nil, s.log.Refuse(ctx, row, errCredentials)
	case outcome.Challenge != nil:
		return &authv1.LoginResponse{Challenge: outcome.Challenge}, nil
	}
	return &authv1.LoginResponse{Account: outcome.Account, Tokens: outcome.Tokens, DeviceToken: outcome.DeviceToken}, nil
}

// signInAgain signs in, as Login does, to the account that the first call with the
// same idempotency key created.
// Errors: those of Login, failed_precondition IDEMPOTENCY_TARGET_GONE.
func (s *sessions) signInAgain(ctx context.Context, made, password string, acceptsChallenge bool, row audit.Row) (*authv1.LoginResponse, error) {
	found, err := readCredentials(ctx, s.db, selectCredentialsByID, pgx.NamedArgs{"id": made})
	if err != nil {
		return nil, err
	}
	if found.id == "" {
		return nil, s.log.Refuse(ctx, row, idempotency.ErrTargetGone)
	}
	return s.signIn(ctx, &authv1.LoginRequest{Email: found.email, Password: password, Origin: row.Origin, AcceptsChallenge: acceptsChallenge}, found)
}
