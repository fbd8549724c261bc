package webhooks

import (
	"context"
	"errors"
	"sync"
	"time"

	"gatehouse/bff/watch"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

const (
	// endGrace is how long a write to the reader may take when the stream ends.
	endGrace = 2 * time.Second
	// openLimit is how long auth may take to open its stream. Until then, nothing ends the
	// caller's.
	openLimit = 5 * time.Second
)

// ListenEvents implements bffv1.WebhookServiceHandler. The hub of live streams bounds it and
// ends it, as any stream of the caller's session. The first event of the hub begins the stream
// of auth, which keeps a listener for a while: a refusal by the hub leaves none.
func (s *Service) ListenEvents(ctx context.Context, req *bffv1.ListenEventsRequest, stream bffv1.WebhookServiceListenEventsServerStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	listener := req.GetListenerId()
	var sending sync.Mutex
	send := func(message *bffv1.ListenEventsResponse) error {
		sending.Lock()
		defer sending.Unlock()
		message.ListenerId = listener
		return stream.Send(message)
	}
	var received chan struct{} // closed when the stream of auth has ended
	err := s.Live.Watch(ctx, s.Caller(ctx), "", func(event watch.Event) error {
		if received == nil && event.Ended == nil {
			opening := time.AfterFunc(openLimit, func() { cancel(fault.Unavailable()) })
			events, id, err := s.openListener(ctx, req)
			opening.Stop()
			if err != nil {
				return s.Public(ctx, errors.Join(context.Cause(ctx), err))
			}
			listener, received = id, make(chan struct{})
			go func() {
				defer close(received)
				defer func() { _ = events.Close() }()
				cancel(relay(events, send))
			}()
		}
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
	if received == nil {
		return err
	}
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

// openListener opens the stream of auth, and returns the id of its listener.
func (s *Service) openListener(ctx context.Context, req *bffv1.ListenEventsRequest) (events authv1.WebhookServiceListenEventsClientStream, id string, err error) {
	events, err = s.Webhooks.ListenEvents(ctx, &authv1.ListenEventsRequest{Types: req.GetTypes(), ListenerId: req.GetListenerId(), Origin: s.ClientInfo(ctx)})
	if err != nil {
		return events, "", err
	}
	first, err := events.Receive()
	if err != nil {
		_ = events.Close()
		return events, "", err
	}
	return events, first.GetListenerId(), nil
}

// relay sends the events of auth until one of the streams ends, and returns why.
func relay(events authv1.WebhookServiceListenEventsClientStream, send func(*bffv1.ListenEventsResponse) error) error {
	for {
		message, err := events.Receive()
		if err == nil {
			err = send(&bffv1.ListenEventsResponse{Message: &bffv1.ListenEventsResponse_Event{Event: &bffv1.Event{EventId: message.GetEventId(), Body: message.GetBody()}}})
		}
		if err != nil {
			return err
		}
	}
}
