package http1

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

var errBodyClosed = errors.New("the body was closed")

// body reads the body of a response from its connection, and returns the connection to
// the pool at its end.
type body struct {
	transport *Transport
	conn      *conn
	response  *response
	stop      func() bool // of the watch over the request's context
	framing   framing
	remaining int64 // of the body, or of the current chunk
	inChunks  bool  // a chunk has been read, whose line end comes before the next
	err       error // of every further read
}

// Read implements [io.Reader]. The error of a body that is cut short is
// [io.ErrUnexpectedEOF].
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.read(p)
	if err != nil {
		b.end(err)
		return n, b.err
	}
	return n, nil
}

func (b *body) read(p []byte) (int, error) {
	if b.framing == byClose {
		n, err := b.conn.Read(p)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return n, err
	}
	if b.framing == byChunks && b.remaining == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	n, err := b.conn.Read(p[:min(int64(len(p)), b.remaining)])
	b.remaining -= int64(n)
	if b.remaining == 0 && b.framing == byLength {
		return n, io.EOF
	}
	return n, err
}

// nextChunk reads up to the data of the next chunk. After the last one it returns
// [io.EOF].
func (b *body) nextChunk() error {
	if b.inChunks {
		if line, err := b.conn.readLine(maxChunkLine); err != nil {
			return err
		} else if len(line) > 0 {
			return errMalformed
		}
	}
	line, err := b.conn.readLine(maxChunkLine)
	if err != nil {
		return err
	}
	digits, _, _ := strings.Cut(strings.TrimRight(string(line), " \t"), ";") // extensions have no meaning here
	size, err := strconv.ParseUint(digits, 16, 63)
	if err != nil || len(digits) > 16 {
		return fmt.Errorf("read the size of a chunk: %w", errMalformed)
	}
	b.inChunks, b.remaining = true, int64(size)
	if size > 0 {
		return nil
	}
	return b.skipTrailers()
}

func (b *body) skipTrailers() error {
	for left := b.transport.MaxHeaderBytes; ; {
		line, err := b.conn.readLine(left)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		if _, err := parseFields(string(line) + "\r\n"); err != nil {
			return err
		}
		left -= len(line) + 2
	}
}

// end records how reading ended. It returns the connection to the pool if another call
// can use it, and closes it otherwise.
func (b *body) end(err error) {
	b.err = err
	watched := b.stop()
	if !errors.Is(err, io.EOF) && !watched {
		b.err = b.response.Request.Context().Err()
	}
	c := b.conn
	b.conn = nil
	if !errors.Is(err, io.EOF) || !watched || b.response.Close || c.start < c.end {
		_ = c.Close()
		return
	}
	c.shrink()
	b.transport.idle.put(c, b.transport.MaxIdle, b.transport.IdleTimeout)
}

// Close implements [io.Closer]. A body that was not read to its end costs its
// connection.
func (b *body) Close() error {
	if b.err == nil {
		b.end(errBodyClosed)
	}
	return nil
}
