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

// Insert records the tags in the argument tags for each row of a statement's
// sub-query, whose name follows.
const Insert = `INSERT INTO ` + table + ` (tag) SELECT unnest(@tags::text[]) FROM `

// InsertSessions records that the sessions of the accounts have changed whose id is
// in each row of a statement's sub-query, whose name follows.
const InsertSessions = `INSERT INTO ` + table + ` (tag) SELECT '` + sessionsTag + `' || id FROM `

// New returns the feed of changed tags.
func New(db *pgxpool.Pool, logger *slog.Logger) *feed.Tags {
	return feed.NewTags(db, table, logger)
}

// OfAccount are the tags of an account and its sessions.
func OfAccount(account string) []string { return []string{accountTag + account, sessionsTag + account} }

// OfSessions are the tags of an account's sessions.
func OfSessions(account string) []string { return []string{sessionsTag + account} }

// NoteSessions records that only an account's sessions have changed.
func NoteSessions(ctx context.Context, db database.Execer, account string) error {
	return feed.Note(ctx, db, table, OfSessions(account)...)
}
