// Package relay delivers accounts to users: each new account at once, so that its
// owner finds the profile, and every change to a users service that does not read the
// account log by itself, because it is older.
//
// It reads the same log as other services do and confirms in the name of users. One
// copy of auth at a time delivers, under a lease, without holding a transaction; if
// the process dies, another one delivers again.
package relay

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/auth/accountlog"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/outage"
)

const (
	poll  = 500 * time.Millisecond
	batch = 64
	calls = 8
	// lease is how long the delivery of a batch may take.
	lease      = 10 * time.Second
	callLimit  = 5 * time.Second
	firstLimit = 300 * time.Millisecond
)

// Relay delivers to users.
type Relay struct {
	log    *accountlog.Log
	users  usersv1.RelayServiceClient
	logger *slog.Logger
}

// New returns a relay. Without users it delivers nothing.
func New(log *accountlog.Log, users usersv1.RelayServiceClient, logger *slog.Logger) *Relay {
	return &Relay{log: log, users: users, logger: logger}
}

// Deliver delivers a new account within the call that created it, so that the caller
// reads the profile next. If it fails, users reads the account from the log.
func (r *Relay) Deliver(ctx context.Context, account string) {
	defer r.log.Soon()
	if r.users == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstLimit)
	defer cancel()
	event, err := r.log.One(ctx, account)
	if err == nil && event != nil {
		err = r.deliver(ctx, event)
	}
	if err != nil {
		r.logger.LogAttrs(ctx, slog.LevelDebug, "relay: first delivery failed, left to the account log", slog.String("account_id", account), slog.String("cause", err.Error()))
	}
}

func (r *Relay) deliver(ctx context.Context, event *authv1.AccountEvent) error {
	request := &usersv1.ApplyAccountRequest{AccountId: event.GetAccountId(), Version: event.GetVersion()}
	if event.GetDeleted() {
		request.State = &usersv1.ApplyAccountRequest_Deleted{Deleted: &usersv1.AccountDeleted{}}
	} else {
		profile := event.GetProfile()
		state := &usersv1.AccountState{
			Email: event.GetEmail(), Status: usersv1.ProfileStatus_PROFILE_STATUS_DISABLED, CreateTime: event.GetCreateTime(),
			FirstName: profile.GetFirstName(), LastName: profile.GetLastName(), Locale: profile.GetLocale(),
		}
		if event.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
			state.Status = usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE
		}
		request.State = &usersv1.ApplyAccountRequest_Present{Present: state}
	}
	if _, err := r.users.ApplyAccount(ctx, request); err != nil {
		return fmt.Errorf("deliver to users: %w", err)
	}
	crashpoint.Reach("auth: after users has acknowledged")
	return nil
}

// Run delivers every change while users does not read by itself, until ctx ends.
func (r *Relay) Run(ctx context.Context) {
	if r.users == nil {
		return
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	failures := outage.Log{Logger: r.logger, Failed: "relay: delivery failed, retrying", Recovered: "relay: recovered"}
	for {
		most := batch
		if failures.Failing() {
			most = 1 // probes whether users is reachable again
		}
		more, err := r.deliverBatch(ctx, most)
		if ctx.Err() != nil {
			return
		}
		failures.Note(ctx, err)
		if err == nil && more {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// deliverBatch delivers up to most changes, and reports whether there are more.
func (r *Relay) deliverBatch(ctx context.Context, most int) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lease)
	defer cancel()
	from, ok, err := r.log.Lease(ctx, lease)
	if err != nil || !ok {
		return false, err
	}
	reached := from
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if failure := r.log.Unlease(ctx, reached); err == nil {
			err = failure
		}
	}()
	found, err := r.log.Read(ctx, from, accountlog.Reader{Service: accountlog.Users}, most)
	if err != nil {
		return false, err
	}
	// Not errgroup.WithContext: one account's failure must not cancel the others.
	var group errgroup.Group
	group.SetLimit(calls)
	for _, event := range found.Events {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			return r.deliver(ctx, event)
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	reached = found.Next
	return found.More, nil
}
