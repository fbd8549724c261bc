package auth

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
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
	// A poll that takes longer is as good as none; but reading all that is live
	// takes its time on a busy machine, and there is nothing to be said before.
	revocationPollLimit  = 2 * time.Second
	revocationWholeLimit = 20 * time.Second
	// revocationLife is how long a revocation is kept: as long as any token that
	// it concerns, with time for clocks that differ.
	revocationLife  = AccessTokenLife + time.Minute
	revocationPrune = time.Minute
	// watcherBuffer is how many messages a reader may fall behind: ten seconds'.
	watcherBuffer = 40
	// partRevocations is how many go into one message, of some 43 bytes each.
	partRevocations = 10_000
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
	begun    int // polls
	wake     chan struct{}
	stopped  bool
}

type revocation struct {
	message *authv1.Revocation
	xid     uint64 // of the transaction that wrote it
	expire  time.Time
}

// watcher is a gateway's stream.
type watcher struct {
	messages chan *authv1.WatchRevocationsResponse
	cursor   string // from where it wants to go on
	// It is told nothing of polls that began before it came: they may know less
	// than the copy of auth that it comes from.
	begun int
	told  bool
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
func (r *revocations) watch(cursor string) *watcher {
	w := &watcher{messages: make(chan *authv1.WatchRevocationsResponse, watcherBuffer), cursor: cursor}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		close(w.messages)
		return w
	}
	w.begun = r.begun
	r.watchers[w] = struct{}{}
	r.soon()
	return w
}

func (r *revocations) leave(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, w)
}

// begin counts a poll and returns its number.
func (r *revocations) begin() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	return r.begun
}

// tell sends every watcher what it needs after a poll that worked. keys are the
// signing keys, and keysChanged is whether they are news.
func (r *revocations) tell(number int, p poll, keys []*authv1.SigningKey, keysChanged bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.anew {
		clear(r.live)
	}
	all := &authv1.SigningKeys{Keys: keys}
	news := &authv1.WatchRevocationsResponse{Cursor: p.cursor()}
	if keysChanged {
		news.SigningKeys = all
	}
	for id, one := range p.found {
		if _, known := r.live[id]; !known {
			r.live[id] = one
			news.Revocations = append(news.Revocations, one.at(p.when))
		}
	}
	var whole *authv1.WatchRevocationsResponse
	for w := range r.watchers {
		if w.begun >= number {
			continue
		}
		message := news
		from, known := p.resume(w.cursor)
		switch {
		case w.told && !p.anew:
		case !w.told && known:
			message = r.since(from, p, all)
		default:
			if whole == nil {
				whole = r.since(0, p, all)
				whole.Complete = true
			}
			message = whole
		}
		w.told = true
		select {
		case w.messages <- message:
		default:
			delete(r.watchers, w)
			close(w.messages)
		}
	}
}

