package serve

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// A request that has both Content-Length and Transfer-Encoding may be an attempt
// at smuggling: a proxy before us may have seen its end elsewhere, and taken what
// follows for another request. The connection has to end with the answer (RFC
// 9112, section 6.1). net/http goes by Transfer-Encoding, as it should, but takes
// the Content-Length away and keeps the connection, so the bytes that it reads
// are looked at before it.

// framingListener accepts connections that remember whether a Content-Length was
// sent on them.
type framingListener struct{ net.Listener }

func (l framingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &framingConn{Conn: conn}, nil
}

// framingConn looks for a line that begins with "Content-Length". It doesn't
// know where requests begin, so one of an earlier request counts, and so does
// one in a body: then a chunked request costs its connection for no reason, which
// is safe.
type framingConn struct {
	net.Conn
	// done says that there is nothing to look for any more: it was found, or the
	// connection speaks HTTP/2, whose framing leaves no doubt.
	done, found atomic.Bool
	// matched is how many bytes of lengthField the current line begins with; -1 for
	// another line. One goroutine at a time reads a connection.
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

// CloseWrite lets net/http end what it sends first: the answer would else be lost
// where more of the request is still on its way.
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

// closeAmbiguous closes the connection of a request with both lengths, once it is
// answered.
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
