package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

const (
	readBuffer = 4 << 10 // as it begins, and as an idle connection keeps it
	// maxInformational bounds the 1xx responses before the final one.
	maxInformational = 5
	// maxChunkLine bounds the line with the size of a chunk.
	maxChunkLine = 256
)

var (
	errHeaderTooLarge = errors.New("the header is too large")
	errMalformed      = errors.New("it violates HTTP/1.1")
)

// conn is a connection to a server. One call at a time uses it.
type conn struct {
	net.Conn
	in         []byte // of which start to end is read and not yet used
	start, end int
	reused     bool // had a call before
	idleSince  time.Time
	answering  bool // an informational response to the call has been read

	interrupt func() // ends reads and writes, now and later

	raw   syscall.RawConn // nil where the system has none
	probe func(fd uintptr) bool
	open  bool // the result of probe
}

func newConn(with net.Conn) *conn {
	c := &conn{Conn: with, in: make([]byte, readBuffer)}
	c.interrupt = func() { _ = with.SetDeadline(time.Unix(1, 0)) }
	if socket, ok := with.(syscall.Conn); ok {
		c.raw, _ = socket.SyscallConn() // nil with an error
	}
	c.probe = func(fd uintptr) bool {
		// Sockets don't block. An open connection has nothing to read before a
		// request is sent: whatever the server sends answers no request.
		var one [1]byte
		n, err := syscall.Read(int(fd), one[:])
		c.open = n < 0 && (errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK))
		return true
	}
	return c
}

// isOpen reports whether the server has neither closed the idle connection nor sent
// anything on it.
func (c *conn) isOpen() bool {
	if c.raw == nil {
		return true
	}
	return c.raw.Read(c.probe) == nil && c.open
}

// isUnread reports whether nothing of the response has been read.
func (c *conn) isUnread() bool { return !c.answering && c.start == c.end }

// isClosed reports whether a read failed since the server had closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// readFinalHead returns the head of the response that is not informational: status line
// and fields, each with its line's end, without the empty line.
func (c *conn) readFinalHead(most int) (string, error) {
	c.answering = false
	for range maxInformational + 1 {
		head, err := c.readHead(most)
		if err != nil {
			return "", err
		}
		c.answering = true
		first := firstLine(head)
		status, err := parseStatus(first)
		if err != nil {
			return "", err
		}
		if status.code >= 200 {
			return head, nil
		}
		if status.code == http.StatusSwitchingProtocols {
			return "", errors.New("it switches to another protocol")
		}
		if _, err := parseFields(head[len(first)+2:]); err != nil {
			return "", err
		}
	}
	return "", errors.New("it has too many informational responses")
}

func (c *conn) readHead(most int) (string, error) {
	scanned := 0
	for {
		have := c.in[c.start:c.end]
		if !startsLikeHTTP(have) { // a server of another protocol may never send the head's end
			return "", errMalformed
		}
		if i := bytes.Index(have[scanned:], []byte("\r\n\r\n")); i >= 0 && scanned+i+4 <= most {
			end := scanned + i + 2
			c.start += end + 2
			return string(have[:end]), nil
		} else if i >= 0 || len(have) >= most {
			return "", errHeaderTooLarge
		}
		scanned = max(len(have)-3, 0)
		if err := c.fill(); err != nil {
			return "", err
		}
	}
}

func startsLikeHTTP(have []byte) bool {
	const start = "HTTP/1."
	return string(have[:min(len(have), len(start))]) == start[:min(len(have), len(start))]
}

// readLine returns the next line without its end. It is valid until the next read.
func (c *conn) readLine(most int) ([]byte, error) {
	for {
		have := c.in[c.start:c.end]
		if i := bytes.IndexByte(have, '\n'); i > most || i < 0 && len(have) > most {
			return nil, errHeaderTooLarge
		} else if i >= 0 {
			if i == 0 || bytes.IndexByte(have, '\r') != i-1 {
				return nil, errMalformed
			}
			c.start += i + 1
			return have[:i-1], nil
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads at least one byte more into the buffer. The end of the connection is
// [io.ErrUnexpectedEOF].
func (c *conn) fill() error {
	if c.start > 0 {
		c.end = copy(c.in, c.in[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := c.Conn.Read(c.in[c.end:])
	if n > 0 {
		c.end += n
		return nil
	}
	switch {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err == nil:
		return io.ErrNoProgress
	default:
		return err
	}
}

// Read reads what is buffered, or else from the connection.
func (c *conn) Read(p []byte) (int, error) {
	if c.start == c.end && len(p) < readBuffer {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	if c.start < c.end {
		n := copy(p, c.in[c.start:c.end])
		c.start += n
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// shrink releases the memory of a long head.
func (c *conn) shrink() {
	if len(c.in) > readBuffer {
		c.in = make([]byte, readBuffer)
	}
	c.start, c.end = 0, 0
}
