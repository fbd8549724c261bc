package bff

import (
	"context"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/follow"
)

const (
	authName  = "auth"
	usersName = "users"
)

// opening opens a stream of changes from a cursor.
type opening func(ctx context.Context, cursor string) (follow.Stream[changes], error)

// openChanges opens the change feed of a service.
//
// auth and users of the version before serve the feed under names of their own. Which
// copy answers is known with its first message, so that it is received here: a copy
// that does not know the feed is asked by the older name at once.
func openChanges(backend Backend) opening {
	client := servicev1.NewChangeServiceClient(backend.Client)
	older := openOlderChanges(backend)
	return func(ctx context.Context, cursor string) (follow.Stream[changes], error) {
		ctx = dial.Shared(ctx)
		stream, err := client.WatchChanges(ctx, &servicev1.WatchChangesRequest{Cursor: cursor})
		if err != nil {
			return nil, err
		}
		first, err := stream.Receive()
		if connect.CodeOf(err) == connect.CodeUnimplemented && older != nil {
			_ = stream.Close()
			return older(ctx, cursor)
		}
		return &changeStream[*servicev1.WatchChangesResponse]{stream: stream, first: first, firstErr: err, received: true}, nil
	}
}

// openOlderChanges opens the feed as the version before serves it; nil for a service
// that never did.
func openOlderChanges(backend Backend) opening {
	switch backend.Name {
	case authName:
		client := authv1.NewChangeServiceClient(backend.Client)
		return func(ctx context.Context, cursor string) (follow.Stream[changes], error) {
			stream, err := client.WatchChanges(ctx, &authv1.WatchChangesRequest{Cursor: cursor})
			if err != nil {
				return nil, err
			}
			return &changeStream[*authv1.WatchChangesResponse]{stream: stream}, nil
		}
	case usersName:
		client := usersv1.NewChangeServiceClient(backend.Client)
		return func(ctx context.Context, cursor string) (follow.Stream[changes], error) {
			stream, err := client.WatchChanges(ctx, &usersv1.WatchChangesRequest{Cursor: cursor})
			if err != nil {
				return nil, err
			}
			return &changeStream[*usersv1.WatchChangesResponse]{stream: stream}, nil
		}
	}
	return nil
}

// changeStream is a stream of a service's messages as one of changes.
type changeStream[M changes] struct {
	stream follow.Stream[M]
	// first is the first message or its error, if it has been received.
	first    M
	firstErr error
	received bool
}

func (s *changeStream[M]) Receive() (changes, error) {
	if s.received {
		s.received = false
		return s.first, s.firstErr
	}
	return s.stream.Receive()
}

func (s *changeStream[M]) Close() error { return s.stream.Close() }
