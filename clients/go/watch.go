package gatehouse

import (
	"context"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"time"

	"connectrpc.com/connect/v2"

	bffv1 "gatehouse.example/client/gen/bff/v1"
)

const (
	firstWatchDelay = 250 * time.Millisecond
	lastWatchDelay  = 15 * time.Second
	// longestSilence is how long a stream may send nothing until its connection counts as
	// lost. The gateway sends an event every 15 s.
	longestSilence = 30 * time.Second
)

// WatchMe calls changed whenever the signed-in person's own data may have changed, and at
// the beginning, until ctx ends or the session does. It opens the stream again when it
// ends or sends nothing for 30 s, resumes without a gap, and refreshes the tokens when that
// is due. It returns the error of changed or of ctx, or the gateway's refusal:
// unauthenticated when the session has ended, permission_denied when the caller may not
// watch, failed_precondition SECOND_FACTOR_REQUIRED when the session may not without a
// second factor. A refusal by a proxy, which has no reason, does not end it.
func (c *Client) WatchMe(ctx context.Context, changed func(*bffv1.WatchMeResponse) error) error {
	return watching[*bffv1.WatchMeResponse]{
		refresh: c.Refresh, changed: changed,
		open: func(ctx context.Context, cursor string) (stream[*bffv1.WatchMeResponse], error) {
			return c.Account.WatchMe(ctx, &bffv1.WatchMeRequest{Cursor: cursor})
		},
		names: func(event *bffv1.WatchMeResponse) bool { return event.GetChanged() != nil },
	}.run(ctx)
}

// WatchUsers is WatchMe for changes of all users. It returns permission_denied if its
// caller is not, or no longer, an administrator.
func (c *Client) WatchUsers(ctx context.Context, changed func(*bffv1.WatchUsersResponse) error) error {
	return watching[*bffv1.WatchUsersResponse]{
		refresh: c.Refresh, changed: changed,
		open: func(ctx context.Context, cursor string) (stream[*bffv1.WatchUsersResponse], error) {
			return c.Users.WatchUsers(ctx, &bffv1.WatchUsersRequest{Cursor: cursor})
		},
		names: func(event *bffv1.WatchUsersResponse) bool { return event.GetChanged() != nil },
	}.run(ctx)
}

// event is what the streams of changes have in common.
type event interface {
	GetEnded() *bffv1.Ended
	GetRefreshDue() *bffv1.RefreshDue
	GetCursor() string
	GetComplete() bool
}

type stream[E event] interface {
	Receive() (E, error)
	Close() error
}

// watching follows the changes that a method streams.
type watching[E event] struct {
	refresh func(context.Context) error
	open    func(ctx context.Context, cursor string) (stream[E], error)
	// names reports whether an event names changes; changed receives it then.
	names   func(E) bool
	changed func(E) error
}

func (w watching[E]) run(ctx context.Context) error {
	cursor, failures := "", 0
	for {
		renewed, err := w.once(ctx, &cursor, &failures)
		if stopped, ok := errors.AsType[stopWatching](err); ok {
			return stopped.error
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if renewed {
			continue
		}
		if isRefused(err) {
			return err
		}
		if fixedByRefresh[Reason(err)] {
			if failure := w.refresh(ctx); isRefused(failure) {
				return failure
			}
		}
		if !waitToWatch(ctx, err, failures) {
			return ctx.Err()
		}
		failures++
	}
}

// isRefused reports whether the gateway refuses the caller, so that it would refuse another
// stream too. An error without a reason is a proxy's.
func isRefused(err error) bool {
	reason := Reason(err)
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		return reason == sessionEnded || reason != "" && !fixedByRefresh[reason]
	case connect.CodePermissionDenied:
		return reason != ""
	case connect.CodeFailedPrecondition:
		return reason == secondFactorRequired
	}
	return false
}

// stopWatching is an error of the function that receives the changes.
type stopWatching struct{ error }

// once reads one stream, and reports whether another one may follow at once, with new
// tokens. A stream whose tokens cannot be replaced yet is read until it ends.
func (w watching[E]) once(ctx context.Context, cursor *string, failures *int) (renewed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(longestSilence, cancel)
	defer silence.Stop()
	events, err := w.open(ctx, *cursor)
	if err != nil {
		return false, err
	}
	defer func() { _ = events.Close() }()
	for {
		silence.Reset(longestSilence)
		event, err := events.Receive()
		silence.Stop() // changed may take as long as it wants
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return false, err
		}
		if event.GetEnded() != nil {
			continue // the error that follows has more
		}
		*failures = 0
		if event.GetComplete() || w.names(event) {
			if err := w.changed(event); err != nil {
				return false, stopWatching{err}
			}
		}
		*cursor = event.GetCursor()
		if event.GetRefreshDue() != nil && w.refresh(ctx) == nil {
			return true, nil
		}
	}
}

// waitToWatch waits until another stream may be opened, and reports whether ctx lasts.
func waitToWatch(ctx context.Context, err error, failures int) bool {
	delay, ok := RetryDelay(err)
	if !ok {
		mean := min(firstWatchDelay<<min(failures, 10), lastWatchDelay)
		delay = mathrand.N(2 * mean)
	}
	select {
	case <-time.After(delay):
		return true
	case <-ctx.Done():
		return false
	}
}
