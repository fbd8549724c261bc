package webhooks

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/audit"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/page"
)

// disabledBy is the reason of an endpoint that an administrator disabled.
const disabledBy = "administrator"

const (
	// The count and the insertion are serialised, so that the limit holds.
	lockWebhooks  = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse webhooks', 0))"
	countWebhooks = `SELECT count(*) FROM auth.webhooks WHERE expire_time IS NULL OR expire_time > now()`
	insertWebhook = `
		INSERT INTO auth.webhooks (id, url, description, types, signature_versions, enabled, disable_reason, idempotency_key_hash)
		VALUES (@id, @url, @description, @types, @signature_versions, @enabled::boolean, CASE WHEN @enabled::boolean THEN '' ELSE @disable_reason::text END,
			@idempotency_key_hash)`
)

// CreateWebhook implements authv1.WebhookServiceHandler.
func (s *Service) CreateWebhook(ctx context.Context, req *authv1.CreateWebhookRequest) (*authv1.CreateWebhookResponse, error) {
	types, err := wanted(req.GetTypes())
	if err != nil {
		return nil, err
	}
	if err := s.dialer.Check(req.GetUrl()); err != nil {
		return nil, errURL(err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	response := &authv1.CreateWebhookResponse{}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		repeats, err := s.repeated(ctx, tx, req, response)
		if err != nil || repeats {
			return err
		}
		if err := checkCount(ctx, tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, insertWebhook, pgx.NamedArgs{
			"id": id.String(), "url": req.GetUrl(), "description": req.GetDescription(), "types": types,
			"signature_versions": versionsOf(req.GetSignatureVersions()), "enabled": !req.GetDisabled(), "disable_reason": disabledBy,
			"idempotency_key_hash": callHash(req),
		})
		if err != nil {
			return fmt.Errorf("write the webhook: %w", err)
		}
		made, err := s.addSecret(ctx, tx, id.String())
		if err != nil {
			return err
		}
		if response.Webhook, err = byID(ctx, tx, id.String()); err != nil {
			return err
		}
		response.Secret = made.Text()
		return audit.Write(ctx, tx, audit.Row{Event: audit.WebhookCreate, Outcome: audit.Succeeded, Target: id.String(), Origin: req.GetOrigin()})
	})
	if err != nil {
		return nil, fmt.Errorf("create a webhook: %w", err)
	}
	return response, nil
}

func checkCount(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, lockWebhooks); err != nil {
		return fmt.Errorf("lock the webhooks: %w", err)
	}
	var count int
	if err := tx.QueryRow(ctx, countWebhooks).Scan(&count); err != nil {
		return fmt.Errorf("count the webhooks: %w", err)
	}
	if count >= maxWebhooks {
		return errTooMany
	}
	return nil
}

func versionsOf(versions []string) []string {
	if len(versions) == 0 {
		return []string{versionHMAC}
	}
	versions = slices.Clone(versions)
	slices.Sort(versions)
	return versions
}

const (
	selectWebhooks = `
	SELECT w.id::text, w.url, w.description, w.types, w.signature_versions, w.enabled, w.disable_reason,
		ARRAY(SELECT s.public_key FROM auth.webhook_secrets s
			WHERE s.webhook_id = w.id AND (s.expire_time IS NULL OR s.expire_time > now()) ORDER BY s.create_time DESC, s.id DESC),
		w.fail_since_time, w.create_time, w.update_time,
		(SELECT count(*) FROM auth.deliveries d WHERE d.webhook_id = w.id AND d.sent_time IS NULL AND d.fail_time IS NULL),
		(SELECT count(*) FROM auth.deliveries d WHERE d.webhook_id = w.id AND d.fail_time IS NOT NULL)
	FROM auth.webhooks w WHERE w.url <> ''`
	selectWebhook  = selectWebhooks + ` AND w.id = @id`
	selectNewest   = selectWebhooks + ` AND (@after::uuid IS NULL OR w.id < @after::uuid) ORDER BY w.id DESC LIMIT @limit`
	defaultPerPage = 25
)

