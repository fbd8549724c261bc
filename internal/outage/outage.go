// Package outage logs once when something begins to fail, and once when it has
// recovered, however often it is tried in between.
package outage

import (
	"context"
	"log/slog"
)

// Log logs the outages of one thing. Only one goroutine may use it.
type Log struct {
	Logger *slog.Logger
	// Failed and Recovered are the messages, each a subject and an event: "relay:
	// delivery failed, retrying".
	Failed, Recovered string
	// Attrs are added to both messages.
	Attrs []slog.Attr

	failing bool
}

// Note takes the result of a try, and logs it if it differs from that of the last one.
func (l *Log) Note(ctx context.Context, err error) {
	switch {
	case err != nil == l.failing:
	case err != nil:
		l.Logger.LogAttrs(ctx, slog.LevelWarn, l.Failed, append(l.Attrs[:len(l.Attrs):len(l.Attrs)], slog.String("cause", err.Error()))...)
	default:
		l.Logger.LogAttrs(ctx, slog.LevelInfo, l.Recovered, l.Attrs...)
	}
	l.failing = err != nil
}

// Failing reports whether the last try failed.
func (l *Log) Failing() bool { return l.failing }