// since is what was revoked from a transaction on.
func (r *revocations) since(xid uint64, p poll, keys *authv1.SigningKeys) *authv1.WatchRevocationsResponse {
	message := &authv1.WatchRevocationsResponse{Cursor: p.cursor(), SigningKeys: keys}
	for _, one := range r.live {
		if one.xid >= xid {
			message.Revocations = append(message.Revocations, one.at(p.when))
		}
	}
	return message
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

// poll is what a poll read.
type poll struct {
	when     time.Time
	database string // which run of which server, and which database there
	snapshot string // what was visible: the next poll reads what wasn't
	horizon  uint64 // the oldest transaction that had not ended
	// Whether the database is another one than before, so that only this counts.
	anew  bool
	found map[string]revocation
	keys  []storedKey
}

// A cursor is the database and the horizon of a poll: whatever its reader
// hasn't heard has this transaction's number or a larger one.
func (p poll) cursor() string { return p.database + "." + strconv.FormatUint(p.horizon, 10) }

// cursorSlack is how far a reader goes back. When Postgres crashes, numbers of
// transactions that left no trace are given again.
const cursorSlack = 1000

// resume returns the transaction from which a cursor's reader needs what is
// live, and whether the cursor is one of this database's.
func (p poll) resume(cursor string) (uint64, bool) {
	database, text, _ := strings.Cut(cursor, ".")
	horizon, err := strconv.ParseUint(text, 10, 64)
	if err != nil || database != p.database || horizon > p.horizon {
		return 0, false
	}
	return horizon - min(horizon, cursorSlack), true
}

// nothing is a snapshot in which nothing is visible.
const nothing = "1:1:"

// Each statement sees at least what the one before it saw. A server that was
// restored or took another's place started at another time.
const (
	selectPosition = `
		SELECT d.oid::text || '-' || extract(epoch FROM pg_postmaster_start_time())::text, s::text, pg_snapshot_xmin(s)::text
		FROM pg_catalog.pg_database d, pg_current_snapshot() s WHERE d.datname = current_database()`
	selectRevocations = `
		SELECT id::text, xid::text, session_id::text, account_id::text, least_version, extract(epoch FROM expire_time - now())::float8
		FROM auth.revocations
		WHERE xid >= pg_snapshot_xmin(@seen::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, @seen::text::pg_snapshot)
			AND expire_time > now()`
)

// pollFeed reads the signing keys and what was revoked, but for what was visible
// in the snapshot, in one round trip.
func (s *Service) pollFeed(ctx context.Context, seen string) (poll, error) {
	limit := revocationPollLimit
	if seen == nothing {
		limit = revocationWholeLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p := poll{found: map[string]revocation{}}
	var batch pgx.Batch
	batch.Queue(selectPosition).QueryRow(func(row pgx.Row) error {
		var horizon string
		if err := row.Scan(&p.database, &p.snapshot, &horizon); err != nil {
			return err
		}
		p.database = strings.ReplaceAll(p.database, ".", "")
		var err error
		p.horizon, err = strconv.ParseUint(horizon, 10, 64)
		return err
	})
	batch.Queue(selectRevocations, pgx.NamedArgs{"seen": seen}).Query(func(rows pgx.Rows) error { return p.read(rows) })
	batch.Queue(selectKeys).Query(func(rows pgx.Rows) (err error) {
		p.keys, err = pgx.CollectRows(rows, pgx.RowToStructByName[storedKey])
		return err
	})
	if err := s.db.SendBatch(ctx, &batch).Close(); err != nil {
		return poll{}, fmt.Errorf("poll the revocations and keys: %w", err)
	}
	p.when = time.Now()
	return p, nil
}

// read reads the revocations.
func (p *poll) read(rows pgx.Rows) error {
	now := time.Now()
	var id, number string
	var session, account *string
	var version *int64
	var left float64
	_, err := pgx.ForEachRow(rows, []any{&id, &number, &session, &account, &version, &left}, func() error {
		xid, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return err
		}
		one := revocation{xid: xid, expire: now.Add(seconds(left))}
		if session != nil {
			one.message = &authv1.Revocation{Of: &authv1.Revocation_SessionId{SessionId: *session}}
		} else {
			one.message = &authv1.Revocation{Of: &authv1.Revocation_LeastVersion{
				LeastVersion: &authv1.LeastVersion{AccountId: *account, Version: *version},
			}}
		}
		p.found[id] = one
		return nil
	})
	return err
}

const pruneRevocations = `DELETE FROM auth.revocations WHERE expire_time < now() - interval '1 minute'`

// publishRevocations polls until ctx ends. A watcher hears only of polls that
// worked: silence tells it that auth is cut off from its database.
func (s *Service) publishRevocations(ctx context.Context) {
	defer s.revocations.stop()
	ticker := time.NewTicker(revocationPoll)
	defer ticker.Stop()
	seen, database, failing, pruned := nothing, "", false, time.Now()
	for {
		number := s.revocations.begin()
		p, err := s.pollFeed(ctx, seen)
		if err == nil && database != "" && p.database != database {
			p, err = s.pollFeed(ctx, nothing)
			p.anew = true
		}
		if ctx.Err() != nil {
			return
		}
		// After a failure, Postgres may be another, or have crashed and given
		// numbers again: all is read, and who watches is told what is new of it.
		seen = nothing
		if err == nil {
			seen, database = p.snapshot, p.database
			changed := s.keys.take(p.keys, p.when)
			s.revocations.tell(number, p, s.keys.published(), changed)
		}
		if away := err != nil; away != failing {
			failing = away
			if away {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "revocations and signing keys can't be read", slog.String("cause", err.Error()))
			} else {
				s.logger.LogAttrs(ctx, slog.LevelInfo, "revocations and signing keys can be read again")
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
func (s *Service) WatchRevocations(ctx context.Context, req *authv1.WatchRevocationsRequest, stream authv1.RevocationServiceWatchRevocationsServerStream) error {
	watcher := s.revocations.watch(req.GetCursor())
	defer s.revocations.leave(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case message, ok := <-watcher.messages:
			for ok && len(watcher.messages) > 0 { // to catch up in one go
				var next *authv1.WatchRevocationsResponse
				if next, ok = <-watcher.messages; ok {
					message = joined(message, next)
				}
			}
			if !ok && s.revocations.hasStopped() {
				return nil
			}
			if !ok {
				return errFellBehind
			}
			for _, part := range parts(message) {
				if err := stream.Send(part); err != nil {
					return fmt.Errorf("tell a gateway: %w", err)
				}
			}
		}
	}
}

// joined says what two messages say, one after the other.
func joined(first, second *authv1.WatchRevocationsResponse) *authv1.WatchRevocationsResponse {
	if second.GetComplete() {
		return second
	}
	both := &authv1.WatchRevocationsResponse{
		Complete: first.GetComplete(), Revocations: slices.Concat(first.GetRevocations(), second.GetRevocations()),
		Cursor: second.GetCursor(), SigningKeys: second.GetSigningKeys(),
	}
	if both.SigningKeys == nil {
		both.SigningKeys = first.GetSigningKeys()
	}
	return both
}

// parts cuts a message into ones that a reader takes. The cursor, with which the
// reader says that it holds all of it, comes last.
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
	VALUES (@account_id, @least_version, clock_timestamp() + @life::interval)`

// revokeBelow has no token of the account count that is below the version.
func revokeBelow(ctx context.Context, tx pgx.Tx, account string, version int64) error {
	_, err := tx.Exec(ctx, insertLeastVersion, pgx.NamedArgs{"account_id": account, "least_version": version, "life": revocationLife})
	if err != nil {
		return fmt.Errorf("write the revocation: %w", err)
	}
	return nil
}
