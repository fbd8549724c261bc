package auth

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/feed"
)

// changeService implements authv1.ChangeServiceHandler.
type changeService struct {
	changes *feed.Tags
}

// WatchChanges streams the tags that have changed since the cursor.
func (s *changeService) WatchChanges(ctx context.Context, req *authv1.WatchChangesRequest, stream authv1.ChangeServiceWatchChangesServerStream) error {
	return s.changes.WatchTags(ctx, req.GetCursor(), func(news feed.TagNews) error {
		return stream.Send(&authv1.WatchChangesResponse{
			Complete: news.Complete, Tags: news.Tags, Cursor: news.Cursor, AskedAfter: durationpb.New(news.AskedAfter),
		})
	})
}
