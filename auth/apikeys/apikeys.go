// Package apikeys owns the API keys of accounts: opaque credentials with scopes, for
// scripts and other machines.
//
// Only the hash of a key's text is stored. A gateway asks about a key once and remembers
// the answer; the key's id takes the place of a session's in the revocations, so that an
// ended key is refused within the same second as an ended session.
package apikeys

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/apikey"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

const (
	// DefaultLife is how long a key works by default.
	DefaultLife = 90 * 24 * time.Hour
	// MaxLife is the longest life of a key.
	MaxLife = 366 * 24 * time.Hour
	// Retention is how long a key is kept after its end, for its owner's export.
	Retention = 30 * 24 * time.Hour
	// maxKeys is how many keys that work an account may have.
	maxKeys = 50
)

var (
	errNotFound   = fault.New(connect.CodeNotFound, "KEY_NOT_FOUND", "There is no such API key.")
	errTooMany    = fault.New(connect.CodeResourceExhausted, "TOO_MANY_KEYS", "The account has 50 API keys. Revoke one that is no longer used, then repeat this.")
	errExpireTime = fault.Invalid("EXPIRE_TIME_INVALID", "expire_time", "choose a time after now and within a year")
)

const selectKey = `
	SELECT k.secret_hash, k.account_id::text, k.scopes, k.networks, k.revoke_time IS NOT NULL OR a.status <> 'active' OR ` + void + `,
		CASE WHEN a.second_factor THEN k.level ELSE 1 END, a.roles, a.authz_version,
		extract(epoch FROM k.expire_time - clock_timestamp())::float8
	FROM auth.api_keys k JOIN auth.accounts a ON a.id = k.account_id
	WHERE k.id = @id`

// void is the condition of a key, aliased k, of an account, aliased a, that was attached
// while the email was unverified: once it is verified, even by a binary older than schema
// number 9, the key counts for nothing.
const void = `k.attached_unverified AND a.email_verified`

// CheckKey implements authv1.APIKeyServiceHandler.
func (s *Service) CheckKey(ctx context.Context, req *authv1.CheckKeyRequest) (*authv1.CheckKeyResponse, error) {
	found := &authv1.CheckKeyResponse{}
	var hash []byte
	var ended bool
	err := s.DB.QueryRow(ctx, selectKey, pgx.NamedArgs{"id": req.GetKeyId()}).Scan(
		&hash, &found.AccountId, &found.Scopes, &found.Networks, &ended, &found.Level, &found.Roles, &found.AuthzVersion, &found.ExpiresIn)
	switch {
	case database.Missing(err):
		return nil, apikey.ErrInvalid
	case err != nil:
		return nil, fmt.Errorf("read the API key: %w", err)
	case subtle.ConstantTimeCompare(hash, req.GetSecretHash()) != 1:
		return nil, apikey.ErrInvalid // without an audit event: a stranger who knows an id could fill its owner's log
	case ended:
		return nil, s.refuse(ctx, found.GetAccountId(), req, apikey.ErrInvalid)
	case found.GetExpiresIn() <= 0:
		return nil, s.refuse(ctx, found.GetAccountId(), req, apikey.ErrExpired)
	}
	return found, nil
}

const columns = `
	k.id::text, k.name, k.scopes, k.networks, k.level, k.create_time, k.expire_time, k.last_used_time, k.last_used_address, k.revoke_time, coalesce(k.revoke_reason, '')`

const (
	selectKeys = `
		SELECT ` + columns + `
		FROM auth.api_keys k JOIN auth.accounts a ON a.id = k.account_id
		WHERE k.account_id = @account_id AND (@revoked OR k.revoke_time IS NULL) AND NOT (` + void + `)
		ORDER BY k.create_time DESC, k.id LIMIT 1000`
	selectOne = `SELECT ` + columns + ` FROM auth.api_keys k WHERE k.id = @id`
)