func byID(ctx context.Context, db database.Querier, id string) (*authv1.Webhook, error) {
	found, err := scan(db.QueryRow(ctx, selectWebhook, pgx.NamedArgs{"id": id}))
	if database.Missing(err) {
		return nil, errNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the webhook: %w", err)
	}
	return found, nil
}

func scan(row pgx.Row) (*authv1.Webhook, error) {
	w := &authv1.Webhook{}
	var keys [][]byte
	var failing *time.Time
	var created, updated time.Time
	err := row.Scan(&w.WebhookId, &w.Url, &w.Description, &w.Types, &w.SignatureVersions, &w.Enabled, &w.DisableReason,
		&keys, &failing, &created, &updated, &w.Pending, &w.Failed)
	if err != nil {
		return nil, err
	}
	if slices.Contains(w.SignatureVersions, versionEd25519) {
		for _, key := range keys {
			w.PublicKeys = append(w.PublicKeys, publicText(key))
		}
	}
	if failing != nil {
		w.FailSinceTime = timestamppb.New(*failing)
	}
	w.CreateTime, w.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	return w, nil
}

// GetWebhook implements authv1.WebhookServiceHandler.
func (s *Service) GetWebhook(ctx context.Context, req *authv1.GetWebhookRequest) (*authv1.GetWebhookResponse, error) {
	found, err := byID(ctx, s.db, req.GetWebhookId())
	if err != nil {
		return nil, err
	}
	return &authv1.GetWebhookResponse{Webhook: found}, nil
}

// listPages makes page tokens whose position is the last webhook's id.
func listPages(position []byte) []byte {
	last, _ := uuid.FromBytes(position)
	return fmt.Appendf(nil, "webhook page token 1: %s", last)
}

// ListWebhooks implements authv1.WebhookServiceHandler.
func (s *Service) ListWebhooks(ctx context.Context, req *authv1.ListWebhooksRequest) (*authv1.ListWebhooksResponse, error) {
	var after *string
	if token := req.GetPageToken(); token != "" {
		last, ok := page.Query(listPages).ParseID(token)
		if !ok {
			return nil, page.ErrToken
		}
		after = new(last.String())
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPerPage
	}
	// One more than the page shows that another follows.
	rows, err := s.db.Query(ctx, selectNewest, pgx.NamedArgs{"after": after, "limit": size + 1})
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.Webhook, error) { return scan(row) })
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	response := &authv1.ListWebhooksResponse{Webhooks: found}
	if len(found) > size {
		response.Webhooks = found[:size]
		last, err := uuid.Parse(found[size-1].GetWebhookId())
		if err != nil {
			return nil, fmt.Errorf("read a webhook's id: %w", err)
		}
		response.NextPageToken = page.Query(listPages).Token(last[:])
	}
	return response, nil
}

// An endpoint that is enabled again, or has another URL, is attempted at once, and has not
// failed yet.
const updateWebhook = `
	UPDATE auth.webhooks SET
		url = coalesce(@url::text, url), description = coalesce(@description::text, description), types = coalesce(@types::text[], types),
		signature_versions = coalesce(@signature_versions::text[], signature_versions), enabled = coalesce(@enabled::boolean, enabled),
		disable_reason = CASE WHEN coalesce(@enabled::boolean, enabled) THEN '' WHEN enabled THEN @disable_reason::text ELSE disable_reason END,
		failures = CASE WHEN @enabled::boolean OR @url::text IS NOT NULL THEN 0 ELSE failures END,
		fail_since_time = CASE WHEN @enabled::boolean OR @url::text IS NOT NULL THEN NULL ELSE fail_since_time END,
		resume_time = CASE WHEN @enabled::boolean OR @url::text IS NOT NULL THEN NULL ELSE resume_time END,
		update_time = clock_timestamp()
	WHERE id = @id AND url <> ''`

