package dial

import (
	"bytes"
	"context"
	"crypto/sha256"
)

type sharedKey struct{}

// Shared marks the streams that are opened with ctx as those of a feed. All callers open a
// feed at the same endpoint as long as they consider it healthy, so that one instance of the
// service reads the feed's rows from the database for all of them. They need not agree: each
// instance can serve the feed, and a caller whose stream ends or falls silent opens the next
// one elsewhere, without waiting for a lease to expire.
func Shared(ctx context.Context) context.Context {
	return context.WithValue(ctx, sharedKey{}, true)
}

func isShared(ctx context.Context) bool {
	shared, _ := ctx.Value(sharedKey{}).(bool)
	return shared
}

// common returns the endpoint that every caller chooses from these candidates, whatever their
// order; nil when there are none. The choice is the highest hash of the procedure and the
// address (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996): when
// an endpoint comes or goes, only the streams that it gains or loses move, and the feeds of a
// service are spread over its endpoints.
func common(procedure string, candidates []*endpoint) *endpoint {
	var chosen *endpoint
	var highest []byte
	for _, one := range candidates {
		hash := sha256.Sum256([]byte(procedure + "\x00" + one.address))
		if chosen == nil || bytes.Compare(hash[:], highest) > 0 {
			chosen, highest = one, hash[:]
		}
	}
	return chosen
}
