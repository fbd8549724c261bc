package http1_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/internal/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server accepts connections and lets the test speak on each, byte by byte.
type server struct {
	address  string
	accepted atomic.Int64
	requests atomic.Int64
}

// peer is the server's end of a connection.
type peer struct {
	*net.TCPConn
	t      testing.TB
	server *server
	reader *bufio.Reader
	number int // of the connection, from 1
}

// listen starts a server that runs the script on each connection, and closes the
// connection when the script returns.
func listen(t testing.TB, script func(p *peer)) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: listener.Addr().String()}
	var scripts sync.WaitGroup
	scripts.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p := &peer{TCPConn: conn.(*net.TCPConn), t: t, server: s, reader: bufio.NewReader(conn), number: int(s.accepted.Add(1))}
			_ = p.SetDeadline(time.Now().Add(patience))
			scripts.Go(func() {
				defer p.Close()
				script(p)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		scripts.Wait()
	})
	return s
}

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// request reads one request with its body; nil when the client has closed.
func (p *peer) request() *http.Request {
	r, err := http.ReadRequest(p.reader)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	p.server.requests.Add(1)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	return r
}

func (p *peer) send(text string) { _, _ = io.WriteString(p, text) }

// ended reports whether the client closes the connection, rather than sending more.
func (p *peer) ended() bool {
	_, err := p.reader.ReadByte()
	timeout, ok := errors.AsType[net.Error](err)
	return err != nil && !(ok && timeout.Timeout())
}

// answerAll answers every request.
func (p *peer) answerAll(text string) {
	for p.request() != nil {
		p.send(text)
	}
}

const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

// client returns a transport to an address.
func client(t testing.TB, address string) *http1.Transport {
	c := &http1.Transport{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		MaxIdle: 16, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func request(t testing.TB, method, body string) *http.Request {
	t.Helper()
	return requestWith(t.Context(), t, method, body)
}

func requestWith(ctx context.Context, t testing.TB, method, body string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://service.test/path?query=1", reader)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// call makes a call and reads its response to the end.
func call(c *http1.Transport, r *http.Request) (*http.Response, string, error) {
	response, err := c.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, string(body), err
}

func wantHello(t testing.TB, what string, c *http1.Transport, r *http.Request) {
	t.Helper()
	response, body, err := call(c, r)
	if err != nil || response.StatusCode != http.StatusOK || body != "hello" {
		t.Errorf("%s: got %v, %q, %v, want 200 and hello", what, response, body, err)
	}
}

// await receives what a script reports.
func await[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		t.Fatalf("%s: nothing within %v", what, patience)
		panic("unreachable")
	}
}
