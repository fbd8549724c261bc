package rpc

import (
	"compress/gzip"
	"io"

	"connectrpc.com/connect/v2"
)

// ErrTooMuch is the error of a message that is larger than [MaxMessageBytes].
var ErrTooMuch = connect.NewError(connect.CodeResourceExhausted, "the message is too large")

// GzipReader decompresses at most [MaxMessageBytes], because a few bytes may expand to a
// gigabyte. Beyond that it returns [ErrTooMuch].
type GzipReader struct {
	gzip.Reader
	left int
}

// Reset implements connect's Decompressor.
func (z *GzipReader) Reset(from io.Reader) error {
	z.left = MaxMessageBytes
	return z.Reader.Reset(from)
}

// Read implements [io.Reader].
func (z *GzipReader) Read(p []byte) (int, error) {
	n, err := z.Reader.Read(p)
	if z.left -= n; z.left < 0 {
		return n, ErrTooMuch
	}
	return n, err
}

// gzipBody decompresses a request's body while it is read.
type gzipBody struct {
	from   io.ReadCloser
	reader *GzipReader
}

func (b *gzipBody) Read(p []byte) (int, error) {
	if b.reader == nil {
		reader := &GzipReader{}
		if err := reader.Reset(b.from); err != nil {
			return 0, err
		}
		b.reader = reader
	}
	return b.reader.Read(p)
}

func (b *gzipBody) Close() error { return b.from.Close() }
