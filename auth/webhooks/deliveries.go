package webhooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/audit"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/page"
)

// pending is the condition of a delivery, aliased d, that is neither sent nor a dead letter.
const pending = `d.sent_time IS NULL AND d.fail_time IS NULL`

const (
	selectDeliveries = `
	SELECT d.id::text, d.event_id::text, e.type, d.account_id::text, d.attempts, d.last_status, d.last_error, d.last_milliseconds,
		d.event_time, d.next_attempt_time, d.sent_time, d.fail_time, d.create_time
	FROM auth.deliveries d JOIN auth.events e ON e.id = d.event_id
	WHERE d.webhook_id = @webhook_id`
	arePending     = ` AND ` + pending
	areSent        = ` AND d.sent_time IS NOT NULL`
	areFailed      = ` AND d.fail_time IS NOT NULL`
	pastDelivery   = ` AND (d.create_time, d.id) < (@after_time, @after_id)`
	newestFirst    = ` ORDER BY d.create_time DESC, d.id DESC LIMIT @limit`
	selectDelivery = selectDeliveries + ` AND d.id = @id`
)

// listed is a delivery and its place in a listing.
type listed struct {
	delivery *authv1.Delivery
	created  time.Time
}

func scanDelivery(row pgx.CollectableRow) (listed, error) {
	d := &authv1.Delivery{Status: authv1.DeliveryStatus_DELIVERY_STATUS_PENDING}
	var account *string
	var milliseconds int64
	var happened, next, created time.Time
	var sent, failed *time.Time
	err := row.Scan(&d.DeliveryId, &d.EventId, &d.Type, &account, &d.Attempts, &d.LastStatus, &d.LastError, &milliseconds,
		&happened, &next, &sent, &failed, &created)
	if err != nil {
		return listed{}, err
	}
	if account != nil {
		d.AccountId = *account
	}
	if d.GetAttempts() > 0 {
		d.LastDuration = durationpb.New(time.Duration(milliseconds) * time.Millisecond)
	}
	d.EventTime = timestamppb.New(happened)
	switch {
	case sent != nil:
		d.Status, d.EndTime = authv1.DeliveryStatus_DELIVERY_STATUS_SENT, timestamppb.New(*sent)
	case failed != nil:
		d.Status, d.EndTime = authv1.DeliveryStatus_DELIVERY_STATUS_FAILED, timestamppb.New(*failed)
	default:
		d.NextAttemptTime = timestamppb.New(next)
	}
	return listed{d, created}, nil
}

// place is the position of a delivery in a listing: its time in microseconds, and its id.
type place struct {
	microseconds int64
	id           uuid.UUID
}

func (p place) bytes() []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(p.microseconds)), p.id[:]...)
}

func parsePlace(raw []byte) (place, bool) {
	if len(raw) != 8+16 {
		return place{}, false
	}
	return place{int64(binary.BigEndian.Uint64(raw)), uuid.UUID(raw[8:])}, true
}

func deliveryPages(req *authv1.ListDeliveriesRequest) page.Query {
	return func(position []byte) []byte {
		return fmt.Appendf(nil, "delivery page token 1: %s %d %x", req.GetWebhookId(), req.GetStatus(), position)
	}
}

