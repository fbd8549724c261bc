// Package unary serves unary methods over the Connect protocol as connect's own handler
// does, but without its intermediate streams, headers and copies, which take a third of the
// CPU time of an answer from the cache. It leaves requests of other protocols, and
// compressed ones, to that handler.
package unary

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"connectrpc.com/connect/v2/connecthttp"
)

// Handler serves one method. Its requests have been checked: a GET has a message, and no
// header is one that connect would refuse.
type Handler struct {
	Server *connect.Server
	Spec   connect.Spec
	// Proto and JSON are the codecs.
	Proto, JSON connect.Codec
	// MaxBytes limits a message that is received.
	MaxBytes int
	// CompressMinBytes is the size from which responses are compressed with gzip for
	// clients whose Accept-Encoding is exactly that; zero for never.
	CompressMinBytes int
	// Other serves the requests that this handler does not.
	Other http.Handler
}

var (
	compressor  = connectgzip.New()
	errorWriter = connecthttp.NewErrorWriter()

	// Values of headers, which all responses share.
	gzipOnly = []string{gzip}
	inProto  = []string{"application/proto"}
	inJSON   = []string{"application/json"}
)

const gzip = "gzip"

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{handler: h, writer: w, request: r, ctx: r.Context()}
	if !c.open() {
		h.Other.ServeHTTP(w, r)
		return
	}
	if text := header(r.Header, "Connect-Timeout-Ms"); text != "" {
		milliseconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			h.Other.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, time.Duration(milliseconds)*time.Millisecond)
		defer cancel()
		c.ctx = ctx
	}
	defer r.Body.Close()
	c.info.Spec, c.info.PeerAddr, c.info.Protocol = h.Spec, r.RemoteAddr, connect.ProtocolNameConnect
	c.info.TransportInfo = (*httpTransport)(r)
	c.info.RequestEncoding, c.info.ResponseEncoding = connect.CompressionNameIdentity, connect.CompressionNameIdentity
	if c.compresses() {
		c.info.ResponseEncoding = gzip
	}
	for name, values := range r.Header {
		c.info.RequestHeader().SetValues(name, values)
	}
	c.finish(h.Server.Call(c.ctx, h.Spec.Procedure, &c.info, c))
}

// httpTransport is the TransportInfo of a call over HTTP, as connect's ServerInfo is.
type httpTransport http.Request

// HTTPMethod returns the method of the request.
func (t *httpTransport) HTTPMethod() string { return t.Method }

// call is the stream of one call.
type call struct {
	handler *Handler
	writer  http.ResponseWriter
	request *http.Request
	ctx     context.Context //nolint:containedctx // a stream belongs to one call
	codec   connect.Codec
	message string // of a GET
	info    connect.CallInfo

	received, flushed, written bool
}

// open reads how the message is encoded, and reports whether this handler can read it.
func (c *call) open() bool {
	r := c.request
	if r.Method != http.MethodGet {
		switch header(r.Header, "Content-Type") {
		case inJSON[0]:
			c.codec, c.info.Codec = c.handler.JSON, connect.CodecNameJSON
		case inProto[0]:
			c.codec, c.info.Codec = c.handler.Proto, connect.CodecNameProto
		}
		return c.codec != nil && header(r.Header, "Content-Encoding") == ""
	}
	query := QueryOf(r.URL.RawQuery)
	switch query.Encoding {
	case connect.CodecNameJSON:
		c.codec = c.handler.JSON
	case connect.CodecNameProto:
		c.codec = c.handler.Proto
	}
	c.info.Codec = query.Encoding
	return c.codec != nil && query.Compression == "" && c.decodeQuery(query)
}

// decodeQuery sets the message of a GET.
func (c *call) decodeQuery(query Query) bool {
	text, err := url.QueryUnescape(query.Message)
	if err != nil {
		return false
	}
	if query.Base64 == "1" {
		encoding := base64.URLEncoding
		if len(text)%4 != 0 {
			encoding = base64.RawURLEncoding
		}
		decoded, err := encoding.DecodeString(text)
		if err != nil {
			return false
		}
		text = string(decoded)
	}
	c.message = text
	return len(text) <= c.handler.MaxBytes
}

// compresses reports whether the client wants a compressed response, and the server
// compresses. The header is in its canonical form.
func (c *call) compresses() bool {
	return c.handler.CompressMinBytes > 0 && header(c.request.Header, "Accept-Encoding") == gzip
}

// SendHeaders implements [connect.ServerStream]. A unary response sends them with its
// message.
func (c *call) SendHeaders() error { return nil }

// Receive implements [connect.ServerStream].
func (c *call) Receive(into any) error {
	if c.received {
		return io.EOF
	}
	c.received = true
	buffer := takeBuffer()
	defer giveBuffer(buffer)
	if c.request.Method == http.MethodGet {
		buffer.WriteString(c.message)
	} else if err := c.readBody(buffer); err != nil {
		return err
	}
	size := buffer.Len()
	if err := c.codec.UnmarshalRead(c.ctx, buffer, into); err != nil {
		return connect.Errorf(connect.CodeInvalidArgument, "unmarshal message: %s", err).WithCause(err)
	}
	c.info.ReceiveStats.Size = size
	return nil
}

