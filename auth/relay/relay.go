// Package relay delivers changes of accounts to users, from an outbox.
//
// An outbox row only says that an account has changed. What is delivered is the
// account's current state with its version, so that one row serves any number of
// changes and the order of deliveries doesn't matter. A delivery leases the row
// for a while without holding a transaction; if the process dies, another one
// delivers again.
package relay

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
	"gatehouse/internal/database"
	"gatehouse/internal/outage"
)

const (
	relayPoll  = 500 * time.Millisecond
	relayBatch = 64
	relayCalls = 8
	// lease is how long a row belongs to the replica that leased it.
	lease = 10 * time.Second
	// firstTry is how long a new row belongs to the call that wrote it, which
	// delivers at once.
	firstTry   = time.Second
	firstLimit = 300 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// Profile is the profile that a new account starts with.
type Profile struct {
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

// Enqueue writes that an account has changed. profile is a new account's encoded
// Profile, otherwise nil.
func Enqueue(ctx context.Context, tx database.Execer, account string, version int64, profile []byte) error {
	return writeOutbox(ctx, tx, pgx.NamedArgs{"account_id": account, "version": version, "deleted": false, "profile": profile})
}

// EnqueueDeletion writes that an account was deleted.
func EnqueueDeletion(ctx context.Context, tx pgx.Tx, account string, version int64) error {
	return writeOutbox(ctx, tx, pgx.NamedArgs{"account_id": account, "version": version, "deleted": true, "profile": nil})
}

func writeOutbox(ctx context.Context, tx database.Execer, row pgx.NamedArgs) error {
	row["first_try"] = firstTry
	if _, err := tx.Exec(ctx, upsertOutbox, row); err != nil {
		return fmt.Errorf("write the outbox: %w", err)
	}
	return nil
}

// Relay delivers to users.
type Relay struct {
	db     *database.Pool
	users  usersv1.RelayServiceClient
	logger *slog.Logger
}

// New returns a relay. Without users it leaves the rows in the outbox, for
// another process to deliver. step is called between the steps of a delivery.
func New(db *database.Pool, users usersv1.RelayServiceClient, logger *slog.Logger) *Relay {
	return &Relay{db: db, users: users, logger: logger}
}

// Deliver makes the first attempt, within the call that changed the account, so
// that the caller reads the change next. If it fails, Run retries: the change is
// committed either way.
func (r *Relay) Deliver(ctx context.Context, account string) {
	if r.users == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstLimit)
	defer cancel()
	if err := r.deliver(ctx, account); err != nil {
		r.logger.LogAttrs(ctx, slog.LevelDebug, "relay: first delivery failed, retrying", slog.String("account_id", account), slog.String("cause", err.Error()))
	}
}

const (
	selectChange = `
		SELECT o.version, o.deleted, o.profile, a.email, a.status, a.create_time
		FROM auth.account_outbox o LEFT JOIN auth.accounts a ON a.id = o.account_id
		WHERE o.account_id = @account_id`
	// A change that was written meanwhile stays.
	deleteChange = `DELETE FROM auth.account_outbox WHERE account_id = @account_id AND version = @version`
)

// deliver sends users the account's current state and deletes its outbox row.
func (r *Relay) deliver(ctx context.Context, account string) error {
	var version int64
	var deleted bool
	var profile []byte
	var email, status *string
	var created *time.Time
	err := r.db.QueryRow(ctx, selectChange, pgx.NamedArgs{"account_id": account}).Scan(&version, &deleted, &profile, &email, &status, &created)
	if database.Missing(err) {
		return nil // delivered by another
	}
	if err != nil {
		return fmt.Errorf("read the change: %w", err)
	}
	request := &usersv1.ApplyAccountRequest{AccountId: account, Version: version}
	if deleted || email == nil {
		request.State = &usersv1.ApplyAccountRequest_Deleted{Deleted: &usersv1.AccountDeleted{}}
	} else {
		var seed Profile
		if len(profile) > 0 {
			if err := json.Unmarshal(profile, &seed); err != nil {
				return fmt.Errorf("decode the profile: %w", err)
			}
		}
		state := &usersv1.AccountState{
			Email: *email, Status: usersv1.ProfileStatus_PROFILE_STATUS_DISABLED, CreateTime: timestamppb.New(*created),
			FirstName: seed.FirstName, LastName: seed.LastName, Locale: seed.Locale,
		}
		if *status == "active" {
			state.Status = usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE
		}
		request.State = &usersv1.ApplyAccountRequest_Present{Present: state}
	}
	if _, err := r.users.ApplyAccount(ctx, request); err != nil {
		return fmt.Errorf("deliver to users: %w", err)
	}
	crashpoint.Reach("auth: after users has acknowledged")
	if _, err := r.db.Exec(ctx, deleteChange, pgx.NamedArgs{"account_id": account, "version": version}); err != nil {
		return fmt.Errorf("delete the outbox row: %w", err)
	}
	return nil
}

const (
	leaseChanges = `
		UPDATE auth.account_outbox SET attempts = attempts + 1, next_attempt_time = now() + @lease::interval
		WHERE account_id IN (
			SELECT account_id FROM auth.account_outbox WHERE next_attempt_time <= now()
			ORDER BY next_attempt_time LIMIT @most FOR UPDATE SKIP LOCKED)
		RETURNING account_id, attempts`
	postponeChange = `
		UPDATE auth.account_outbox SET next_attempt_time = now() + @backoff::interval
		WHERE account_id = @account_id`
)

// Run delivers what first attempts did not, until ctx ends.
func (r *Relay) Run(ctx context.Context) {
	if r.users == nil {
		return
	}
	ticker := time.NewTicker(relayPoll)
	defer ticker.Stop()
	failures := outage.Log{Logger: r.logger, Failed: "relay: delivery failed, retrying", Recovered: "relay: recovered"}
	for {
		most := relayBatch
		if failures.Failing() {
			most = 1 // probes whether users is reachable again
		}
		done, err := r.deliverBatch(ctx, most)
		if ctx.Err() != nil {
			return
		}
		failures.Note(ctx, err)
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

// deliverBatch delivers at most so many accounts and returns how many it leased.
// An error means that users or Postgres is unreachable.
func (r *Relay) deliverBatch(ctx context.Context, most int) (int, error) {
	rows, err := r.db.Query(ctx, leaseChanges, pgx.NamedArgs{"lease": lease, "most": most})
	if err != nil {
		return 0, fmt.Errorf("lease changes: %w", err)
	}
	type change struct {
		account  string
		attempts int
	}
	batch, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n change, err error) {
		err = row.Scan(&n.account, &n.attempts)
		return n, err
	})
	if err != nil {
		return 0, fmt.Errorf("lease changes: %w", err)
	}
	// Not errgroup.WithContext: one account's failure must not cancel the others.
	var group errgroup.Group
	group.SetLimit(relayCalls)
	for _, n := range batch {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, lease/2)
			defer cancel()
			err := r.deliver(ctx, n.account)
			if err == nil {
				return nil
			}
			unreachable := connect.CodeOf(err) == connect.CodeUnavailable || connect.CodeOf(err) == connect.CodeDeadlineExceeded
			backoff := min(maxBackoff, relayPoll<<min(n.attempts, 8))
			if unreachable {
				backoff = relayPoll // the next poll retries, whatever the count
			} else {
				r.logger.LogAttrs(ctx, slog.LevelError, "relay: delivery refused, retrying", slog.String("account_id", n.account), slog.Int("attempts", n.attempts), slog.String("cause", err.Error()))
			}
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if _, failure := r.db.Exec(ctx, postponeChange, pgx.NamedArgs{"account_id": n.account, "backoff": backoff}); failure != nil {
				return fmt.Errorf("postpone the change: %w", failure)
			}
			if unreachable {
				return err
			}
			return nil
		})
	}
	return len(batch), group.Wait()
}
