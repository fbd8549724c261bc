package webhooks

import (
	"context"
	"sync"
	"time"

	"gatehouse/bff/watch"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/rpc"
)

// endGrace is how long a write to the reader may take when the stream ends.
const endGrace = 2 * time.Second

// ListenEvents implements bffv1.WebhookServiceHandler. The hub of live streams bounds it and
// ends it, as any stream of the caller's session.
func (s *Service) ListenEvents(ctx context.Context, req *bffv1.ListenEventsRequest, stream bffv1.WebhookServiceListenEventsServerStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	events, err := s.Webhooks.ListenEvents(ctx, &authv1.ListenEventsRequest{Types: req.GetTypes(), ListenerId: req.GetListenerId(), Origin: s.ClientInfo(ctx)})
	if err != nil {
		return s.Public(ctx, err)
	}
	defer func() { _ = events.Close() }()
	first, err := events.Receive()
	if err != nil {
		return s.Public(ctx, err)
	}
	listener := first.GetListenerId()
	var sending sync.Mutex
	send := func(message *bffv1.ListenEventsResponse) error {
		sending.Lock()
		defer sending.Unlock()
		message.ListenerId = listener
		return stream.Send(message)
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		for {
			message, err := events.Receive()
			if err == nil {
				err = send(&bffv1.ListenEventsResponse{Message: &bffv1.ListenEventsResponse_Event{Event: &bffv1.Event{EventId: message.GetEventId(), Body: message.GetBody()}}})
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	err = s.Live.Watch(ctx, s.Caller(ctx), "", func(event watch.Event) error {
		message := &bffv1.ListenEventsResponse{}
		switch {
		case event.Ended != nil:
			message.Message = &bffv1.ListenEventsResponse_Ended{Ended: endedOf(event.Ended)}
		case event.RefreshDue:
			message.Message = &bffv1.ListenEventsResponse_RefreshDue{RefreshDue: &bffv1.RefreshDue{}}
		default:
			message.Message = &bffv1.ListenEventsResponse_Alive{Alive: &bffv1.Alive{}}
		}
		return send(message)
	})
	lost := context.Cause(ctx)
	cancel(nil)
	select {
	case <-received:
	case <-time.After(endGrace): // it writes to a reader that does not read, and whose connection is open
		rpc.InterruptWrites(ctx)
		<-received
	}
	if lost != nil {
		return s.Public(ctx, lost)
	}
	return err
}
