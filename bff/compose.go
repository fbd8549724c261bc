package bff

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/rpc"
)

// Time limits of parts: what reads waits less long than what writes, which may
// have a password to hash.
const (
	readLimit  = 2 * time.Second
	writeLimit = 5 * time.Second
)

// composition puts one answer together from parts that are fetched at the same
// time. A required part's failure fails the answer and cancels the rest. An
// optional part's failure cancels nothing: it becomes an entry in errors.
//
//	c := compose(ctx)
//	account := required(c, readLimit, func(ctx context.Context) (*Account, error) { … })
//	sessions := optional(c, "sessions", readLimit, func(ctx context.Context) ([]*Session, error) { … })
//	if err := c.wait(); err != nil {
//		return nil, err
//	}
//	use(*account, *sessions, c.errors())
type composition struct {
	ctx   context.Context // the parts'
	group *errgroup.Group
	// failures has a place for each optional part, in the order in which they
	// were named, so that the answer doesn't depend on who came first.
	failures []*bffv1.PartError
	mu       sync.Mutex
}

func compose(ctx context.Context) *composition {
	group, ctx := errgroup.WithContext(ctx)
	return &composition{ctx: ctx, group: group}
}

// required begins to fetch a part without which there is no answer. The value
// may be read after wait.
func required[T any](c *composition, limit time.Duration, fetch func(context.Context) (T, error)) *T {
	value := new(T)
	c.group.Go(func() error {
		found, err := fetchPart(c.ctx, limit, fetch)
		if err != nil {
			return err
		}
		*value = found
		return nil
	})
	return value
}

// optional begins to fetch a part that the answer can do without. After wait,
// its value is set, or errors tells why it isn't.
func optional[T any](c *composition, part string, limit time.Duration, fetch func(context.Context) (T, error)) *T {
	value := new(T)
	c.mu.Lock()
	place := len(c.failures)
	c.failures = append(c.failures, nil)
	c.mu.Unlock()
	c.group.Go(func() error {
		found, err := fetchPart(c.ctx, limit, fetch)
		if err != nil {
			c.fail(place, part, err)
			return nil
		}
		*value = found
		return nil
	})
	return value
}

func fetchPart[T any](ctx context.Context, limit time.Duration, fetch func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	value, err := fetch(limited)
	return value, fromBackend(ctx, err)
}

func (c *composition) fail(place int, part string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	code := connect.CodeOf(err)
	c.failures[place] = &bffv1.PartError{
		Part: part, Code: code.String(), Reason: rpc.Reason(err),
		Retryable: code == connect.CodeUnavailable || code == connect.CodeResourceExhausted,
	}
}

// wait returns when every part has come or failed, with the failure of the
// first required one.
func (c *composition) wait() error { return c.group.Wait() }

// errors returns what is missing of the optional parts. Call it after wait.
func (c *composition) errors() []*bffv1.PartError {
	var missing []*bffv1.PartError
	for _, failure := range c.failures {
		if failure != nil {
			missing = append(missing, failure)
		}
	}
	return missing
}
