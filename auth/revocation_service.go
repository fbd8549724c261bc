package auth

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/deployment"
	"gatehouse/auth/keyring"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
)

// revocationService implements authv1.RevocationServiceHandler.
type revocationService struct {
	db         *database.Pool
	feed       *revocations.Feed
	keys       *keyring.Keyring
	keyChanges atomic.Int64 // how often the signing keys changed
}

// newRevocationService returns the service; its feed has to run. The signing keys
// are read with the revocations, in one round trip, and sent on the same stream.
func newRevocationService(db *database.Pool, ring *keyring.Keyring, logger *slog.Logger) *revocationService {
	s := &revocationService{db: db, keys: ring}
	var keys []keyring.Stored // of the latest poll
	var issuer string
	watch := deployment.WatchIssuer(ring.Issuer(), logger)
	s.feed = feed.New(feed.Config[*authv1.Revocation]{
		DB: db.Pool, Name: "revocations and signing keys", Prune: revocations.Prune, Logger: logger,
		Queue: func(batch *pgx.Batch, seen string, found map[string]feed.Item[*authv1.Revocation]) {
			batch.Queue(revocations.Select, pgx.NamedArgs{"seen": seen}).Query(func(rows pgx.Rows) error { return revocations.Read(rows, found) })
			batch.Queue(keyring.Select).Query(func(rows pgx.Rows) (err error) {
				keys, err = pgx.CollectRows(rows, pgx.RowToStructByName[keyring.Stored])
				return err
			})
			batch.Queue(deployment.SelectIssuer).Query(func(rows pgx.Rows) error {
				_, err := pgx.ForEachRow(rows, []any{&issuer}, func() error { return nil })
				return err
			})
		},
		Polled: func(read time.Time) {
			watch.See(issuer)
			if ring.Take(keys, read) {
				s.keyChanges.Add(1)
			}
		},
	})
	return s
}

// WatchRevocations implements authv1.RevocationServiceHandler.
func (s *revocationService) WatchRevocations(ctx context.Context, req *authv1.WatchRevocationsRequest, stream authv1.RevocationServiceWatchRevocationsServerStream) error {
	var told int64 // changes of the keys that were sent
	return s.feed.Watch(ctx, req.GetCursor(), func(news feed.News[*authv1.Revocation]) error {
		message := &authv1.WatchRevocationsResponse{Complete: news.Complete, Cursor: news.Cursor}
		for _, one := range news.Items {
			message.Revocations = append(message.Revocations, &authv1.Revocation{Of: one.Value.GetOf(), ExpiresIn: expiresIn(one.Expire, news.Read)})
		}
		// The count is read first: keys that change meanwhile are sent twice.
		if changes := s.keyChanges.Load(); news.First || news.Complete || changes != told {
			told = changes
			message.SigningKeys = &authv1.SigningKeys{Keys: s.keys.Published()}
		}
		for _, part := range parts(message) {
			part.SendTime = timestamppb.New(s.keys.Now())
			if err := stream.Send(part); err != nil {
				return err
			}
		}
		return nil
	})
}

// partRevocations is the maximum in one message, of some 43 bytes each.
const partRevocations = 10_000

// parts splits a message into ones of acceptable size. The cursor, with which the
// reader confirms that it has received all of them, comes last.
func parts(message *authv1.WatchRevocationsResponse) []*authv1.WatchRevocationsResponse {
	left := message.GetRevocations()
	if len(left) <= partRevocations {
		return []*authv1.WatchRevocationsResponse{message}
	}
	var parts []*authv1.WatchRevocationsResponse
	for some := range slices.Chunk(left, partRevocations) {
		parts = append(parts, &authv1.WatchRevocationsResponse{Revocations: some, More: true})
	}
	parts[0].Complete, parts[0].SigningKeys = message.GetComplete(), message.GetSigningKeys()
	last := parts[len(parts)-1]
	last.Cursor, last.More = message.GetCursor(), false
	return parts
}

// expiresIn returns the remaining seconds of a revocation, rounded up.
func expiresIn(expire, now time.Time) int32 { return max(0, int32(expire.Sub(now)/time.Second)) + 1 }

// The id is a session's, or an API key's.
const selectAccess = `
	SELECT s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND a.status = 'active', a.authz_version
	FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
	WHERE s.id = @session_id AND s.account_id = @account_id
	UNION ALL
	SELECT k.revoke_time IS NULL AND k.expire_time > clock_timestamp() AND a.status = 'active', a.authz_version
	FROM auth.api_keys k JOIN auth.accounts a ON a.id = k.account_id
	WHERE k.id = @session_id AND k.account_id = @account_id`

// CheckAccess implements authv1.RevocationServiceHandler.
func (s *revocationService) CheckAccess(ctx context.Context, req *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
	var live bool
	var version int64
	err := s.db.QueryRow(ctx, selectAccess, pgx.NamedArgs{"session_id": req.GetSessionId(), "account_id": req.GetAccountId()}).Scan(&live, &version)
	switch {
	case database.Missing(err):
		return nil, errSessionEnded
	case err != nil:
		return nil, fmt.Errorf("check a token: %w", err)
	case !live:
		return nil, errSessionEnded
	case req.GetAuthzVersion() < version:
		return nil, accesstoken.ErrStale
	}
	return &authv1.CheckAccessResponse{}, nil
}
