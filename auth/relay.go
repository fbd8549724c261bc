package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/crashpoint"
)

// The relay tells users how accounts are. An outbox row says only that there is
// news of an account; what is told is the account as it then is, with its
// version, so that one row serves any number of changes and the order of
// telling doesn't matter. Who tells takes the row for a while (taken), without
// holding a transaction; if that process dies, another tells again.
const (
	relayPoll  = 500 * time.Millisecond
	relayBatch = 64
	relayCalls = 8
	// taken is for how long a row is left to whoever took it.
	taken = 10 * time.Second
	// firstTry is for how long a new row is left to the call that wrote it,
	// which tells users at once.
	firstTry   = time.Second
	tellLimit  = 300 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// profileSeed is the outbox row's profile.
type profileSeed struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Locale    string `json:"locale"`
}

const upsertOutbox = `
	INSERT INTO auth.account_outbox (account_id, version, deleted, profile, next_attempt_time)
	VALUES (@account_id, @version, @deleted, @profile, now() + @first_try::interval)
	ON CONFLICT (account_id) DO UPDATE
	SET version = excluded.version, deleted = excluded.deleted, attempts = 0,
		next_attempt_time = excluded.next_attempt_time,
		profile = CASE WHEN NOT excluded.deleted THEN account_outbox.profile END`

// enqueue notes that there is news of an account. profile is what a new
// account's profile starts with, else nil.
func enqueue(ctx context.Context, tx execer, account string, version int64, profile []byte) error {
	return writeOutbox(ctx, tx, pgx.NamedArgs{"account_id": account, "version": version, "deleted": false, "profile": profile})
}

// enqueueDeletion notes that an account is no more.
func enqueueDeletion(ctx context.Context, tx pgx.Tx, account string, version int64) error {
	return writeOutbox(ctx, tx, pgx.NamedArgs{"account_id": account, "version": version, "deleted": true, "profile": nil})
}

func writeOutbox(ctx context.Context, tx execer, row pgx.NamedArgs) error {
	row["first_try"] = firstTry
	if _, err := tx.Exec(ctx, upsertOutbox, row); err != nil {
		return fmt.Errorf("write the outbox: %w", err)
	}
	return nil
}

// tell makes the first try to tell users, within the call that changed the
// account, so that what the caller reads next is there. If it fails the relay
// tries on: the caller's change stands either way.
func (s *Service) tell(ctx context.Context, account string) {
	if s.users == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	if err := s.deliver(ctx, account); err != nil {
		s.logger.LogAttrs(ctx, slog.LevelDebug, "users will be told later", slog.String("account_id", account), slog.String("cause", err.Error()))
	}
}

const (
	selectNews = `
		SELECT o.version, o.deleted, o.profile, a.email, a.status, a.create_time
		FROM auth.account_outbox o LEFT JOIN auth.accounts a ON a.id = o.account_id
		WHERE o.account_id = @account_id`
	// News that came meanwhile stay.
	deleteNews = `DELETE FROM auth.account_outbox WHERE account_id = @account_id AND version = @version`
)

