package app

import (
	"context"
	"errors"
	"fmt"
	"gatehouse/internal/serve"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// Serve listens for callers and for operators, runs the background work, and calls
// ready as soon as the front service answers. It returns when ctx has ended, calls in
// flight are answered and all work has stopped.
func (s *Stack) Serve(ctx context.Context, ready func()) error {
	ignoreBrokenPipes()
	listen := find[*listenFlags](s.settings).Listen
	serveOperators, err := s.ops.Open(ctx, s.checks())
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w: stop what listens there, or set GATEHOUSE_LISTEN to another address", err)
	}
	if s.front.connLimits != nil {
		listener = serve.LimitConns(listener, *s.front.connLimits)
	}
	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	stopLogging := context.AfterFunc(outer, func() { s.logger.Info("stopping", "cause", context.Cause(outer).Error()) })
	defer stopLogging()
	// Background work goes on until the last call is answered.
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer stopWorking()
		return serve.RunUntil(ctx, listener, s.Handler(), s.logger, func() serve.Stop {
			if errors.Is(context.Cause(ctx), errTerminated) {
				return find[*stopFlags](s.settings).stop()
			}
			return serve.QuickStop
		})
	})
	group.Go(func() error { return serveOperators(ctx) })
	group.Go(func() error { s.Run(working); return nil })
	group.Go(func() error {
		if err := s.waitUntilReady(ctx); err != nil {
			return err
		}
		ready()
		return nil
	})
	err = group.Wait()
	if err == nil || outer.Err() != nil {
		s.logger.Info("stopped", "listen", listen)
	}
	return err
}

// waitUntilReady waits until the front service can answer. A service's database
// was checked when it was opened.
func (s *Stack) waitUntilReady(ctx context.Context) error {
	if s.front.ready == nil {
		return nil
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for s.front.ready() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}
