package watch

import (
	"context"

	"google.golang.org/protobuf/proto"

	"gatehouse/bff/access"
	bffv1 "gatehouse/gen/bff/v1"
)

// Me serves a stream of AccountService.WatchMe.
func (h *Hub) Me(ctx context.Context, who *access.Principal, req *bffv1.WatchMeRequest, out bffv1.AccountServiceWatchMeServerStream) error {
	return h.watch(ctx, &stream{who: who, message: ofMe}, req.GetCursor(), func(event Event) error {
		return out.Send(messageOfMe(event))
	})
}

func ofMe(event Event) proto.Message { return messageOfMe(event) }

func messageOfMe(event Event) *bffv1.WatchMeResponse {
	message := &bffv1.WatchMeResponse{Cursor: event.Cursor, Complete: event.Complete}
	switch {
	case event.Ended != nil:
		message.Event = &bffv1.WatchMeResponse_Ended{Ended: endedOf(event.Ended)}
	case event.RefreshDue:
		message.Event = &bffv1.WatchMeResponse_RefreshDue{RefreshDue: &bffv1.RefreshDue{}}
	case len(event.Parts) > 0:
		message.Event = &bffv1.WatchMeResponse_Changed{Changed: &bffv1.Changed{Parts: event.Parts}}
	default:
		message.Event = &bffv1.WatchMeResponse_Alive{Alive: &bffv1.Alive{}}
	}
	return message
}
