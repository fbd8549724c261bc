package webhooks

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// repeatWindow is how long a repeated creation gets the first one's answer.
const repeatWindow = 2 * time.Minute

// A secret that has been replaced since is not shown again: the repetition makes another
// webhook.
const selectRepeated = `
	SELECT w.id::text, s.id::text, s.sealed_secret FROM auth.webhooks w JOIN auth.webhook_secrets s ON s.webhook_id = w.id AND s.expire_time IS NULL
	WHERE w.idempotency_key_hash = @hash AND w.create_time > now() - @within::interval AND w.url <> '' AND s.create_time = w.create_time`

// repeated writes the answer of an earlier call with the same Idempotency-Key into response,
// and reports whether there was one.
func (s *Service) repeated(ctx context.Context, tx pgx.Tx, req *authv1.CreateWebhookRequest, response *authv1.CreateWebhookResponse) (bool, error) {
	hash := callHash(req)
	if hash == nil {
		return false, nil
	}
	if _, err := tx.Exec(ctx, lockWebhooks); err != nil {
		return false, fmt.Errorf("lock the webhooks: %w", err)
	}
	var webhook, id string
	var sealed []byte
	err := tx.QueryRow(ctx, selectRepeated, pgx.NamedArgs{"hash": hash, "within": repeatWindow}).Scan(&webhook, &id, &sealed)
	if database.Missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the first call: %w", err)
	}
	plain, err := s.unseal(id, sealed)
	if errors.Is(err, secretkey.ErrSealed) {
		return false, fault.Unavailable().WithCause(err) // by a copy that has a newer secret key already
	}
	if err != nil {
		return false, err
	}
	response.Secret = plain.Text()
	response.Webhook, err = byID(ctx, tx, webhook)
	return true, err
}

// callHash identifies a repeated creation by one account; nil without an Idempotency-Key.
func callHash(req *authv1.CreateWebhookRequest) []byte {
	key := req.GetIdempotencyKey()
	if key == nil {
		return nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %x", req.GetOrigin().GetAccountId(), len(key.GetKey()), key.GetKey(), key.GetRequestHash()))
	return sum[:]
}
