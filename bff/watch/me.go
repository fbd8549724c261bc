package watch

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"gatehouse/bff/access"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// Me serves a stream of AccountService.WatchMe.
func (h *Hub) Me(ctx context.Context, who *access.Principal, req *bffv1.WatchMeRequest, stream bffv1.AccountServiceWatchMeServerStream) error {
	return h.Watch(ctx, who, req.GetCursor(), func(event Event) error {
		message := &bffv1.WatchMeResponse{Cursor: event.Cursor, Complete: event.Complete}
		switch {
		case event.Ended != nil:
			ended := &bffv1.Ended{Reason: fault.Reason(event.Ended)}
			if after, ok := fault.RetryDelay(event.Ended); ok {
				ended.RetryDelay = durationpb.New(after)
			}
			message.Event = &bffv1.WatchMeResponse_Ended{Ended: ended}
		case event.RefreshDue:
			message.Event = &bffv1.WatchMeResponse_RefreshDue{RefreshDue: &bffv1.RefreshDue{}}
		case len(event.Parts) > 0:
			message.Event = &bffv1.WatchMeResponse_Changed{Changed: &bffv1.Changed{Parts: event.Parts}}
		default:
			message.Event = &bffv1.WatchMeResponse_Alive{Alive: &bffv1.Alive{}}
		}
		return stream.Send(message)
	})
}
