package serve

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// A request that has both Content-Length and Transfer-Encoding may be an attempt at request
// smuggling: a proxy in front may have found its end elsewhere, and treated the rest as
// another request. The server must close the connection after the response (RFC 9112,
// section 6.1). net/http correctly uses Transfer-Encoding, but deletes the Content-Length
// and keeps the connection open, so framingConn inspects the bytes before net/http does.

// framingListener accepts connections that record whether the client sent a
// Content-Length.
type framingListener struct{ net.Listener }

func (l framingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &framingConn{Conn: conn}, nil
}

// framingConn searches for a line that begins with "Content-Length". It does not know where
// a request begins, so it also finds lines of earlier requests and of bodies. Then the
// server closes the connection of a chunked request without need, which is safe.
type framingConn struct {
	net.Conn
	// done reports that the search is over: the line was found, or the connection uses
	// HTTP/2, whose framing is unambiguous.
	done, found atomic.Bool
	// matched is how many bytes of lengthField the current line matches so far; -1 if it
	// does not match. Only one goroutine at a time reads a connection.
	matched int
}

const lengthField = "content-length"

// Read implements [net.Conn].
func (c *framingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.done.Load() {
		c.scan(p[:n])
	}
	return n, err
}

func (c *framingConn) scan(read []byte) {
	for len(read) > 0 {
		if c.matched < 0 {
			end := bytes.IndexByte(read, '\n')
			if end < 0 {
				return
			}
			read, c.matched = read[end+1:], 0
			continue
		}
		letter := read[0]
		if 'A' <= letter && letter <= 'Z' {
			letter += 'a' - 'A'
		}
		switch letter {
		case lengthField[c.matched]:
			c.matched++
		case '\n':
			c.matched = 0
		default:
			c.matched = -1
		}
		if c.matched == len(lengthField) {
			c.found.Store(true)
			c.done.Store(true)
			return
		}
		read = read[1:]
	}
}

// CloseWrite lets net/http close the writing side first. Otherwise the client could lose
// the response while it still sends the request.
func (c *framingConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

type framingKey struct{}

func withFraming(ctx context.Context, conn net.Conn) context.Context {
	if framed, ok := conn.(*framingConn); ok {
		return context.WithValue(ctx, framingKey{}, framed)
	}
	return ctx
}

// closeAmbiguous closes the connection of a request with both headers after the response.
func closeAmbiguous(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(framingKey{}).(*framingConn); ok {
			switch {
			case r.ProtoMajor != 1:
				conn.done.Store(true)
			case len(r.TransferEncoding) > 0 && conn.found.Load():
				w.Header().Set("Connection", "close")
			}
		}
		next.ServeHTTP(w, r)
	})
}
