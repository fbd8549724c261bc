package watch

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"gatehouse/bff/access"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// Users has the method of UserService about live updates.
type Users struct {
	Hub *Hub
	// Caller returns the principal of the call.
	Caller func(context.Context) *access.Principal
}

// WatchUsers implements bffv1.UserServiceHandler.
func (u *Users) WatchUsers(ctx context.Context, req *bffv1.WatchUsersRequest, out bffv1.UserServiceWatchUsersServerStream) error {
	return u.Hub.watch(ctx, &stream{who: u.Caller(ctx), all: true, message: ofUsers}, req.GetCursor(), func(event Event) error {
		return out.Send(messageOfUsers(event))
	})
}

func ofUsers(event Event) proto.Message { return messageOfUsers(event) }

func messageOfUsers(event Event) *bffv1.WatchUsersResponse {
	message := &bffv1.WatchUsersResponse{Cursor: event.Cursor, Complete: event.Complete}
	switch {
	case event.Ended != nil:
		message.Event = &bffv1.WatchUsersResponse_Ended{Ended: endedOf(event.Ended)}
	case event.RefreshDue:
		message.Event = &bffv1.WatchUsersResponse_RefreshDue{RefreshDue: &bffv1.RefreshDue{}}
	case event.Complete || len(event.Accounts) > 0:
		message.Event = &bffv1.WatchUsersResponse_Changed{Changed: &bffv1.ChangedUsers{UserIds: event.Accounts}}
	default:
		message.Event = &bffv1.WatchUsersResponse_Alive{Alive: &bffv1.Alive{}}
	}
	return message
}

func endedOf(reason *connect.Error) *bffv1.Ended {
	ended := &bffv1.Ended{Reason: fault.Reason(reason)}
	if after, ok := fault.RetryDelay(reason); ok {
		ended.RetryDelay = durationpb.New(after)
	}
	return ended
}
