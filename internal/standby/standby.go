// Package standby lets a service answer reads from a standby of its database.
//
// A service creates one Reads and lists there, in a comment, the methods that use it: those
// whose answers the gateway may cache. Every other read, every write and every transaction
// uses the primary.
package standby

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/database"
	"gatehouse/internal/feed"
	"gatehouse/internal/readposition"
)

// Reads are the reads of a service that a standby may answer.
type Reads struct {
	reader  *database.Reader
	standby *database.Standby
}

// New returns the reads of a service, and lets its change feed tell the positions that they
// require. Without a standby, which may be nil, the feed tells none, and the primary answers.
func New(db *database.Pool, standby *database.Standby, changes *feed.Tags) Reads {
	if standby != nil {
		changes.TellPositions(database.SelectPosition)
	}
	return Reads{database.NewReader(db, standby), standby}
}

// Of returns the read of the call that ctx belongs to: at the position that the gateway
// sent, or on the primary if it sent none.
func (r Reads) Of(ctx context.Context) database.Read { return r.reader.At(readposition.Of(ctx)) }

// Measure registers the metrics of the standby, if there is one.
func (r Reads) Measure(meter metric.Meter, service string) error {
	return database.ObserveStandby(meter, service, r.standby)
}
