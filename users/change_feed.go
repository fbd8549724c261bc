package users

import (
	"context"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/feed"
)

// profileTag is the tag of cached answers that contain a profile.
const profileTag = "profile/"

const changesTable = "users.changes"

// WatchChanges streams the tags that have changed since the cursor.
func (s *Service) WatchChanges(ctx context.Context, req *usersv1.WatchChangesRequest, stream usersv1.ChangeServiceWatchChangesServerStream) error {
	return s.changes.WatchTags(ctx, req.GetCursor(), func(news feed.TagNews) error {
		return stream.Send(&usersv1.WatchChangesResponse{
			Complete: news.Complete, Tags: news.Tags, Cursor: news.Cursor, AskedAfter: durationpb.New(news.AskedAfter),
		})
	})
}

// Run feeds changes to gateways, and reads those of accounts from auth, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	if s.reader != nil {
		group.Go(func() { s.reader.Run(ctx) })
	}
	s.changes.Run(ctx)
}
