package auth

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

// A revocation is written in the transaction that ends a session or raises an
// account's authorisation version. Each copy of auth polls for new ones and
// tells the gateways, which check access tokens by themselves and would else
// accept one until it expires.
const (
	revocationPoll = 250 * time.Millisecond
	// A poll that takes longer is as good as none.
	revocationPollLimit = 2 * time.Second
	// revocationLife is how long a revocation is kept: as long as any token that
	// it concerns, with time for clocks that differ.
	revocationLife  = AccessTokenLife + time.Minute
	revocationPrune = time.Minute
	// watcherBuffer is how many messages a reader may fall behind.
	watcherBuffer = 4
)

var (
	errTokenStale = rpc.NewError(connect.CodeUnauthenticated, "TOKEN_STALE", "Your roles or your account have changed since this access token was made. Refresh it.")
	errFellBehind = rpc.WithRetry(rpc.NewError(connect.CodeUnavailable, rpc.ReasonUnavailable, "The stream has ended. Open it again."), time.Second)
)

// revocations are the live ones, and who watches them.
type revocations struct {
	mu       sync.Mutex
	live     map[string]revocation // by the row's id
	watchers map[*watcher]struct{}
	wake     chan struct{}
	stopped  bool
}

type revocation struct {
	message *authv1.Revocation
	expire  time.Time
}

// watcher is a gateway's stream. It is told nothing before it was told all.
type watcher struct {
	messages chan *authv1.WatchRevocationsResponse
	complete bool
}

func newRevocations() *revocations {
	return &revocations{live: map[string]revocation{}, watchers: map[*watcher]struct{}{}, wake: make(chan struct{}, 1)}
}

// soon has the next poll begin at once.
func (r *revocations) soon() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// watch begins a stream. The channel is closed when its reader has fallen
// behind, or auth stops.
func (r *revocations) watch() *watcher {
	w := &watcher{messages: make(chan *authv1.WatchRevocationsResponse, watcherBuffer)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		close(w.messages)
		return w
	}
	r.watchers[w] = struct{}{}
	r.soon()
	return w
}

func (r *revocations) leave(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, w)
}

// tell sends every watcher what it needs after a poll that worked.
func (r *revocations) tell(found map[string]revocation) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	news := &authv1.WatchRevocationsResponse{}
	for id, one := range found {
		if _, known := r.live[id]; !known {
			r.live[id] = one
			news.Revocations = append(news.Revocations, one.at(now))
		}
	}
	var all *authv1.WatchRevocationsResponse
	for w := range r.watchers {
		message := news
		if !w.complete {
			if all == nil {
				all = r.all(now)
			}
			message, w.complete = all, true
		}
		select {
		case w.messages <- message:
		default:
			delete(r.watchers, w)
			close(w.messages)
		}
	}
}

// all is the complete live set.
func (r *revocations) all(now time.Time) *authv1.WatchRevocationsResponse {
	all := &authv1.WatchRevocationsResponse{Complete: true}
	for _, one := range r.live {
		all.Revocations = append(all.Revocations, one.at(now))
	}
	return all
}

// forget lets go of what concerns no token that is still alive.
func (r *revocations) forget() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, one := range r.live {
		if now.After(one.expire) {
			delete(r.live, id)
		}
	}
}

func (r *revocations) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for w := range r.watchers {
		close(w.messages)
	}
	clear(r.watchers)
}

func (r *revocations) hasStopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// at says what is left of its time, rounded up.
func (r revocation) at(now time.Time) *authv1.Revocation {
	return &authv1.Revocation{Of: r.message.GetOf(), ExpiresIn: max(0, int32(r.expire.Sub(now)/time.Second)) + 1}
}

// The horizon is the oldest transaction that has not ended: what began before
// it is seen by now, and whatever commits later has its number or a larger one.
const selectRevocations = `
	SELECT pg_snapshot_xmin(pg_current_snapshot())::text, r.id::text, r.session_id::text, r.account_id::text, r.least_version,
		extract(epoch FROM r.expire_time - now())::float8
	FROM (VALUES (1)) AS one LEFT JOIN auth.revocations r ON r.xid >= @horizon::text::xid8 AND r.expire_time > now()`

