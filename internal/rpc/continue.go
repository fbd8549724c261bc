package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"

	"gatehouse/internal/continuation"
	"gatehouse/internal/serve"
)

// A Converter is the writer of a [Frontend]'s response to a stream. It converts what is
// written to it, messages in the envelopes of the Connect protocol.
type Converter interface {
	http.ResponseWriter
	// Convert returns a writer that converts in the same way, for the rest of the body.
	Convert(rest io.Writer) io.Writer
}

// continueStreams offers streams to continue after their methods have returned (package
// continuation): those over HTTP/1, whose connection is theirs alone. Of the chain, the log
// and the metrics know when such a stream has ended; a span ends when the method returns.
func continueStreams(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 || !canTakeOver(w) || strings.HasPrefix(contentType(r), "application/grpc") && !strings.HasPrefix(contentType(r), "application/grpc-web") {
			next.ServeHTTP(w, r)
			return
		}
		offer := &continuation.Offer{Accepted: func() { w.Header().Set("Connection", "close") }}
		next.ServeHTTP(&continuingWriter{w, offer}, r.WithContext(continuation.With(r.Context(), offer)))
		if offer.Stream() != nil {
			takeOver(w, r, offer, panicLog{logger, r.URL.Path})
		}
	})
}

// takeOver lets a stream continue over its connection.
func takeOver(w http.ResponseWriter, r *http.Request, offer *continuation.Offer, panics panicLog) {
	stream := offer.Stream()
	connection, err := serve.TakeOver(w, r, stream.Stop)
	if err != nil { // the client has gone
		stream.Start(&enveloped{offer: offer, panics: panics, out: failingWriter{err}})
		stream.Lost()
		return
	}
	transport := &enveloped{offer: offer, panics: panics, connection: connection, out: connection, contentType: contentType(r), codec: connectproto.NewBinaryCodec()}
	if strings.HasSuffix(transport.contentType, "+json") {
		transport.codec = newJSONCodec()
	}
	if converter, ok := w.(Converter); ok {
		transport.out = converter.Convert(connection)
	}
	connection.Watch(func() { panics.recovering(stream.Lost) }) // before the stream can end, with which the server stops waiting
	stream.Start(transport)
}

func canTakeOver(w http.ResponseWriter) bool {
	for {
		switch writer := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = writer.Unwrap()
		default:
			return false
		}
	}
}

// continuingWriter discards the end of a stream that continues.
type continuingWriter struct {
	http.ResponseWriter
	offer *continuation.Offer
}

func (w *continuingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *continuingWriter) Write(p []byte) (int, error) {
	if w.offer.Stream() != nil {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Flush implements [http.Flusher].
func (w *continuingWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// enveloped sends the messages of a stream that continues, in the envelopes that Connect
// and gRPC-Web have in common.
type enveloped struct {
	offer       *continuation.Offer
	panics      panicLog
	connection  *serve.TakenOver // nil if it could not be taken over
	out         io.Writer
	contentType string
	codec       connect.Codec
}

const envelopePrefix = 5 // flags and a length

// Send implements [continuation.Transport].
func (t *enveloped) Send(message proto.Message) error {
	var envelope bytes.Buffer
	envelope.Write(make([]byte, envelopePrefix))
	if err := t.codec.MarshalWrite(context.Background(), &envelope, message); err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	binary.BigEndian.PutUint32(envelope.Bytes()[1:], uint32(envelope.Len()-envelopePrefix)) //nolint:gosec // our own, and short
	if _, err := t.out.Write(envelope.Bytes()); err != nil {
		return fmt.Errorf("%w: %w", context.Canceled, err) // as for a client that has gone
	}
	return nil
}

// Interrupt implements [continuation.Transport].
func (t *enveloped) Interrupt() {
	if t.connection != nil {
		t.connection.Interrupt()
	}
}

// End implements [continuation.Transport].
func (t *enveloped) End(err error) { t.panics.recovering(func() { t.end(err) }) }

func (t *enveloped) end(err error) {
	public := publicError(context.Background(), err)
	if t.connection == nil {
		t.offer.End(public)
		return
	}
	gone := public.Code() == connect.CodeCanceled
	// The server waits for it, and the process may end then: after the call is logged.
	defer t.connection.End(gone)
	defer t.offer.End(public)
	if !gone {
		t.connection.LimitLast()
		_, _ = t.out.Write(t.lastEnvelope(public))
	}
}

// panicLog logs panics of a stream that has continued, for which no interceptor looks.
type panicLog struct {
	logger *slog.Logger
	method string
}

func (l panicLog) recovering(f func()) {
	if err := Recovering(func() error { f(); return nil }); err != nil {
		l.logger.LogAttrs(context.Background(), slog.LevelError, "stream panicked after its method", slog.String("method", l.method), slog.String("cause", err.Error()))
	}
}

const trailersFlag = 0x80 // of gRPC-Web

// lastEnvelope returns the envelope that ends a stream with an error.
func (t *enveloped) lastEnvelope(public *connect.Error) []byte {
	request := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {t.contentType}}}
	response := bodyWriter{new(bytes.Buffer), http.Header{}}
	_ = errorWriter.Write(response, request, public)
	if response.Len() > 0 {
		return response.Bytes()
	}
	// In gRPC-Web, an error without messages is in the header. After messages, the same
	// fields are in the last envelope.
	var fields bytes.Buffer
	for name, values := range response.header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "grpc-") {
			fmt.Fprintf(&fields, "%s: %s\r\n", name, values[0])
		}
	}
	envelope := binary.BigEndian.AppendUint32([]byte{trailersFlag}, uint32(fields.Len())) //nolint:gosec // short
	return append(envelope, fields.Bytes()...)
}

// bodyWriter holds a response.
type bodyWriter struct {
	*bytes.Buffer
	header http.Header
}

func (w bodyWriter) Header() http.Header { return w.header }
func (bodyWriter) WriteHeader(int)       {}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
