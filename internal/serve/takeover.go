package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// lastTime is how long the end of a response may take to be written.
const lastTime = 2 * time.Second

// TakenOver is a response that goes on after its handler has returned.
type TakenOver struct {
	rest  rest // of the server's lock until TakeOver returns
	stop  func()
	owner *takenOver
	// failed reports that a write was not completed, so that nothing may follow it.
	failed      bool
	interrupted atomic.Bool
}

// rest is what remains of a response: in HTTP/1 its connection, in HTTP/2 its stream.
type rest interface {
	io.Writer // which sends each write at once
	SetWriteDeadline(time.Time) error
	// watch calls lost when the client leaves, or end is called.
	watch(lost func())
	end(cutOff bool)
	// cut closes the connection, unless the server does.
	cut()
}

// CanTakeOver reports whether TakeOver can take the response to a request.
func CanTakeOver(w http.ResponseWriter, r *http.Request) bool {
	if r.ProtoMajor != 1 {
		return apartFrom(r) != nil
	}
	for {
		switch writer := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = writer.Unwrap()
		default:
			return false
		}
	}
}

// TakeOver takes a response from the server: in HTTP/1 with its connection, and in HTTP/2 if
// it is one of a [Streamer]. The handler must have begun the response, in HTTP/1 with the
// header Connection: close and without a length, and return afterwards. The caller writes
// the rest of the body, and calls End. The server calls stop when it stops, at once if it
// already does, and waits for End as it waits for handlers.
func TakeOver(w http.ResponseWriter, r *http.Request, stop func()) (*TakenOver, error) {
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		return nil, fmt.Errorf("flush the response: %w", err)
	}
	state, ok := r.Context().Value(stopKey{}).(*stopState)
	if !ok {
		state = new(stopState)
	}
	taken := &TakenOver{stop: stop, owner: &state.taken}
	// Before the server stops waiting for the connection.
	stopping := taken.owner.add(taken)
	rest, err := takeRest(control, r, taken.owner)
	if err != nil {
		taken.owner.remove(taken)
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	taken.owner.mu.Lock()
	taken.rest = rest
	taken.owner.mu.Unlock()
	if stopping {
		stop()
	}
	return taken, nil
}

func takeRest(control *http.ResponseController, r *http.Request, owner *takenOver) (rest, error) {
	if apart := apartFrom(r); apart != nil {
		return apart.take(owner), nil
	}
	conn, _, err := control.Hijack()
	return &takenConn{conn, r.ProtoAtLeast(1, 1), owner}, err //nolint:wrapcheck // by the caller
}

// Watch calls lost when the client leaves, or End is called. Call it in the handler, before
// End.
func (t *TakenOver) Watch(lost func()) { t.rest.watch(lost) }

// Write implements [io.Writer]. Each call is sent at once.
func (t *TakenOver) Write(p []byte) (int, error) {
	if t.failed {
		return 0, errCutOff
	}
	n, err := t.rest.Write(p)
	t.failed = err != nil
	return n, err //nolint:wrapcheck // as a Writer
}

var errCutOff = errors.New("the response is cut off")

// SetTrailer sets a trailer of a response over HTTP/2. Call it before End.
func (t *TakenOver) SetTrailer(name, value string) {
	if stream, ok := t.rest.(*apart); ok {
		stream.w.Header().Set(http.TrailerPrefix+name, value)
	}
}

// Interrupt makes a blocked Write, and all later ones, fail.
func (t *TakenOver) Interrupt() {
	t.interrupted.Store(true)
	_ = t.rest.SetWriteDeadline(time.Now())
}

// LimitLast limits the time of the writes that follow, which are the last.
func (t *TakenOver) LimitLast() {
	_ = t.rest.SetWriteDeadline(time.Now().Add(lastTime))
	if t.interrupted.Load() { // perhaps just before
		_ = t.rest.SetWriteDeadline(time.Now())
	}
}

// End ends the body, unless the response is cut off or a Write has failed. In HTTP/1 it
// closes the connection. It must not overlap a Write.
func (t *TakenOver) End(cutOff bool) {
	cutOff = cutOff || t.failed
	if !cutOff {
		t.LimitLast()
	}
	t.rest.end(cutOff)
	t.owner.remove(t)
}

// takenConn is the connection of a response over HTTP/1. It holds no request and no buffer,
// and one goroutine that notices when the client leaves.
type takenConn struct {
	net.Conn
	chunked bool
	owner   *takenOver
}

// mostUnread bounds what is read from a client whose response goes on. A
// well-behaved client sends nothing after its request.
const mostUnread = 1 << 10

// watch does not read any further when a client sends more: the next write notices that it
// has gone.
func (c *takenConn) watch(lost func()) {
	c.owner.readers.Go(func() {
		buffer := make([]byte, 8)
		for read := 0; read < mostUnread; {
			n, err := c.Read(buffer)
			if err != nil {
				lost()
				return
			}
			read += n
		}
	})
}

func (c *takenConn) Write(p []byte) (int, error) {
	chunk := p
	if c.chunked { // one write, so that one packet
		chunk = make([]byte, 0, len(p)+16)
		chunk = fmt.Appendf(chunk, "%x\r\n", len(p))
		chunk = append(append(chunk, p...), "\r\n"...)
	}
	if _, err := c.Conn.Write(chunk); err != nil {
		return 0, err //nolint:wrapcheck // as a Writer
	}
	return len(p), nil
}

func (c *takenConn) end(cutOff bool) {
	if !cutOff && c.chunked {
		_, _ = io.WriteString(c.Conn, "0\r\n\r\n")
	}
	c.cut()
}

func (c *takenConn) cut() { _ = c.Close() }

// takenOver are the responses that have been taken over from a server.
type takenOver struct {
	readers sync.WaitGroup // what notices that a client leaves

	mu       sync.Mutex
	conns    map[*TakenOver]struct{}
	stopping bool
	empty    chan struct{} // closed when there are none; nil while nobody waits
}

// add reports whether the server is stopping.
func (t *takenOver) add(conn *TakenOver) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		t.conns = map[*TakenOver]struct{}{}
	}
	t.conns[conn] = struct{}{}
	return t.stopping
}

func (t *takenOver) remove(conn *TakenOver) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, conn)
	if t.empty != nil && len(t.conns) == 0 {
		close(t.empty)
		t.empty = nil
	}
}

// stop asks for the end of all responses.
func (t *takenOver) stop() {
	t.mu.Lock()
	t.stopping = true
	open := slices.Collect(maps.Keys(t.conns))
	t.mu.Unlock()
	for _, conn := range open {
		conn.stop()
	}
}

// wait waits until all responses have ended. When ctx ends it closes their connections.
func (t *takenOver) wait(ctx context.Context) error {
	t.mu.Lock()
	empty := make(chan struct{})
	if len(t.conns) == 0 {
		close(empty)
	} else {
		t.empty = empty
	}
	t.mu.Unlock()
	select {
	case <-empty:
		t.readers.Wait()
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.conns {
		if conn.rest != nil {
			conn.rest.cut()
		}
	}
	return ctx.Err()
}