// deliver tells users how an account now is and clears its outbox row.
func (s *Service) deliver(ctx context.Context, account string) error {
	var version int64
	var deleted bool
	var profile []byte
	var email, status *string
	var created *time.Time
	err := s.db.QueryRow(ctx, selectNews, pgx.NamedArgs{"account_id": account}).Scan(&version, &deleted, &profile, &email, &status, &created)
	if missing(err) {
		return nil // another has told it
	}
	if err != nil {
		return fmt.Errorf("read the news: %w", err)
	}
	request := &usersv1.ApplyAccountRequest{AccountId: account, Version: version}
	if deleted || email == nil {
		request.State = &usersv1.ApplyAccountRequest_Deleted{Deleted: &usersv1.AccountDeleted{}}
	} else {
		var seed profileSeed
		if len(profile) > 0 {
			if err := json.Unmarshal(profile, &seed); err != nil {
				return fmt.Errorf("decode the profile: %w", err)
			}
		}
		state := &usersv1.AccountState{
			Email: *email, Status: usersv1.ProfileStatus_PROFILE_STATUS_DISABLED, CreateTime: timestamppb.New(*created),
			FirstName: seed.FirstName, LastName: seed.LastName, Locale: seed.Locale,
		}
		if *status == statusActive {
			state.Status = usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE
		}
		request.State = &usersv1.ApplyAccountRequest_Present{Present: state}
	}
	if _, err := s.users.ApplyAccount(ctx, request); err != nil {
		return fmt.Errorf("tell users: %w", err)
	}
	crashpoint.Reach("auth: after users has acknowledged")
	if _, err := s.db.Exec(ctx, deleteNews, pgx.NamedArgs{"account_id": account, "version": version}); err != nil {
		return fmt.Errorf("clear the news: %w", err)
	}
	return nil
}

const (
	takeNews = `
		UPDATE auth.account_outbox SET attempts = attempts + 1, next_attempt_time = now() + @taken::interval
		WHERE account_id IN (
			SELECT account_id FROM auth.account_outbox WHERE next_attempt_time <= now()
			ORDER BY next_attempt_time LIMIT @most FOR UPDATE SKIP LOCKED)
		RETURNING account_id, attempts`
	postponeNews = `
		UPDATE auth.account_outbox SET next_attempt_time = now() + @backoff::interval
		WHERE account_id = @account_id`
)

// relay tells users of what the first tries did not, until ctx ends.
func (s *Service) relay(ctx context.Context) {
	if s.users == nil {
		return
	}
	ticker := time.NewTicker(relayPoll)
	defer ticker.Stop()
	waiting := false
	for {
		most := relayBatch
		if waiting {
			most = 1 // asks whether users is back
		}
		done, err := s.relayOnce(ctx, most)
		if ctx.Err() != nil {
			return
		}
		if away := err != nil; away != waiting {
			waiting = away
			if away {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "the relay waits", slog.String("cause", err.Error()))
			} else {
				s.logger.LogAttrs(ctx, slog.LevelInfo, "the relay goes on")
			}
		}
		if err == nil && done == most {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// relayOnce tells at most so many accounts and returns how many it took. An
// error means that users or Postgres is away.
func (s *Service) relayOnce(ctx context.Context, most int) (int, error) {
	rows, err := s.db.Query(ctx, takeNews, pgx.NamedArgs{"taken": taken, "most": most})
	if err != nil {
		return 0, fmt.Errorf("take news: %w", err)
	}
	type news struct {
		account  string
		attempts int
	}
	batch, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n news, err error) {
		err = row.Scan(&n.account, &n.attempts)
		return n, err
	})
	if err != nil {
		return 0, fmt.Errorf("take news: %w", err)
	}
	// Not errgroup.WithContext: one account's failure is no other's.
	var group errgroup.Group
	group.SetLimit(relayCalls)
	for _, n := range batch {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, taken/2)
			defer cancel()
			err := s.deliver(ctx, n.account)
			if err == nil {
				return nil
			}
			away := connect.CodeOf(err) == connect.CodeUnavailable || connect.CodeOf(err) == connect.CodeDeadlineExceeded
			backoff := min(maxBackoff, relayPoll<<min(n.attempts, 8))
			if away {
				backoff = relayPoll // the next poll asks again, whatever the count
			} else {
				s.logger.LogAttrs(ctx, slog.LevelError, "relay", slog.String("account_id", n.account), slog.Int("attempts", n.attempts), slog.String("cause", err.Error()))
			}
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if _, failure := s.db.Exec(ctx, postponeNews, pgx.NamedArgs{"account_id": n.account, "backoff": backoff}); failure != nil {
				return fmt.Errorf("postpone news: %w", failure)
			}
			if away {
				return err
			}
			return nil
		})
	}
	return len(batch), group.Wait()
}
