package feed

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	servicev1 "gatehouse/gen/service/v1"
)

// Register registers the feed as the service's ChangeService.
func (t *Tags) Register(server *connect.Server) {
	servicev1.RegisterChangeServiceHandler(server, t)
}

// WatchChanges implements servicev1.ChangeServiceHandler.
func (t *Tags) WatchChanges(ctx context.Context, req *servicev1.WatchChangesRequest, stream servicev1.ChangeServiceWatchChangesServerStream) error {
	return t.WatchTags(ctx, req.GetCursor(), func(news TagNews) error {
		return stream.Send(&servicev1.WatchChangesResponse{
			Complete: news.Complete, Tags: news.Tags, Cursor: news.Cursor, AskedAfter: durationpb.New(news.AskedAfter), Position: news.Position,
		})
	})
}
