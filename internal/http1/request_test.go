package http1_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

type closeRecorder struct {
	io.Reader
	closed bool
}

func (c *closeRecorder) Close() error {
	c.closed = true
	return nil
}

// A request that a server might read as another one isn't sent.
func TestAnInjectedRequestIsRefused(t *testing.T) {
	t.Parallel()
	c := client(t, "127.0.0.1:1")
	c.Dial = func(context.Context) (net.Conn, error) {
		t.Error("a connection was made for a request that is refused")
		return nil, errors.New("refused")
	}
	for name, change := range map[string]func(*http.Request){
		"a field in a value":        func(r *http.Request) { r.Header["X"] = []string{"x\r\nX-Evil: 1"} },
		"a line feed in a value":    func(r *http.Request) { r.Header["X"] = []string{"x\nX-Evil: 1"} },
		"a NUL in a value":          func(r *http.Request) { r.Header["X"] = []string{"x\x00"} },
		"a field in a name":         func(r *http.Request) { r.Header["X: x\r\nX-Evil"] = []string{"1"} },
		"a space in a name":         func(r *http.Request) { r.Header["Content-Length "] = []string{"1"} },
		"no name":                   func(r *http.Request) { r.Header[""] = []string{"1"} },
		"a request in the method":   func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\n\r\nPOST" },
		"no method":                 func(r *http.Request) { r.Method = "" },
		"a tunnel":                  func(r *http.Request) { r.Method = http.MethodConnect },
		"a request in the query":    func(r *http.Request) { r.URL.RawQuery = "x HTTP/1.1\r\n\r\nGET /" },
		"a request in the path":     func(r *http.Request) { r.URL.Opaque = "/x HTTP/1.1\r\n\r\nGET /" },
		"a field in the host":       func(r *http.Request) { r.Host = "x\r\nX-Evil: 1" },
		"no host":                   func(r *http.Request) { r.Host, r.URL.Host = "", "" },
		"trailers":                  func(r *http.Request) { r.Trailer = http.Header{"X": nil} },
		"a body of unknown length":  func(r *http.Request) { r.ContentLength = -1 },
		"a body with a length of 0": func(r *http.Request) { r.ContentLength = 0 },
		"a body that is shorter":    func(r *http.Request) { r.ContentLength = 6 },
		"a body that is longer":     func(r *http.Request) { r.ContentLength = 4 },
	} {
		r := request(t, http.MethodPost, "hello")
		body := &closeRecorder{Reader: strings.NewReader("hello")}
		r.Body = body
		change(r)
		if response, _, err := call(c, r); err == nil || !body.closed {
			t.Errorf("%s: got %v, %v, want an error and the body closed: %v", name, response, err, body.closed)
		}
	}
	secret := request(t, http.MethodPost, "hello")
	secret.Header["Authorization"] = []string{"Bearer secret\n"}
	if _, _, err := call(c, secret); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the value", err)
	}
}

// A caller that leaves, or whose time is over, waits for nothing, whatever the call was
// doing; and its connection isn't used again.
func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for _, phase := range []struct {
		name, body, response string
		dials                bool // the server is never reached
	}{
		{name: "dial", dials: true},
		{name: "write", body: strings.Repeat("x", 16<<20)},
		{name: "head"},
		{name: "rest of the head", response: "HTTP/1.1 200 OK\r\nContent-"},
		{name: "after an interim response", response: "HTTP/1.1 103 Early Hints\r\n\r\n"},
		{name: "body", response: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"},
		{name: "size of a chunk", response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5"},
		{name: "chunk", response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"},
		{name: "trailers", response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"},
		{name: "body without a length", response: "HTTP/1.1 200 OK\r\n\r\nhel"},
	} {
		for name, end := range map[string]struct {
			context func(context.Context) (context.Context, context.CancelFunc)
			want    error
		}{
			"cancel": {context.WithCancel, context.Canceled},
			"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			}, context.DeadlineExceeded},
		} {
			t.Run(name+" in "+phase.name, func(t *testing.T) {
				t.Parallel()
				reached, closed := make(chan struct{}, 1), make(chan bool, 1)
				s := listen(t, func(p *peer) {
					if phase.name == "write" {
						_, _ = p.reader.Peek(1)
					} else {
						p.request()
					}
					p.send(phase.response)
					reached <- struct{}{}
					if phase.name == "write" {
						_, err := io.Copy(io.Discard, p.reader)
						closed <- !errors.Is(err, os.ErrDeadlineExceeded)
						return
					}
					closed <- p.ended()
				})
				c := client(t, s.address)
				if phase.dials {
					c.Dial = func(ctx context.Context) (net.Conn, error) {
						reached <- struct{}{}
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				ctx, cancel := end.context(t.Context())
				defer cancel()
				over := make(chan error, 1)
				go func() {
					_, _, err := call(c, requestWith(ctx, t, http.MethodPost, phase.body+"x"))
					over <- err
				}()
				if errors.Is(end.want, context.Canceled) {
					await(t, "the phase", reached)
					cancel()
				}
				if err := await(t, "the call", over); !errors.Is(err, end.want) {
					t.Errorf("got %v, want %v", err, end.want)
				}
				if !phase.dials && !await(t, "the connection's end", closed) {
					t.Error("the connection stays open")
				}
			})
		}
	}

	c := client(t, "127.0.0.1:1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := call(c, requestWith(ctx, t, http.MethodPost, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("a call whose caller has left: got %v", err)
	}
}

// A caller that leaves once it has its answer takes nothing with it.
func TestAContextThatEndsAfterItsCallChangesNothing(t *testing.T) {
	t.Parallel()
	s := listen(t, func(p *peer) { p.answerAll(hello) })
	c := client(t, s.address)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		wantHello(t, "a call", c, requestWith(ctx, t, http.MethodPost, "x"))
		cancel()
	}
	if s.accepted.Load() != 1 {
		t.Errorf("20 calls used %d connections, want 1", s.accepted.Load())
	}
}
