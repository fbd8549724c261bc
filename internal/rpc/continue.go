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
// continuation), where the server lets their responses go on. Of the chain, the log and the
// metrics know when such a stream has ended; a span ends when the method returns.
func continueStreams(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !serve.CanTakeOver(w, r) || r.ProtoMajor == 1 && isGRPC(contentType(r)) {
			next.ServeHTTP(w, r)
			return
		}
		offer := &continuation.Offer{Accepted: func() {
			if r.ProtoMajor == 1 {
				w.Header().Set("Connection", "close")
			}
		}}
		next.ServeHTTP(&continuingWriter{w, offer}, r.WithContext(continuation.With(r.Context(), offer)))
		if offer.Stream() != nil {
			takeOver(w, r, offer, panicLog{logger, r.URL.Path})
		}
	})
}

// isGRPC reports whether a content type is gRPC's, whose end is in trailers. That of
// gRPC-Web is not.
func isGRPC(contentType string) bool {
	return strings.HasPrefix(contentType, "application/grpc") && !strings.HasPrefix(contentType, "application/grpc-web")
}

// takeOver lets a stream continue.
func takeOver(w http.ResponseWriter, r *http.Request, offer *continuation.Offer, panics panicLog) {
	stream := offer.Stream()
	taken, err := serve.TakeOver(w, r, stream.Stop)
	if err != nil { // the client has gone
		stream.Start(&enveloped{offer: offer, panics: panics, out: failingWriter{err}})
		stream.Lost()
		return
	}
	transport := &enveloped{offer: offer, panics: panics, taken: taken, out: taken, contentType: contentType(r), codec: connectproto.NewBinaryCodec()}
	if strings.HasSuffix(transport.contentType, "+json") {
		transport.codec = newJSONCodec()
	}
	if converter, ok := w.(Converter); ok {
		transport.out = converter.Convert(taken)
	}
	taken.Watch(func() { panics.recovering(stream.Lost) }) // before the stream can end, with which the server stops waiting
	stream.Start(transport)
}

// continuingWriter discards the end of a stream that continues.
type continuingWriter struct {
	http.ResponseWriter
	offer *continuation.Offer
}

func (w *continuingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Header discards the trailers of gRPC.
func (w *continuingWriter) Header() http.Header {
	if w.offer.Stream() != nil {
		return http.Header{}
	}
	return w.ResponseWriter.Header()
}

func (w *continuingWriter) Write(p []byte) (int, error) {
	if w.offer.Stream() != nil {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Flush implements [http.Flusher].
func (w *continuingWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// enveloped sends the messages of a stream that continues, in the envelopes that all
// protocols have in common.
type enveloped struct {
	offer       *continuation.Offer
	panics      panicLog
	taken       *serve.TakenOver // nil if it could not be taken over
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
	if t.taken != nil {
		t.taken.Interrupt()
	}
}

// End implements [continuation.Transport].
func (t *enveloped) End(err error) { t.panics.recovering(func() { t.end(err) }) }

func (t *enveloped) end(err error) {
	public := publicError(context.Background(), err)
	if t.taken == nil {
		t.offer.End(public)
		return
	}
	gone := public.Code() == connect.CodeCanceled
	// The server waits for it, and the process may end then: after the call is logged.
	defer t.taken.End(gone)
	defer t.offer.End(public)
	if !gone {
		t.taken.LimitLast()
		t.sendEnd(public)
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

// sendEnd sends the error that ends a stream.
func (t *enveloped) sendEnd(public *connect.Error) {
	request := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {t.contentType}}}
	response := bodyWriter{new(bytes.Buffer), http.Header{}}
	_ = errorWriter.Write(response, request, public)
	if response.Len() > 0 {
		_, _ = t.out.Write(response.Bytes())
		return
	}
	// An error without messages is in the header. After messages, the same fields are in
	// trailers, and in gRPC-Web in the last envelope.
	var fields bytes.Buffer
	for name, values := range response.header {
		lower := strings.ToLower(name)
		switch {
		case !strings.HasPrefix(lower, "grpc-"):
		case isGRPC(t.contentType):
			t.taken.SetTrailer(name, values[0])
		default:
			fmt.Fprintf(&fields, "%s: %s\r\n", lower, values[0])
		}
	}
	if fields.Len() > 0 {
		envelope := binary.BigEndian.AppendUint32([]byte{trailersFlag}, uint32(fields.Len())) //nolint:gosec // short
		_, _ = t.out.Write(append(envelope, fields.Bytes()...))
	}
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