// pollRevocations reads what was revoked since the horizon, and returns the next
// one.
func (s *Service) pollRevocations(ctx context.Context, horizon string) (string, map[string]revocation, error) {
	ctx, cancel := context.WithTimeout(ctx, revocationPollLimit)
	defer cancel()
	rows, err := s.db.Query(ctx, selectRevocations, pgx.NamedArgs{"horizon": horizon})
	if err != nil {
		return "", nil, fmt.Errorf("poll the revocations: %w", err)
	}
	found := map[string]revocation{}
	now := time.Now()
	var next string
	var id, session, account *string
	var version *int64
	var left *float64
	_, err = pgx.ForEachRow(rows, []any{&next, &id, &session, &account, &version, &left}, func() error {
		switch {
		case session != nil:
			found[*id] = revocation{message: &authv1.Revocation{Of: &authv1.Revocation_SessionId{SessionId: *session}}, expire: now.Add(seconds(*left))}
		case account != nil:
			found[*id] = revocation{message: &authv1.Revocation{Of: &authv1.Revocation_LeastVersion{
				LeastVersion: &authv1.LeastVersion{AccountId: *account, Version: *version},
			}}, expire: now.Add(seconds(*left))}
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("poll the revocations: %w", err)
	}
	return next, found, nil
}

const pruneRevocations = `DELETE FROM auth.revocations WHERE expire_time < now() - interval '1 minute'`

// publishRevocations polls until ctx ends. A watcher hears only of polls that
// worked: silence tells it that auth is cut off from its database.
func (s *Service) publishRevocations(ctx context.Context) {
	defer s.revocations.stop()
	ticker := time.NewTicker(revocationPoll)
	defer ticker.Stop()
	horizon, failing, pruned := "0", false, time.Now()
	for {
		next, found, err := s.pollRevocations(ctx, horizon)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			horizon = next
			s.revocations.tell(found)
		}
		if away := err != nil; away != failing {
			failing = away
			if away {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "revocations can't be read", slog.String("cause", err.Error()))
			} else {
				s.logger.LogAttrs(ctx, slog.LevelInfo, "revocations can be read again")
			}
		}
		if time.Since(pruned) > revocationPrune {
			pruned = time.Now()
			s.revocations.forget()
			if _, err := s.db.Exec(ctx, pruneRevocations); err != nil && ctx.Err() == nil {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "old revocations stay for now", slog.String("cause", err.Error()))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.revocations.wake:
		}
	}
}

// WatchRevocations implements authv1.RevocationServiceHandler.
func (s *Service) WatchRevocations(ctx context.Context, _ *authv1.WatchRevocationsRequest, stream authv1.RevocationServiceWatchRevocationsServerStream) error {
	watcher := s.revocations.watch()
	defer s.revocations.leave(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case message, ok := <-watcher.messages:
			if !ok && s.revocations.hasStopped() {
				return nil
			}
			if !ok {
				return errFellBehind
			}
			if err := stream.Send(message); err != nil {
				return fmt.Errorf("tell a gateway: %w", err)
			}
		}
	}
}

const selectAccess = `
	SELECT s.revoke_time IS NULL AND a.status = 'active', a.authz_version
	FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
	WHERE s.id = @session_id AND s.account_id = @account_id`

// CheckAccess implements authv1.RevocationServiceHandler.
func (s *Service) CheckAccess(ctx context.Context, req *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
	var live bool
	var version int64
	err := s.db.QueryRow(ctx, selectAccess, pgx.NamedArgs{"session_id": req.GetSessionId(), "account_id": req.GetAccountId()}).Scan(&live, &version)
	switch {
	case missing(err):
		return nil, errSessionEnded
	case err != nil:
		return nil, fmt.Errorf("check a token: %w", err)
	case !live:
		return nil, errSessionEnded
	case req.GetAuthzVersion() < version:
		return nil, errTokenStale
	}
	return &authv1.CheckAccessResponse{}, nil
}

const insertLeastVersion = `
	INSERT INTO auth.revocations (account_id, least_version, expire_time)
	VALUES (@account_id, @least_version, now() + @life::interval)`

// revokeBelow has no token of the account count that is below the version.
func revokeBelow(ctx context.Context, tx pgx.Tx, account string, version int64) error {
	_, err := tx.Exec(ctx, insertLeastVersion, pgx.NamedArgs{"account_id": account, "least_version": version, "life": revocationLife})
	if err != nil {
		return fmt.Errorf("write the revocation: %w", err)
	}
	return nil
}