// ListDeliveries implements authv1.WebhookServiceHandler.
func (s *Service) ListDeliveries(ctx context.Context, req *authv1.ListDeliveriesRequest) (*authv1.ListDeliveriesResponse, error) {
	statement := selectDeliveries
	switch req.GetStatus() {
	case authv1.DeliveryStatus_DELIVERY_STATUS_PENDING:
		statement += arePending
	case authv1.DeliveryStatus_DELIVERY_STATUS_SENT:
		statement += areSent
	case authv1.DeliveryStatus_DELIVERY_STATUS_FAILED:
		statement += areFailed
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPerPage
	}
	args := pgx.NamedArgs{"webhook_id": req.GetWebhookId(), "limit": size + 1} // one more shows that another page follows
	if token := req.GetPageToken(); token != "" {
		raw, ok := deliveryPages(req).Parse(token)
		after, whole := parsePlace(raw)
		if !ok || !whole {
			return nil, page.ErrToken
		}
		statement += pastDelivery
		args["after_time"], args["after_id"] = time.UnixMicro(after.microseconds), after.id.String()
	}
	if _, err := byID(ctx, s.db, req.GetWebhookId()); err != nil {
		return nil, err
	}
	rows, err := s.db.Query(ctx, statement+newestFirst, args)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	found, err := pgx.CollectRows(rows, scanDelivery)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	response := &authv1.ListDeliveriesResponse{}
	if len(found) > size {
		found = found[:size]
		last, err := uuid.Parse(found[size-1].delivery.GetDeliveryId())
		if err != nil {
			return nil, fmt.Errorf("read a delivery's id: %w", err)
		}
		response.NextPageToken = deliveryPages(req).Token(place{found[size-1].created.UnixMicro(), last}.bytes())
	}
	for _, one := range found {
		response.Deliveries = append(response.Deliveries, one.delivery)
	}
	return response, nil
}

func deliveryByID(ctx context.Context, tx pgx.Tx, webhook, id string) (*authv1.Delivery, error) {
	rows, err := tx.Query(ctx, selectDelivery, pgx.NamedArgs{"webhook_id": webhook, "id": id})
	if err != nil {
		return nil, fmt.Errorf("read the delivery: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, scanDelivery)
	if database.Missing(err) {
		return nil, errDeliveryNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the delivery: %w", err)
	}
	return found.delivery, nil
}

const (
	// It leaves an attempt that is under way alone, and ends a lease that is over: the result of
	// its attempt is not recorded any more. It comes before everything else that is due, because
	// an endpoint that fails gets a single attempt.
	retryDelivery = `
	UPDATE auth.deliveries d SET
		fail_time = NULL, lease_time = CASE WHEN d.lease_time > now() THEN d.lease_time END, attempts = CASE WHEN d.lease_time > now() THEN d.attempts ELSE 0 END,
		next_attempt_time = CASE WHEN d.lease_time > now() THEN d.next_attempt_time ELSE least(now(), (
			SELECT min(p.next_attempt_time) - interval '1 microsecond' FROM auth.deliveries p
			WHERE p.webhook_id = d.webhook_id AND p.sent_time IS NULL AND p.fail_time IS NULL)) END
	WHERE d.id = @id AND d.webhook_id = @webhook_id AND d.sent_time IS NULL`
	// Somebody who asks for an attempt does not want to wait for the circuit breaker.
	resume = `UPDATE auth.webhooks SET resume_time = NULL WHERE id = @id AND url <> '' RETURNING enabled`
)

// RetryDelivery implements authv1.WebhookServiceHandler.
func (s *Service) RetryDelivery(ctx context.Context, req *authv1.RetryDeliveryRequest) (*authv1.RetryDeliveryResponse, error) {
	response := &authv1.RetryDeliveryResponse{}
	err := s.change(ctx, audit.WebhookRetry, req.GetWebhookId(), req.GetOrigin(), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, retryDelivery, pgx.NamedArgs{"id": req.GetDeliveryId(), "webhook_id": req.GetWebhookId()})
		if err != nil {
			return fmt.Errorf("retry the delivery: %w", err)
		}
		if response.Delivery, err = deliveryByID(ctx, tx, req.GetWebhookId(), req.GetDeliveryId()); err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errDeliverySent
		}
		return resumeSending(ctx, tx, req.GetWebhookId())
	})
	if err != nil {
		return nil, fmt.Errorf("retry a delivery: %w", err)
	}
	s.Wake()
	return response, nil
}

// resumeSending closes the circuit breaker of an endpoint for an attempt. Errors: errNotFound,
// errDisabled.
func resumeSending(ctx context.Context, tx pgx.Tx, id string) error {
	var enabled bool
	err := tx.QueryRow(ctx, resume, pgx.NamedArgs{"id": id}).Scan(&enabled)
	switch {
	case database.Missing(err):
		return errNotFound
	case err != nil:
		return fmt.Errorf("resume the webhook: %w", err)
	case !enabled:
		return errDisabled
	}
	return nil
}

