package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// Transport is an [http.RoundTripper] for one address, without TLS. It may be used by
// many goroutines.
//
// The end of a request's context ends its call in every phase. A request is sent twice
// at most: when a connection that was kept turns out to be closed, and either nothing
// was sent or the request may be repeated (its method is safe, or it has an
// Idempotency-Key). The body of a response must be closed; it is for one goroutine at a
// time, and to end a read that waits, cancel the request's context.
type Transport struct {
	// Dial connects to the address. Its errors are returned as they are.
	Dial func(ctx context.Context) (net.Conn, error)
	// MaxIdle is how many connections are kept for later requests.
	MaxIdle int
	// IdleTimeout is how long they are kept. It should be shorter than the server's, or
	// the server may close a connection while a request is sent on it.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a response, and its trailers.
	MaxHeaderBytes int

	idle pool
}

// errStale says that the server closed an idle connection, and that the request may be
// sent on another one.
var errStale = errors.New("the connection was closed")

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	message, err := encode(r)
	if err != nil {
		return nil, err
	}
	defer message.release()
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := t.idle.take(t.IdleTimeout)
	if c != nil {
		response, err := t.roundTrip(c, r, message.bytes)
		if !errors.Is(err, errStale) || ctx.Err() != nil {
			return response, err
		}
	}
	conn, err := t.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return t.roundTrip(newConn(conn), r, message.bytes)
}

// roundTrip makes the call on a connection. When it fails, the connection is closed.
func (t *Transport) roundTrip(c *conn, r *http.Request, message []byte) (*http.Response, error) {
	ctx := r.Context()
	stop := context.AfterFunc(ctx, c.interrupt)
	response, err := c.exchange(r, message, t.MaxHeaderBytes)
	if err != nil {
		stop()
		_ = c.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	response.body.transport, response.body.stop = t, stop
	if response.body.remaining == 0 && response.body.framing == byLength {
		response.body.end(io.EOF)
		response.Body = http.NoBody
	}
	return &response.Response, nil
}

// exchange sends the request and reads the head of its response.
func (c *conn) exchange(r *http.Request, message []byte, maxHeader int) (*response, error) {
	sent, failure := c.Write(message)
	if failure != nil && sent == 0 && c.reused {
		return nil, errStale
	}
	// A server may answer before it has read everything, and then close.
	head, err := c.readFinalHead(maxHeader)
	if err != nil && c.reused && c.isUnread() && isClosed(err) && isRepeatable(r) {
		return nil, errStale
	}
	if failure != nil && err != nil {
		return nil, fmt.Errorf("send a request: %w", failure)
	}
	if err != nil {
		return nil, fmt.Errorf("read a response: %w", err)
	}
	response, err := newResponse(r, head, c)
	if err != nil {
		return nil, fmt.Errorf("read a response: %w", err)
	}
	if failure != nil {
		response.Close = true
	}
	return response, nil
}

// isRepeatable reports whether a request may be sent again although the server may have
// acted on it.
func isRepeatable(r *http.Request) bool {
	return slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace}, r.Method) || r.Header.Get("Idempotency-Key") != ""
}

// CloseIdleConnections closes the connections that no call uses. Those in use are
// closed when their calls end, unless there is another call first.
func (t *Transport) CloseIdleConnections() { t.idle.close() }
