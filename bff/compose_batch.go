package bff

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"
)

// maxBatch is how many ids one call asks for.
const maxBatch = 100

// requiredBatch begins a required part of what another one's value names by id.
// Each id is asked for once, at most 100 in a call, and as many calls at the
// same time as the composition has left. The part's value lacks ids that fetch
// didn't find. It fails as a whole: some of it would be taken for all of it.
func requiredBatch[N any, K comparable, V any](c *composition, name string, limit time.Duration,
	need source[N], ids func(N) []K, fetch func(context.Context, []K) (map[K]V, error),
) *part[map[K]V] {
	return begin(c, true, name, need, func(ctx context.Context, given N) (map[K]V, error) {
		return fetchPart(ctx, limit, func(ctx context.Context) (map[K]V, error) { return batched(ctx, c, ids(given), fetch) })
	})
}

func batched[K comparable, V any](ctx context.Context, c *composition, ids []K, fetch func(context.Context, []K) (map[K]V, error)) (map[K]V, error) {
	var mu sync.Mutex
	found := make(map[K]V, len(ids))
	chunks := slices.Collect(slices.Chunk(distinct(ids), maxBatch))
	failures := make([]error, len(chunks))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxCalls)
	for i, chunk := range chunks {
		group.Go(func() error {
			if failures[i] = c.enter(ctx); failures[i] != nil {
				return failures[i]
			}
			defer c.leave()
			some, err := contained(ctx, func(ctx context.Context) (map[K]V, error) { return fetch(ctx, chunk) })
			mu.Lock()
			maps.Copy(found, some)
			mu.Unlock()
			failures[i] = err
			return err
		})
	}
	if failure := group.Wait(); failure != nil {
		return nil, firstOf(failures, failure)
	}
	return found, nil
}

// firstOf returns the first failure that isn't but a call's end for another's
// failure.
func firstOf(failures []error, otherwise error) error {
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) && connect.CodeOf(err) != connect.CodeCanceled {
			return err
		}
	}
	return otherwise
}

// distinct returns each id once, in the order in which they come first.
func distinct[K comparable](ids []K) []K {
	seen := make(map[K]bool, len(ids))
	once := make([]K, 0, len(ids))
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			once = append(once, id)
		}
	}
	return once
}
