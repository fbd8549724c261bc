// Package changes records which accounts and session lists have changed, so that
// gateways invalidate the answers that they have cached from them.
package changes

import (
	"context"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/database"
	"gatehouse/internal/feed"
)

// Tags of cached answers, each followed by the account's id.
const (
	accountTag  = "account/"
	sessionsTag = "sessions/"
)

const table = "auth.changes"

// New returns the feed of changed tags.
func New(db *pgxpool.Pool, logger *slog.Logger) *feed.Tags {
	return feed.NewTags(db, table, logger)
}

// NoteAccount records that an account and its sessions have changed.
func NoteAccount(ctx context.Context, db database.Execer, account string) error {
	return feed.Note(ctx, db, table, accountTag+account, sessionsTag+account)
}

// NoteSessions records that only an account's sessions have changed.
func NoteSessions(ctx context.Context, db database.Execer, account string) error {
	return feed.Note(ctx, db, table, sessionsTag+account)
}
