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
)

// WatchMe calls changed whenever the signed-in person's own data may have changed, and at
// the beginning, until ctx ends or the session does. It opens the stream again when it
// ends, resumes without a gap, and refreshes the tokens when that is due. It returns the
// error of changed or of ctx, or unauthenticated when the session has ended.
func (c *Client) WatchMe(ctx context.Context, changed func(*bffv1.WatchMeResponse) error) error {
	cursor, failures := "", 0
	for {
		refresh, err := c.watchOnce(ctx, &cursor, &failures, changed)
		if stopped, ok := errors.AsType[stopWatching](err); ok {
			return stopped.error
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason := Reason(err)
		switch {
		case connect.CodeOf(err) == connect.CodeUnauthenticated && err != nil && reason != "TOKEN_EXPIRED" && reason != "TOKEN_STALE":
			return err
		case refresh || reason == "TOKEN_EXPIRED" || reason == "TOKEN_STALE":
			if failure := c.Refresh(ctx); connect.CodeOf(failure) == connect.CodeUnauthenticated && failure != nil {
				return failure
			}
		}
		if refresh {
			continue
		}
		if !waitToWatch(ctx, err, failures) {
			return ctx.Err()
		}
		failures++
	}
}

// stopWatching is an error of the function that WatchMe calls.
type stopWatching struct{ error }

// watchOnce reads one stream, and reports whether it asked for a refresh.
func (c *Client) watchOnce(ctx context.Context, cursor *string, failures *int, changed func(*bffv1.WatchMeResponse) error) (refresh bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Account.WatchMe(ctx, &bffv1.WatchMeRequest{Cursor: *cursor})
	if err != nil {
		return false, err
	}
	defer func() { _ = stream.Close() }()
	for {
		event, err := stream.Receive()
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
		if event.GetComplete() || event.GetChanged() != nil {
			if err := changed(event); err != nil {
				return false, stopWatching{err}
			}
		}
		*cursor = event.GetCursor()
		if event.GetRefreshDue() != nil {
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