func (c *call) readBody(into *bytes.Buffer) error {
	n, err := into.ReadFrom(&io.LimitedReader{R: c.request.Body, N: int64(c.handler.MaxBytes) + 1})
	if err != nil {
		return c.readError(err)
	}
	if n > int64(c.handler.MaxBytes) {
		return connect.Errorf(connect.CodeResourceExhausted, "the message is larger than %d bytes", c.handler.MaxBytes)
	}
	return nil
}

// readError returns an error of reading the body with its code.
func (c *call) readError(err error) error {
	code := connect.CodeUnknown
	over := c.ctx.Err()
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		code = connect.CodeResourceExhausted
	} else if failure, ok := errors.AsType[*connect.Error](err); ok {
		return failure
	} else if errors.Is(err, context.Canceled) {
		code = connect.CodeCanceled
	} else if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(over, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	} else if errors.Is(over, context.Canceled) {
		code = connect.CodeCanceled
	}
	return connect.Errorf(code, "read message: %s", err).WithCause(err)
}

// Send implements [connect.ServerStream].
func (c *call) Send(message any) error {
	c.flush()
	buffer := takeBuffer()
	defer giveBuffer(buffer)
	if err := c.codec.MarshalWrite(c.ctx, buffer, message); err != nil {
		return connect.Errorf(connect.CodeInternal, "marshal message: %s", err).WithCause(err)
	}
	size, compressed := buffer.Len(), 0
	if c.info.ResponseEncoding == gzip && size >= c.handler.CompressMinBytes {
		smaller := takeBuffer()
		defer giveBuffer(smaller)
		if err := compress(smaller, buffer); err != nil {
			return connect.Errorf(connect.CodeInternal, "compress: %s", err).WithCause(err)
		}
		c.writer.Header()["Content-Encoding"] = gzipOnly
		buffer, compressed = smaller, smaller.Len()
	}
	c.written = true
	if _, err := c.writer.Write(buffer.Bytes()); err != nil {
		return connect.Errorf(connect.CodeCanceled, "write message: %s", err).WithCause(err)
	}
	c.info.SendStats.Size, c.info.SendStats.CompressedSize = size, compressed
	return nil
}

func compress(to io.Writer, from *bytes.Buffer) error {
	writer, err := compressor.Compress(to)
	if err != nil {
		return err
	}
	_, err = from.WriteTo(writer)
	return errors.Join(err, writer.Close())
}

// finish ends the response of a call that sent no message.
func (c *call) finish(err error) {
	c.flush()
	switch {
	case c.written || err == nil:
	case c.request.Method == http.MethodGet && connecthttp.IsNotModifiedError(err):
		c.writer.WriteHeader(http.StatusNotModified)
	default:
		_ = errorWriter.Write(c.writer, c.request, err)
	}
}

// ownHeaders are the headers that the protocol sets, and no method.
var ownHeaders = map[string]bool{
	"Content-Type": true, "Content-Length": true, "Content-Encoding": true, "Accept-Encoding": true, "Trailer": true, "Date": true,
	"Connect-Timeout-Ms": true, "Connect-Protocol-Version": true, "Connect-Content-Encoding": true, "Connect-Accept-Encoding": true,
}

// flush sets the headers of the response, once.
func (c *call) flush() {
	if c.flushed {
		return
	}
	c.flushed = true
	to := c.writer.Header()
	for name, values := range c.info.ResponseHeader().All() {
		switch {
		case ownHeaders[name]:
		case to[name] == nil:
			to[name] = slices.Clip(values)
		default:
			to[name] = append(to[name], values...)
		}
	}
	for name, values := range c.info.ResponseTrailer().All() {
		to["Trailer-"+name] = values
	}
	to["Content-Type"] = inProto
	if c.info.Codec == connect.CodecNameJSON {
		to["Content-Type"] = inJSON
	}
	if c.handler.CompressMinBytes > 0 {
		to["Accept-Encoding"] = gzipOnly
	}
	if c.request.Method == http.MethodGet {
		to["Vary"] = append(to["Vary"], "Accept-Encoding")
	}
}

// header is [http.Header.Get] for a canonical name.
func header(of http.Header, name string) string {
	if values := of[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// maxKeptBuffer is the largest buffer that is kept for later calls.
const maxKeptBuffer = 64 << 10

var messageBuffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 1024)) }}

func takeBuffer() *bytes.Buffer { return messageBuffers.Get().(*bytes.Buffer) }

func giveBuffer(buffer *bytes.Buffer) {
	if buffer.Cap() <= maxKeptBuffer {
		buffer.Reset()
		messageBuffers.Put(buffer)
	}
}