// ListKeys implements authv1.APIKeyServiceHandler.
func (s *Service) ListKeys(ctx context.Context, req *authv1.ListKeysRequest) (*authv1.ListKeysResponse, error) {
	rows, err := s.DB.Query(ctx, selectKeys, pgx.NamedArgs{"account_id": req.GetAccountId(), "revoked": req.GetRevoked()})
	if err != nil {
		return nil, fmt.Errorf("list the API keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.APIKey, error) { return scan(row) })
	if err != nil {
		return nil, fmt.Errorf("list the API keys: %w", err)
	}
	return &authv1.ListKeysResponse{Keys: keys}, nil
}

func scan(row pgx.Row) (*authv1.APIKey, error) {
	var found authv1.APIKey
	var created, expires time.Time
	var used, revoked *time.Time
	err := row.Scan(&found.KeyId, &found.Name, &found.Scopes, &found.Networks, &found.Level, &created, &expires, &used,
		&found.LastUsedAddress, &revoked, &found.RevokeReason)
	found.CreateTime, found.ExpireTime = timestamppb.New(created), timestamppb.New(expires)
	found.LastUsedTime, found.RevokeTime = timestamp(used), timestamp(revoked)
	return &found, err
}

// timestamp returns nil without a time.
func timestamp(at *time.Time) *timestamppb.Timestamp {
	if at == nil {
		return nil
	}
	return timestamppb.New(*at)
}

// Uses are sorted, so that two copies that store the same keys do not deadlock. A later
// use within the same minute is left out: a busy key is written once a minute.
const touchKeys = `
	WITH uses AS (
		SELECT DISTINCT ON (id) id, clock_timestamp() - age * interval '1 second' AS at, address
		FROM unnest(@ids::uuid[], @ages::float8[], @addresses::text[]) AS u (id, age, address)
		ORDER BY id, age
	), due AS (
		SELECT k.id, u.at, u.address FROM auth.api_keys k JOIN uses u USING (id)
		WHERE k.last_used_time IS NULL OR k.last_used_time < u.at - interval '1 minute'
		ORDER BY k.id FOR NO KEY UPDATE OF k)
	UPDATE auth.api_keys k SET last_used_time = due.at, last_used_address = due.address FROM due WHERE k.id = due.id`

// TouchKeys implements authv1.APIKeyServiceHandler.
func (s *Service) TouchKeys(ctx context.Context, req *authv1.TouchKeysRequest) (*authv1.TouchKeysResponse, error) {
	var ids, addresses []string
	var ages []float64
	for _, use := range req.GetUses() {
		ids, ages, addresses = append(ids, use.GetKeyId()), append(ages, use.GetAge()), append(addresses, use.GetIpAddress())
	}
	if _, err := s.DB.Exec(ctx, touchKeys, pgx.NamedArgs{"ids": ids, "ages": ages, "addresses": addresses}); err != nil {
		return nil, fmt.Errorf("store the last uses of API keys: %w", err)
	}
	return &authv1.TouchKeysResponse{}, nil
}

const lowerKeys = `
	UPDATE auth.api_keys SET level = 1
	WHERE account_id = @account_id AND level > 1 AND revoke_time IS NULL AND expire_time > now()`

// Lower takes level 2 from the keys of an account that lost its last second factor. The
// account is locked.
func Lower(ctx context.Context, tx pgx.Tx, account string) error {
	tag, err := tx.Exec(ctx, lowerKeys, pgx.NamedArgs{"account_id": account})
	if err != nil {
		return fmt.Errorf("lower the API keys: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return revocations.RaiseVersion(ctx, tx, account) // gateways ask again
}

// requestHash identifies a repeated creation; nil without an Idempotency-Key.
func requestHash(key *authv1.IdempotencyKey) []byte {
	if key == nil {
		return nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %x", len(key.GetKey()), key.GetKey(), key.GetRequestHash()))
	return sum[:]
}
