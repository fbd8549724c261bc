package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/http1"
)

// tape is a connection to a server that sends what it will, and then closes.
type tape struct {
	net.Conn
	sends  *bytes.Reader
	closed bool
}

func (c *tape) Read(p []byte) (int, error)  { return c.sends.Read(p) }
func (c *tape) Write(p []byte) (int, error) { return len(p), nil }
func (c *tape) SetDeadline(time.Time) error { return nil }

func (c *tape) Close() error {
	c.closed = true
	return nil
}

// answer is a response with its body.
type answer struct {
	*http.Response
	body string
}

// readOurs reads the server's bytes as Transport does. It reports whether the
// connection is kept.
func readOurs(t testing.TB, method string, sent []byte) (got answer, kept bool, err error) {
	conn := &tape{sends: bytes.NewReader(sent)}
	c := &http1.Transport{
		Dial:    func(context.Context) (net.Conn, error) { return conn, nil },
		MaxIdle: 1, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	defer c.CloseIdleConnections()
	response, body, err := call(c, request(t, method, ""))
	return answer{response, body}, !conn.closed, err
}

// readTheirs reads them as net/http does. It returns how many follow the response.
func readTheirs(method string, sent []byte) (got answer, rest int, err error) {
	reader := bufio.NewReader(bytes.NewReader(sent))
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return answer{}, 0, err
		}
		if response.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(response.Body)
		left, _ := io.ReadAll(reader)
		return answer{response, string(body)}, len(left), err
	}
}

var commonResponses = []string{
	hello,
	"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 20:00:00 GMT\r\nContent-Type: application/proto\r\nContent-Length: 3\r\n\r\n\n\x01x",
	"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 \r\ncontent-length: 005\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;name=value\r\nhel\r\n02 \r\nlo\r\n0\r\nX-Trailer: x\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + hello,
	"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}",
	"HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX:\r\nset-cookie: \tb \r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\nhello",
	"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.0 404 Not Found\r\n\r\nhello",
}

// What a server of our time sends is read as net/http reads it.
func TestCommonResponsesAreReadAsNetHTTPDoes(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodHead} {
		for _, sent := range commonResponses {
			if _, _, err := readOurs(t, method, []byte(sent)); err != nil {
				t.Errorf("%s, %q: %v", method, sent, err)
			}
			compareReaders(t, method, []byte(sent))
		}
	}
}

// FuzzResponse looks for a response that Transport accepts and net/http refuses or reads
// otherwise, and for a connection that is kept though it should not be. Transport may
// refuse what net/http accepts: it is stricter.
func FuzzResponse(f *testing.F) {
	for _, sent := range commonResponses {
		f.Add(false, []byte(sent))
		f.Add(true, []byte(sent))
		f.Add(false, []byte(sent+hello))
		f.Add(false, []byte(sent[:len(sent)*2/3]))
	}
	for _, sent := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n00\r\n\r\n" + hello,
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add(false, []byte(sent))
	}
	f.Fuzz(func(t *testing.T, head bool, sent []byte) {
		if len(sent) > 4000 { // net/http limits trailers by its buffer
			return
		}
		compareReaders(t, map[bool]string{false: http.MethodPost, true: http.MethodHead}[head], sent)
	})
}

func compareReaders(t testing.TB, method string, sent []byte) {
	got, kept, err := readOurs(t, method, sent)
	if err != nil {
		if kept {
			t.Errorf("%s, %q: the connection is kept after %v", method, sent, err)
		}
		return
	}
	want, rest, err := readTheirs(method, sent)
	if got.Header["Trailer"] != nil { // which net/http checks and takes away
		return
	}
	if err != nil {
		t.Fatalf("%s, %q: got %v, %q, and net/http an error: %v", method, sent, got.Response, got.body, err)
	}
	if got.Header["Pragma"] != nil {
		delete(want.Header, "Cache-Control") // which net/http adds
		delete(got.Header, "Cache-Control")
	}
	delete(got.Header, "Connection") // which net/http takes away when it is "close"
	delete(want.Header, "Connection")
	if got.body != want.body || got.Status != want.Status || got.StatusCode != want.StatusCode || got.Proto != want.Proto ||
		!maps.EqualFunc(got.Header, want.Header, slices.Equal) {
		t.Errorf("%s, %q:\ngot  %+v, %q\nwant %+v, %q", method, sent, got.Response, got.body, want.Response, want.body)
	}
	if kept && (want.Close || rest > 0) {
		t.Errorf("%s, %q: the connection is kept, with %d bytes after the response", method, sent, rest)
	}
	if strings.Contains(got.Proto, "1.0") && kept {
		t.Errorf("%s, %q: a connection of HTTP/1.0 is kept", method, sent)
	}
}