const insertTest = `
	WITH written AS (
		INSERT INTO auth.events (type, data) VALUES (@type, jsonb_build_object('webhookId', @webhook_id::text))
		RETURNING id, create_time)
	INSERT INTO auth.deliveries (event_id, webhook_id, event_time)
	SELECT id, @webhook_id::uuid, create_time FROM written RETURNING id::text`

// SendTest implements authv1.WebhookServiceHandler.
func (s *Service) SendTest(ctx context.Context, req *authv1.SendTestRequest) (*authv1.SendTestResponse, error) {
	response := &authv1.SendTestResponse{}
	err := s.change(ctx, audit.WebhookReplay, req.GetWebhookId(), req.GetOrigin(), func(tx pgx.Tx) (err error) {
		if err := resumeSending(ctx, tx, req.GetWebhookId()); err != nil {
			return err
		}
		var id string
		if err := tx.QueryRow(ctx, insertTest, pgx.NamedArgs{"type": TestType, "webhook_id": req.GetWebhookId()}).Scan(&id); err != nil {
			return fmt.Errorf("write the event: %w", err)
		}
		response.Delivery, err = deliveryByID(ctx, tx, req.GetWebhookId(), id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("send a test event: %w", err)
	}
	s.Wake()
	return response, nil
}

// maxReplay is how many events one call queues.
const maxReplay = 10_000

const replayEvents = `
	WITH found AS MATERIALIZED (
		SELECT e.id, e.account_id, e.create_time FROM auth.events e
		WHERE e.create_time >= @start_time AND e.type = ANY (@types) AND e.account_id IS NOT NULL
		ORDER BY e.create_time, e.id LIMIT @most
	), queued AS (
		INSERT INTO auth.deliveries (event_id, webhook_id, account_id, event_time)
		SELECT f.id, @webhook_id::uuid, f.account_id, f.create_time FROM found f
		WHERE NOT EXISTS (SELECT FROM auth.deliveries d WHERE d.event_id = f.id AND d.webhook_id = @webhook_id::uuid AND ` + pending + `)
		RETURNING id)
	SELECT (SELECT count(*) FROM queued), (SELECT count(*) FROM found), (SELECT max(create_time) FROM found)`

const selectTypes = `SELECT types FROM auth.webhooks WHERE id = @id`

// ReplayEvents implements authv1.WebhookServiceHandler.
func (s *Service) ReplayEvents(ctx context.Context, req *authv1.ReplayEventsRequest) (*authv1.ReplayEventsResponse, error) {
	types, err := wanted(req.GetTypes())
	if err != nil {
		return nil, err
	}
	response := &authv1.ReplayEventsResponse{}
	err = s.change(ctx, audit.WebhookReplay, req.GetWebhookId(), req.GetOrigin(), func(tx pgx.Tx) error {
		enabled, err := lock(ctx, tx, req.GetWebhookId())
		if err != nil {
			return err
		}
		if !enabled {
			return errDisabled
		}
		if len(req.GetTypes()) == 0 {
			if err := tx.QueryRow(ctx, selectTypes, pgx.NamedArgs{"id": req.GetWebhookId()}).Scan(&types); err != nil {
				return fmt.Errorf("read the types: %w", err)
			}
		}
		var found int
		var last *time.Time
		err = tx.QueryRow(ctx, replayEvents, pgx.NamedArgs{
			"webhook_id": req.GetWebhookId(), "start_time": req.GetStartTime().AsTime(), "types": types, "most": maxReplay,
		}).Scan(&response.Count, &found, &last)
		if err != nil {
			return fmt.Errorf("queue the events: %w", err)
		}
		if found == maxReplay && last != nil {
			response.NextStartTime = timestamppb.New(*last)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("replay events: %w", err)
	}
	s.Wake()
	return response, nil
}