// UpdateWebhook implements authv1.WebhookServiceHandler.
func (s *Service) UpdateWebhook(ctx context.Context, req *authv1.UpdateWebhookRequest) (*authv1.UpdateWebhookResponse, error) {
	var types, versions []string // nil leaves the column as it is
	if len(req.GetTypes()) > 0 {
		var err error
		if types, err = wanted(req.GetTypes()); err != nil {
			return nil, err
		}
	}
	if len(req.GetSignatureVersions()) > 0 {
		versions = versionsOf(req.GetSignatureVersions())
	}
	if req.Url != nil {
		if err := s.dialer.Check(req.GetUrl()); err != nil {
			return nil, errURL(err)
		}
	}
	response := &authv1.UpdateWebhookResponse{}
	err := s.change(ctx, audit.WebhookUpdate, req.GetWebhookId(), req.GetOrigin(), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, updateWebhook, pgx.NamedArgs{
			"id": req.GetWebhookId(), "url": req.Url, "description": req.Description, "types": types,
			"signature_versions": versions, "enabled": req.Enabled, "disable_reason": disabledBy,
		})
		if err != nil {
			return fmt.Errorf("write the webhook: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errNotFound
		}
		if req.GetEnabled() || req.Url != nil {
			if _, err := tx.Exec(ctx, releaseAll, pgx.NamedArgs{"webhook_id": req.GetWebhookId()}); err != nil {
				return fmt.Errorf("release what waits: %w", err)
			}
		}
		response.Webhook, err = byID(ctx, tx, req.GetWebhookId())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update a webhook: %w", err)
	}
	s.Wake()
	return response, nil
}

// change makes a change of a webhook in a transaction, with its audit event.
func (s *Service) change(ctx context.Context, event audit.Event, webhook string, origin *authv1.Origin, apply func(pgx.Tx) error) error {
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		if err := apply(tx); err != nil {
			return err
		}
		return audit.Write(ctx, tx, audit.Row{Event: event, Outcome: audit.Succeeded, Target: webhook, Origin: origin})
	})
}

const (
	// The row is deleted later, with its deliveries. Its deletion would take long enough to
	// hold up every fact that writes a delivery for it meanwhile, and then make it fail.
	deleteWebhook = `
		UPDATE auth.webhooks SET url = '', enabled = false, disable_reason = 'deleted', resume_time = NULL, expire_time = now() + interval '1 minute'
		WHERE id = @id AND url <> ''`
	deleteSecrets = `DELETE FROM auth.webhook_secrets WHERE webhook_id = @id`
)

// DeleteWebhook implements authv1.WebhookServiceHandler.
func (s *Service) DeleteWebhook(ctx context.Context, req *authv1.DeleteWebhookRequest) (*authv1.DeleteWebhookResponse, error) {
	err := s.change(ctx, audit.WebhookDelete, req.GetWebhookId(), req.GetOrigin(), func(tx pgx.Tx) error {
		id := pgx.NamedArgs{"id": req.GetWebhookId()}
		tag, err := tx.Exec(ctx, deleteWebhook, id)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errNotFound
		}
		_, err = tx.Exec(ctx, deleteSecrets, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("delete a webhook: %w", err)
	}
	return &authv1.DeleteWebhookResponse{}, nil
}

const lockWebhook = `SELECT enabled FROM auth.webhooks WHERE id = @id AND url <> '' FOR NO KEY UPDATE`

// lock locks an endpoint, and returns whether it is enabled.
func lock(ctx context.Context, tx pgx.Tx, id string) (enabled bool, err error) {
	err = tx.QueryRow(ctx, lockWebhook, pgx.NamedArgs{"id": id}).Scan(&enabled)
	if database.Missing(err) {
		return false, errNotFound
	}
	if err != nil {
		return false, fmt.Errorf("lock the webhook: %w", err)
	}
	return enabled, nil
}

// RotateSecret implements authv1.WebhookServiceHandler.
func (s *Service) RotateSecret(ctx context.Context, req *authv1.RotateSecretRequest) (*authv1.RotateSecretResponse, error) {
	response := &authv1.RotateSecretResponse{}
	err := s.change(ctx, audit.WebhookRotate, req.GetWebhookId(), req.GetOrigin(), func(tx pgx.Tx) error {
		if _, err := lock(ctx, tx, req.GetWebhookId()); err != nil {
			return err
		}
		made, err := s.addSecret(ctx, tx, req.GetWebhookId())
		if err != nil {
			return err
		}
		response.Secret = made.Text()
		response.Webhook, err = byID(ctx, tx, req.GetWebhookId())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rotate the secret of a webhook: %w", err)
	}
	return response, nil
}
