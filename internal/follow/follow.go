// Package follow keeps a server stream of updates open: it opens it again with a
// backoff when it ends or falls silent, continues from the last cursor, and logs
// once when the stream is lost and once when it has recovered.
package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"gatehouse/internal/outage"
)

const (
	// Silence is how long a stream may send nothing before it is opened again. The
	// services send four messages a second.
	Silence = 2 * time.Second
	// Backoff is the pause before a stream is opened again. It doubles up to
	// maxBackoff, and starts again once a message has arrived.
	Backoff    = 50 * time.Millisecond
	maxBackoff = time.Second
)

var errSilent = errors.New("no message arrived in time")

// Message is an update.
type Message interface {
	// GetComplete reports whether the update holds everything, instead of the changes
	// since the previous one.
	GetComplete() bool
	// GetCursor returns the position from which another stream can resume.
	GetCursor() string
}

// Stream is an open stream of updates.
type Stream[M Message] interface {
	Receive() (M, error)
	Close() error
}

// Follower follows one stream.
type Follower[M Message] struct {
	// Name says in the log what is followed, such as "revocations of auth".
	Name string
	// Open opens the stream from a cursor, which is empty at first.
	Open func(ctx context.Context, cursor string) (Stream[M], error)
	// Receive receives one update; nil for Stream.Receive. It calls alive for each
	// message that the update consists of.
	Receive func(stream Stream[M], alive func()) (M, error)
	// Apply applies an update of a stream that was opened at a moment, and reports
	// whether it is recent: a stream whose updates arrive late counts as silent. first
	// says that it is the stream's first. An error ends the stream.
	Apply  func(ctx context.Context, update M, first bool, opened time.Time) (recent bool, err error)
	Logger *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time

	cursor string // of the last update; only Run's goroutine uses it
}

// Run follows the stream until ctx ends.
func (f *Follower[M]) Run(ctx context.Context) {
	if f.Now == nil {
		f.Now = time.Now
	}
	failures := outage.Log{Logger: f.Logger, Failed: "feed: stream lost, retrying", Recovered: "feed: stream recovered", Attrs: []slog.Attr{slog.String("feed", f.Name)}}
	pause := Backoff
	for {
		received, err := f.follow(ctx, func() { failures.Note(ctx, nil) })
		if ctx.Err() != nil {
			return
		}
		if received {
			pause = Backoff
		}
		failures.Note(ctx, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxBackoff)
	}
}

// follow opens the stream and applies its updates until it ends. It reports whether
// an update was applied, and calls recovered after the first.
func (f *Follower[M]) follow(ctx context.Context, recovered func()) (received bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(Silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	opened := f.Now()
	stream, err := f.Open(ctx, f.cursor)
	if err != nil {
		return false, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = stream.Close() }()
	for {
		update, err := f.receive(stream, func() { watchdog.Reset(Silence) })
		switch {
		case errors.Is(err, io.EOF):
			return received, errors.New("the service ended the stream")
		case errors.Is(context.Cause(ctx), errSilent):
			return received, errSilent
		case err != nil:
			return received, fmt.Errorf("receive: %w", err)
		case !received && !update.GetComplete() && f.cursor == "":
			return false, errors.New("the first update is not complete")
		}
		recent, err := f.Apply(ctx, update, !received, opened)
		if err != nil {
			return received, err
		}
		if !received {
			received = true
			recovered()
		}
		f.cursor = update.GetCursor()
		if recent {
			watchdog.Reset(Silence)
		}
	}
}

func (f *Follower[M]) receive(stream Stream[M], alive func()) (M, error) {
	if f.Receive != nil {
		return f.Receive(stream, alive)
	}
	return stream.Receive()
}
