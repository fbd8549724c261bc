package bff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
)

// kinds are the tags that services tell changes of, and which service does.
var kinds = map[string]string{"account": sourceAuth, "sessions": sourceAuth, "profile": sourceUsers}

const (
	sourceAuth  = "auth"
	sourceUsers = "users"
)

// sourceOf returns the service that tells changes of a kind of tag; "" for none.
func sourceOf(kind string) string { return kinds[kind] }

// changeSilence is how old what a feed has told may be: with more, somebody
// could have written something longer ago than what is kept may be old.
const changeSilence = time.Second

// changeFeed follows what a service tells of changes, and purges.
type changeFeed struct {
	source string
	open   func(ctx context.Context, cursor string) (*changeStream, error)
	purges *purges
	logger *slog.Logger
	now    func() time.Time
	begun  time.Time
	cursor string // of the latest message; only run knows it
	// asOf is how long after begun the service asked its database what is known
	// here; zero before anything is.
	asOf atomic.Int64
}

// changeStream is a stream of either service.
type changeStream struct {
	receive func() (changes, error)
	close   func() error
}

// changes is a message of either service.
type changes interface {
	GetComplete() bool
	GetTags() []string
	GetCursor() string
	GetAskedAfter() *durationpb.Duration
}

func authChanges(client authv1.ChangeServiceClient, logger *slog.Logger) *changeFeed {
	return newChangeFeed(sourceAuth, logger, func(ctx context.Context, cursor string) (*changeStream, error) {
		stream, err := client.WatchChanges(ctx, &authv1.WatchChangesRequest{Cursor: cursor})
		if err != nil {
			return nil, err
		}
		return &changeStream{receive: func() (changes, error) { return stream.Receive() }, close: stream.Close}, nil
	})
}

func usersChanges(client usersv1.ChangeServiceClient, logger *slog.Logger) *changeFeed {
	return newChangeFeed(sourceUsers, logger, func(ctx context.Context, cursor string) (*changeStream, error) {
		stream, err := client.WatchChanges(ctx, &usersv1.WatchChangesRequest{Cursor: cursor})
		if err != nil {
			return nil, err
		}
		return &changeStream{receive: func() (changes, error) { return stream.Receive() }, close: stream.Close}, nil
	})
}

func newChangeFeed(source string, logger *slog.Logger, open func(context.Context, string) (*changeStream, error)) *changeFeed {
	// So that nothing is known as of the beginning.
	begun := time.Now().Add(-time.Minute)
	return &changeFeed{source: source, open: open, purges: &purges{}, logger: logger, now: time.Now, begun: begun}
}

// isCurrent reports whether all that was committed until a second ago is known.
func (f *changeFeed) isCurrent(now time.Time) bool {
	asOf := time.Duration(f.asOf.Load())
	return asOf > 0 && now.Sub(f.begun)-asOf <= changeSilence
}

// run follows the stream until ctx ends.
func (f *changeFeed) run(ctx context.Context) {
	wait, failing := reopenFirst, false
	for {
		heard, err := f.follow(ctx, func() {
			if failing {
				f.logger.LogAttrs(ctx, slog.LevelInfo, "the stream of changes speaks again: answers are kept", slog.String("from", f.source))
			}
		})
		if ctx.Err() != nil {
			return
		}
		if heard {
			wait, failing = reopenFirst, false
		}
		if !failing {
			failing = true
			f.logger.LogAttrs(ctx, slog.LevelWarn, "the stream of changes has ended: no answers are kept until it speaks again",
				slog.String("from", f.source), slog.String("cause", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, reopenLast)
	}
}

// follow opens the stream and takes over what it says until it ends, and reports
// whether it said anything. It calls speaks when it does for the first time.
func (f *changeFeed) follow(ctx context.Context, speaks func()) (heard bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	watchdog := time.AfterFunc(streamPatience, func() { end(errSilent) })
	defer watchdog.Stop()
	opened := f.now()
	stream, err := f.open(ctx, f.cursor)
	if err != nil {
		return false, fmt.Errorf("open it: %w", err)
	}
	defer func() { _ = stream.close() }()
	for {
		message, err := stream.receive()
		switch {
		case errors.Is(err, io.EOF):
			return heard, errors.New("the service stops")
		case context.Cause(ctx) == errSilent:
			return heard, errSilent
		case err != nil:
			return heard, fmt.Errorf("read it: %w", err)
		case !heard && !message.GetComplete() && f.cursor == "":
			return false, errors.New("it begins in the middle")
		}
		if !heard {
			heard = true
			speaks()
		}
		// A stream whose messages come late is as good as none.
		if f.take(ctx, message, opened) {
			watchdog.Reset(streamPatience)
		}
	}
}

// take takes over what a message of a stream says, and reports whether it is
// news from less than a second ago.
//
// The service says how long after its stream began it asked its database, and
// its stream can't have begun before it was asked for: so no clock has to agree
// with another, and a message that was long on its way doesn't pass for a new one.
func (f *changeFeed) take(ctx context.Context, message changes, opened time.Time) bool {
	if message.GetComplete() {
		f.purges.purgeAll()
	}
	if tags := message.GetTags(); len(tags) > 0 {
		f.purges.purge(tags...)
		countPurges(ctx, len(tags), purgedByFeed)
	}
	f.cursor = message.GetCursor()
	now := f.now()
	asked := opened.Add(message.GetAskedAfter().AsDuration())
	if asked.After(now) {
		asked = now
	}
	// What was known of a later moment on another stream stays known.
	if asOf := int64(asked.Sub(f.begun)); asOf > f.asOf.Load() {
		f.asOf.Store(asOf)
	}
	return f.isCurrent(now)
}
