package serve

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// In HTTP/2 a response lasts as long as its handler. What a response that goes on would
// hold is the handler's stack, which stays as large as the chain of handlers made it. So
// the chain runs on another goroutine, and the server's own waits where it has called
// little: its stack is as small as it began.

// A Streamer is a handler that knows which of its responses may go on after it has returned
// ([TakeOver]). [RunUntil] runs it on a goroutine of its own for these, over HTTP/2.
type Streamer interface {
	http.Handler
	// Streams reports whether the response to a request may go on.
	Streams(r *http.Request) bool
}

// runApart runs next on a goroutine of its own for the streams of a [Streamer].
func runApart(handler, next http.Handler) http.Handler {
	streamer, ok := handler.(Streamer)
	if !ok {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 || !streamer.Streams(r) {
			next.ServeHTTP(w, r)
			return
		}
		a := &apart{w: w, returned: make(chan struct{})}
		go a.serve(next, r)
		a.wait(r)
	})
}

// apart is the response to a request whose handler runs on a goroutine of its own.
type apart struct {
	w        http.ResponseWriter // the server's
	returned chan struct{}       // closed when the handler has returned
	panicked any                 // what it panicked with

	// Of a response that is taken over.
	owner  *takenOver
	lost   func()        // nil if nothing watches
	ended  chan struct{} // nil if it is not taken over
	cutOff bool

	mu   sync.Mutex
	over bool // w must not be used
}

type apartKey struct{}

func apartFrom(r *http.Request) *apart {
	a, _ := r.Context().Value(apartKey{}).(*apart)
	return a
}

func (a *apart) serve(next http.Handler, r *http.Request) {
	defer close(a.returned)
	defer func() {
		switch value := recover(); value {
		case nil, http.ErrAbortHandler: //nolint:errorlint // as net/http
			a.panicked = value
		default:
			a.panicked = fmt.Sprintf("%v\n\n%s", value, debug.Stack())
		}
	}()
	next.ServeHTTP(a.w, r.WithContext(context.WithValue(r.Context(), apartKey{}, a)))
}

// wait waits for the end of the response.
func (a *apart) wait(r *http.Request) {
	defer a.close()
	<-a.returned
	if a.ended == nil || a.panicked != nil && a.lost == nil {
		a.panicAgain()
		return
	}
	_ = r.Body.Close()
	r.Header, r.URL, a.returned = nil, nil, nil // the server keeps the request
	if a.panicked == nil {
		select {
		case <-r.Context().Done():
		case <-a.ended:
		}
	}
	if a.lost != nil {
		a.lost()
		a.owner.readers.Done()
	}
	<-a.ended
	a.panicAgain()
	if a.cutOff && r.Context().Err() == nil {
		panic(http.ErrAbortHandler)
	}
}

// panicAgain panics as the handler did, if it did, so that the server resets the stream.
func (a *apart) panicAgain() {
	if a.panicked != nil {
		panic(a.panicked)
	}
}

func (a *apart) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}

func (a *apart) take(owner *takenOver) rest {
	clear(a.w.Header()) // it has been sent
	a.owner, a.ended = owner, make(chan struct{})
	return a
}

func (a *apart) watch(lost func()) {
	a.owner.readers.Add(1)
	a.lost = lost
}

func (a *apart) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	if err == nil {
		err = http.NewResponseController(a.w).Flush()
	}
	return n, err //nolint:wrapcheck // as a Writer
}

func (a *apart) SetWriteDeadline(at time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return os.ErrClosed
	}
	return http.NewResponseController(a.w).SetWriteDeadline(at) //nolint:wrapcheck // as a net.Conn
}

func (a *apart) end(cutOff bool) {
	a.cutOff = cutOff
	close(a.ended)
}

// cut does nothing: the server closes the connection.
func (a *apart) cut() {}
