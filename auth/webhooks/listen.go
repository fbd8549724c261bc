package webhooks

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

const (
	// listenerLife is how long a listener is kept without a stream, so that the next one
	// continues where it ended.
	listenerLife = time.Minute
	listenPoll   = 250 * time.Millisecond
	listenRenew  = 15 * time.Second
	listenBatch  = 100
)

const (
	insertListener = `INSERT INTO auth.webhooks (id, types, expire_time) VALUES (@id, @types, now() + @life::interval)`
	renewListener  = `UPDATE auth.webhooks SET expire_time = now() + @life::interval WHERE id = @id AND enabled AND expire_time > now()`
	selectWaiting  = `
		SELECT d.id::text, d.event_id::text, e.type, e.data, e.create_time
		FROM auth.deliveries d JOIN auth.events e ON e.id = d.event_id
		WHERE d.webhook_id = @id AND ` + pending + `
		ORDER BY d.create_time, d.id LIMIT @most`
	markHeard = `UPDATE auth.deliveries SET sent_time = now(), attempts = 1 WHERE id = ANY (@ids::uuid[]) AND sent_time IS NULL`
)

// heard is the row of selectWaiting.
type heard struct {
	ID, EventID, Type string
	Data              []byte
	EventTime         time.Time
}

// ListenEvents implements authv1.WebhookServiceHandler. A listener is an endpoint without a
// URL, so that its events are written with the facts, and none is lost between two streams.
func (s *Service) ListenEvents(ctx context.Context, req *authv1.ListenEventsRequest, stream authv1.WebhookServiceListenEventsServerStream) error {
	types, err := wanted(req.GetTypes())
	if err != nil {
		return err
	}
	id, err := s.joinListener(ctx, req, types)
	if err != nil {
		return fmt.Errorf("listen to events: %w", err)
	}
	if err := stream.Send(&authv1.ListenEventsResponse{ListenerId: id}); err != nil {
		return err
	}
	ticker := time.NewTicker(listenPoll)
	defer ticker.Stop()
	for renewed := time.Now(); ; {
		if err := s.sendWaiting(ctx, id, stream); err != nil {
			return err
		}
		if time.Since(renewed) > listenRenew {
			renewed = time.Now()
			tag, err := s.db.Exec(ctx, renewListener, pgx.NamedArgs{"id": id, "life": listenerLife})
			if err != nil {
				return fmt.Errorf("renew the listener: %w", err)
			}
			if tag.RowsAffected() == 0 { // its reader was too slow, so that it has expired
				return fault.UnavailableFor(time.Second)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// joinListener continues a listener or makes one, and returns its id.
func (s *Service) joinListener(ctx context.Context, req *authv1.ListenEventsRequest, types []string) (string, error) {
	if id := req.GetListenerId(); id != "" {
		tag, err := s.db.Exec(ctx, renewListener, pgx.NamedArgs{"id": id, "life": listenerLife})
		if err != nil {
			return "", err
		}
		if tag.RowsAffected() == 1 {
			return id, nil
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	err = s.change(ctx, audit.WebhookListen, id.String(), req.GetOrigin(), func(tx pgx.Tx) error {
		if err := checkCount(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insertListener, pgx.NamedArgs{"id": id.String(), "types": types, "life": listenerLife})
		return err
	})
	return id.String(), err
}

// sendWaiting sends what waits for a listener, in the order of the events.
func (s *Service) sendWaiting(ctx context.Context, id string, stream authv1.WebhookServiceListenEventsServerStream) error {
	for {
		rows, err := s.db.Query(ctx, selectWaiting, pgx.NamedArgs{"id": id, "most": listenBatch})
		if err != nil {
			return fmt.Errorf("read the events of a listener: %w", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[heard])
		if err != nil {
			return fmt.Errorf("read the events of a listener: %w", err)
		}
		var ids []string
		for _, row := range found {
			text, err := body(row.Type, row.EventTime, row.Data)
			if err != nil {
				return fmt.Errorf("encode the event: %w", err)
			}
			if err := stream.Send(&authv1.ListenEventsResponse{ListenerId: id, EventId: row.EventID, Body: string(text)}); err != nil {
				return err
			}
			ids = append(ids, row.ID)
		}
		if len(ids) > 0 {
			if _, err := s.db.Exec(ctx, markHeard, pgx.NamedArgs{"ids": ids}); err != nil {
				return fmt.Errorf("record the events of a listener: %w", err)
			}
		}
		if len(found) < listenBatch {
			return nil
		}
	}
}
