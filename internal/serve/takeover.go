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

// TakenOver is the connection of a response that goes on after its handler has returned.
// It holds no request and no buffer, and one goroutine that notices when the client leaves.
type TakenOver struct {
	conn    net.Conn // of the server's lock until TakeOver returns
	chunked bool
	stop    func()
	owner   *takenOver
	// failed reports that a write was not completed, so that nothing may follow it.
	failed      bool
	interrupted atomic.Bool
}

// TakeOver takes the connection of an HTTP/1 request from the server. The handler must have
// begun its response, with the header Connection: close and without a length, and return
// afterwards. The caller writes the rest of the body, and calls End. The server calls stop
// when it stops, at once if it already does, and waits for End as it waits for handlers.
func TakeOver(w http.ResponseWriter, r *http.Request, stop func()) (*TakenOver, error) {
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		return nil, fmt.Errorf("flush the response: %w", err)
	}
	state, ok := r.Context().Value(stopKey{}).(*stopState)
	if !ok {
		state = new(stopState)
	}
	taken := &TakenOver{chunked: r.ProtoAtLeast(1, 1), stop: stop, owner: &state.taken}
	// Before the server stops waiting for the connection.
	stopping := taken.owner.add(taken)
	conn, _, err := control.Hijack()
	if err != nil {
		taken.owner.remove(taken)
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	taken.owner.mu.Lock()
	taken.conn = conn
	taken.owner.mu.Unlock()
	if stopping {
		stop()
	}
	return taken, nil
}

// mostUnread bounds what is read from a client whose response goes on. A
// well-behaved client sends nothing after its request.
const mostUnread = 1 << 10

// Watch calls lost when the client closes the connection, or End does; call it before End.
// A client that sends more is not read any further: the next write notices that it has gone.
func (t *TakenOver) Watch(lost func()) {
	conn := t.conn
	t.owner.readers.Go(func() {
		buffer := make([]byte, 8)
		for read := 0; read < mostUnread; {
			n, err := conn.Read(buffer)
			if err != nil {
				lost()
				return
			}
			read += n
		}
	})
}

// Write implements [io.Writer]. Each call is sent at once.
func (t *TakenOver) Write(p []byte) (int, error) {
	if t.failed {
		return 0, errCutOff
	}
	chunk := p
	if t.chunked { // one write, so that one packet
		chunk = make([]byte, 0, len(p)+16)
		chunk = fmt.Appendf(chunk, "%x\r\n", len(p))
		chunk = append(append(chunk, p...), "\r\n"...)
	}
	if _, err := t.conn.Write(chunk); err != nil {
		t.failed = true
		return 0, err //nolint:wrapcheck // as a Writer
	}
	return len(p), nil
}

var errCutOff = errors.New("the response is cut off")

// Interrupt makes a blocked Write, and all later ones, fail.
func (t *TakenOver) Interrupt() {
	t.interrupted.Store(true)
	_ = t.conn.SetWriteDeadline(time.Now())
}

// LimitLast limits the time of the writes that follow, which are the last.
func (t *TakenOver) LimitLast() {
	_ = t.conn.SetWriteDeadline(time.Now().Add(lastTime))
	if t.interrupted.Load() { // perhaps just before
		_ = t.conn.SetWriteDeadline(time.Now())
	}
}

// End ends the body, unless the response is cut off or a Write has failed, and closes the
// connection. It must not overlap a Write.
func (t *TakenOver) End(cutOff bool) {
	if !cutOff && !t.failed && t.chunked {
		t.LimitLast()
		_, _ = io.WriteString(t.conn, "0\r\n\r\n")
	}
	_ = t.conn.Close()
	t.owner.remove(t)
}

// takenOver are the connections that have been taken over from a server.
type takenOver struct {
	readers sync.WaitGroup

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
		if conn.conn != nil {
			_ = conn.conn.Close()
		}
	}
	return ctx.Err()
}
