package bff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
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
//	c := compose(ctx, s.logger)
//	account := required(c, readLimit, func(ctx context.Context) (*Account, error) { … })
//	sessions := optional(c, "sessions", readLimit, func(ctx context.Context) ([]*Session, error) { … })
//	if err := c.wait(); err != nil {
//		return nil, err
//	}
//	use(*account, *sessions, c.errors())
type composition struct {
	ctx    context.Context // the parts'
	group  *errgroup.Group
	logger *slog.Logger
	// failures has a place for each optional part, in the order in which they
	// were named, so that the answer doesn't depend on who came first.
	failures []*bffv1.PartError
	mu       sync.Mutex
}

func compose(ctx context.Context, logger *slog.Logger) *composition {
	group, ctx := errgroup.WithContext(ctx)
	return &composition{ctx: ctx, group: group, logger: logger}
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

// fetchPart fetches one part within its limit. Its errors are for our caller. A
// panic is one too: on a goroutine of errgroup's it would end the process.
func fetchPart[T any](ctx context.Context, limit time.Duration, fetch func(context.Context) (T, error)) (value T, err error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if panicked := recover(); panicked != nil {
			err = rpc.ErrInternal.WithCause(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	value, err = fetch(limited)
	return value, fromBackend(ctx, err)
}

func (c *composition) fail(place int, part string, err error) {
	code, reason := connect.CodeOf(err), rpc.Reason(err)
	retryable := code == connect.CodeUnavailable || code == connect.CodeResourceExhausted || code == connect.CodeDeadlineExceeded
	c.mu.Lock()
	c.failures[place] = &bffv1.PartError{Part: part, Code: code.String(), Reason: reason, Retryable: retryable}
	c.mu.Unlock()
	if c.ctx.Err() != nil {
		return // there will be no answer that it is missing from
	}
	countMissing(c.ctx, part, code)
	attrs := []slog.Attr{
		slog.String("part", part), slog.String("code", code.String()), slog.String("reason", reason),
		slog.String("request_id", rpc.CallFrom(c.ctx).RequestID),
	}
	if cause := errors.Unwrap(err); cause != nil {
		attrs = append(attrs, slog.String("cause", cause.Error()))
	}
	c.logger.LogAttrs(c.ctx, slog.LevelWarn, "part missing", attrs...)
}

// wait returns when every part has come or failed, with the failure of the
// first required one.
func (c *composition) wait() error { return c.group.Wait() }

// errors returns what is missing of the optional parts, and keeps an answer that
// lacks some out of every cache. Call it after wait.
func (c *composition) errors() []*bffv1.PartError {
	var missing []*bffv1.PartError
	for _, failure := range c.failures {
		if failure != nil {
			missing = append(missing, failure)
		}
	}
	if len(missing) > 0 {
		noStore(c.ctx)
	}
	return missing
}
