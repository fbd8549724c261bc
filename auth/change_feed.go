package auth

import (
	"context"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/feed"
)

// Gateways keep answers, tagged with what they are made of. Here is what auth
// tags as changed: an account with what is known of its security, and the list
// of its sessions.
const (
	accountTag  = "account/"
	sessionsTag = "sessions/"
)

const changesTable = "auth.changes"

func newChanges(db *pgxpool.Pool, logger *slog.Logger) *feed.Tags {
	return feed.NewTags(db, changesTable, logger)
}

// noteChange notes what an audited success has changed. All that changes an
// account is audited, in its transaction, so that none is forgotten here; that
// some change less than both is no harm.
func noteChange(ctx context.Context, db execer, row audited) error {
	if row.outcome != succeeded || row.account == "" {
		return nil
	}
	return feed.Note(ctx, db, changesTable, accountTag+row.account, sessionsTag+row.account)
}

// noteSessions notes that an account's sessions have changed, of what isn't
// audited or isn't a success.
func noteSessions(ctx context.Context, db execer, account string) error {
	return feed.Note(ctx, db, changesTable, sessionsTag+account)
}

// WatchChanges implements authv1.ChangeServiceHandler.
func (s *Service) WatchChanges(ctx context.Context, req *authv1.WatchChangesRequest, stream authv1.ChangeServiceWatchChangesServerStream) error {
	return s.changes.WatchTags(ctx, req.GetCursor(), func(news feed.TagNews) error {
		return stream.Send(&authv1.WatchChangesResponse{
			Complete: news.Complete, Tags: news.Tags, Cursor: news.Cursor, AskedAfter: durationpb.New(news.AskedAfter),
		})
	})
}
