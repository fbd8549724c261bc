package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// MaxBodyBytes limits a request's body.
const MaxBodyBytes = 1 << 20

// Limits of every HTTP server here.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	IdleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	// reportTime is how long calls in flight have to report an error after a stop has
	// cancelled their contexts.
	reportTime = 2 * time.Second
	// unusedTime is how long a stop waits for connections without a request.
	unusedTime = time.Second
	// shutDownRound is how long a stop waits before it shuts connections down again.
	shutDownRound = time.Second
)

// Stop configures how a server stops.
type Stop struct {
	// Pause is how long the server continues to serve after it has reported that it is
	// not ready, so that load balancers notice.
	Pause time.Duration
	// Grace is how long calls in flight then have to finish.
	Grace time.Duration
}

// QuickStop is for a person who waits for the prompt to come back.
var QuickStop = Stop{Grace: 4 * time.Second}

// Run serves HTTP/1.1 and HTTP/2 without TLS on the listener until ctx ends, and then
// stops as [QuickStop] says.
func Run(ctx context.Context, listener net.Listener, handler http.Handler, logger *slog.Logger) error {
	return RunUntil(ctx, listener, handler, logger, func() Stop { return QuickStop })
}

// RunUntil is [Run] with another way to stop, which it asks for once ctx has ended. It
// then, in this order: reports that it is not ready; closes each connection with its
// next answer (HTTP/2: GOAWAY); pauses; ends streams, so that their readers reconnect
// elsewhere; stops accepting; and lets the calls in flight finish. Shortly before the
// grace period is over it cancels their contexts, and then closes their connections.
func RunUntil(ctx context.Context, listener net.Listener, handler http.Handler, logger *slog.Logger, how func() Stop) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	state := &stopState{endStreams: make(chan struct{})}
	base, endCalls := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), stopKey{}, state))
	defer endCalls()
	server := &http.Server{
		Handler:           runApart(handler, closeAmbiguous(state.closeConnections(http.MaxBytesHandler(handler, MaxBodyBytes)))),
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withFraming,
		// A write whose client reads nothing from its connection does not end with its stream.
		HTTP2: &http.HTTP2Config{WriteByteTimeout: writeTimeout},
	}
	unused := &unusedConns{conns: map[net.Conn]struct{}{}}
	server.ConnState = unused.track
	if limited, ok := listener.(*limitedListener); ok {
		server.ConnState = func(conn net.Conn, state http.ConnState) {
			unused.track(conn, state)
			if framed, ok := conn.(*framingConn); ok {
				limited.track(framed.Conn, state)
			}
		}
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(framingListener{listener}) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stop := how()
	state.stopping.Store(true)
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-time.After(stop.Pause):
	}
	close(state.endStreams)
	state.taken.stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stop.Grace)
	defer cancel()
	defer time.AfterFunc(stop.Grace-min(reportTime, stop.Grace/2), endCalls).Stop()
	defer time.AfterFunc(min(unusedTime, stop.Grace/4), unused.close).Stop()
	err := errors.Join(shutDown(grace, server), state.taken.wait(grace))
	if err != nil {
		err = errors.Join(fmt.Errorf("stop serving on %s: %w", listener.Addr(), err), server.Close())
	}
	<-served
	return err
}

// shutDown waits until all connections have ended or the grace period is over.
// Shutdown sends GOAWAY once; a connection that is opened at that moment gets it in
// the next round.
func shutDown(grace context.Context, server *http.Server) error {
	for {
		round, cancel := context.WithTimeout(grace, shutDownRound)
		err := server.Shutdown(round)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || grace.Err() != nil {
			return err
		}
	}
}

// stopState is the state of a server's stop. Handlers receive it in their context.
type stopState struct {
	stopping   atomic.Bool
	endStreams chan struct{} // closed when streams must end
	taken      takenOver
}

type stopKey struct{}

// Stopping reports whether the server of a request is about to stop.
func Stopping(ctx context.Context) bool {
	state, ok := ctx.Value(stopKey{}).(*stopState)
	return ok && state.stopping.Load()
}

// closeConnections closes the connection of each request that arrives while the server is
// stopping, after the response. In HTTP/2 the header causes a GOAWAY.
func (s *stopState) closeConnections(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// ErrStopping is the cause with which the context of a stream ends when its server stops.
var ErrStopping = errors.New("the server stops")

// UntilStop ends the context of a stream when the server stops, with the cause
// [ErrStopping]: Shutdown would wait for the stream's end.
func UntilStop(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state, ok := r.Context().Value(stopKey{}).(*stopState)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		go func() {
			select {
			case <-state.endStreams:
				cancel(ErrStopping)
			case <-ctx.Done():
			}
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// unusedConns are connections that have had no request yet; browsers open some in advance.
// Shutdown would wait too long for them.
type unusedConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (u *unusedConns) track(conn net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if state == http.StateNew {
		u.conns[conn] = struct{}{}
	} else {
		delete(u.conns, conn)
	}
}

func (u *unusedConns) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for conn := range u.conns {
		_ = conn.Close()
	}
}
