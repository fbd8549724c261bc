package rest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// A method that streams its answers is served at its REST path as server-sent events
// (HTML Standard, section 9.2). vanguard serves no streams, so that this file makes the
// Connect call: each message is an event with the message in JSON as its data. A message
// with a cursor gives it to the event as its ID, and the header Last-Event-ID, with which
// a browser resumes, sets the cursor of the request.

const (
	cursorField = "cursor"
	// prefixSize is that of an envelope of the Connect protocol: flags and a length.
	prefixSize = 5
	lastFlag   = 2
)

// canStream reports whether a method can be served as server-sent events.
func canStream(p *policy.Method, rule *annotations.HttpRule) bool {
	return !p.ClientStreams() && p.ReadsOnly() && rule.GetGet() != "" && !strings.Contains(rule.GetGet(), "{")
}

func (f *handler) serveStream(w http.ResponseWriter, r *http.Request, m *method) {
	if r.Method != http.MethodGet {
		if r.Method == http.MethodOptions {
			w.Header().Set("Allow", "GET, OPTIONS")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		f.mux.RefusePath(w, r, "GET, OPTIONS")
		return
	}
	frontend := &rpc.Frontend{Protocol: "sse"}
	frontend.Status = (&call{frontend: *frontend}).statusOf
	call := r.Clone(rpc.WithFrontend(r.Context(), frontend))
	call.Method, call.URL = http.MethodPost, &url.URL{Path: m.policy.Procedure}
	for _, name := range []string{"Connect-Accept-Encoding", "Connect-Content-Encoding", "Connect-Timeout-Ms", "Content-Encoding", "Content-Length", "Last-Event-Id"} {
		call.Header.Del(name)
	}
	call.Header.Set("Content-Type", "application/connect+json")
	call.Header.Set("Connect-Protocol-Version", "1")
	call.ContentLength = -1
	call.Body = &streamBody{method: m, request: r}
	events := &eventWriter{ResponseWriter: w, request: r, frontend: frontend}
	f.mux.ServeHTTP(events, call)
}

// streamBody is the request in the envelope of a stream. It is built when it is read,
// which is after the caller is authenticated. It ends when the body of the request has, of
// which nothing is used: the limit of its reading ends with it.
type streamBody struct {
	method  *method
	request *http.Request
	reader  *bytes.Reader
}

func (b *streamBody) Close() error { return nil }

func (b *streamBody) Read(p []byte) (int, error) {
	if b.reader == nil {
		message, err := b.method.streamRequest(b.request)
		if err != nil {
			return 0, err
		}
		envelope := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) //nolint:gosec // the URL's length is bounded
		b.reader = bytes.NewReader(append(envelope, message...))
	}
	n, err := b.reader.Read(p)
	if err != nil && b.request.Body != nil {
		if _, err := io.Copy(io.Discard, b.request.Body); err != nil {
			return 0, err //nolint:wrapcheck // as a Reader
		}
	}
	return n, err
}

// streamRequest returns the message of a request in JSON.
func (m *method) streamRequest(r *http.Request) ([]byte, error) {
	if err := m.checkQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	message := m.policy.NewRequest().ProtoReflect()
	for name, values := range r.URL.Query() {
		field := m.parameters[name]
		if field.Kind() != protoreflect.StringKind || field.IsList() {
			return nil, decodeError("unknown field " + strconv.Quote(name))
		}
		message.Set(field, protoreflect.ValueOfString(values[0]))
	}
	if id, field := r.Header.Get("Last-Event-Id"), m.parameters[cursorField]; id != "" && field != nil {
		message.Set(field, protoreflect.ValueOfString(id))
	}
	return protojson.Marshal(message.Interface())
}

// eventWriter turns the envelopes of a stream into events. It sends no header before the
// first message: an error before that has the status of its code.
type eventWriter struct {
	http.ResponseWriter
	request  *http.Request
	frontend *rpc.Frontend
	begun    bool
	refused  bool // by a plain response, instead of a stream
	open     envelopes
}

func (w *eventWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *eventWriter) WriteHeader(status int) {
	if status != http.StatusOK {
		w.refused = true
		w.ResponseWriter.WriteHeader(status)
	}
}

// Flush does nothing: each event is flushed when it is complete.
func (w *eventWriter) Flush() {}

// FlushError is Flush for [http.ResponseController].
func (w *eventWriter) FlushError() error { return nil }

func (w *eventWriter) Write(p []byte) (int, error) {
	if w.refused {
		return w.ResponseWriter.Write(p)
	}
	return w.open.split(p, w.envelope)
}

func (w *eventWriter) envelope(flags byte, message []byte) error {
	if flags&lastFlag != 0 {
		if !w.begun {
			w.refuse()
		}
		return nil // an error of an open stream was an event
	}
	if !w.begun {
		w.begin()
	}
	if err := writeEvent(w.ResponseWriter, message); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush() //nolint:wrapcheck // as a ResponseWriter
}

// Convert implements [rpc.Converter].
func (w *eventWriter) Convert(rest io.Writer) io.Writer { return &events{rest: rest} }

// events turns envelopes into events, for the rest of a body.
type events struct {
	rest io.Writer
	open envelopes
}

func (e *events) Write(p []byte) (int, error) {
	return e.open.split(p, func(flags byte, message []byte) error {
		if flags&lastFlag != 0 {
			return nil // see eventWriter
		}
		return writeEvent(e.rest, message)
	})
}

// envelopes holds the beginning of an envelope.
type envelopes struct{ pending []byte }

// split calls take with each whole envelope.
func (e *envelopes) split(p []byte, take func(flags byte, message []byte) error) (int, error) {
	rest := append(e.pending, p...)
	for len(rest) >= prefixSize {
		size := prefixSize + int(binary.BigEndian.Uint32(rest[1:]))
		if len(rest) < size {
			break
		}
		if err := take(rest[0], rest[prefixSize:size]); err != nil {
			return 0, err
		}
		rest = rest[size:]
	}
	e.pending = bytes.Clone(rest)
	if len(rest) == 0 {
		e.pending = nil // a stream that waits holds no buffer
	}
	return len(p), nil
}

// writeEvent writes an event, in one call.
func writeEvent(w io.Writer, message []byte) error {
	var about struct {
		Cursor string
		Ended  struct{ RetryDelay string }
	}
	if err := json.Unmarshal(message, &about); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	var event bytes.Buffer
	if about.Cursor != "" {
		fmt.Fprintf(&event, "id: %s\n", about.Cursor)
	}
	if retry, err := time.ParseDuration(about.Ended.RetryDelay); err == nil {
		fmt.Fprintf(&event, "retry: %d\n", retry.Milliseconds())
	}
	event.WriteString("data: ")
	event.Write(message) // protojson writes one line
	event.WriteString("\n\n")
	_, err := w.Write(event.Bytes())
	return err //nolint:wrapcheck // as a Writer
}

func (w *eventWriter) begin() {
	w.begun = true
	w.plainHeader()
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would hold the events back
	w.ResponseWriter.WriteHeader(http.StatusOK)
}

// plainHeader removes what belongs to the Connect protocol.
func (w *eventWriter) plainHeader() {
	for _, name := range []string{"Connect-Accept-Encoding", "Connect-Content-Encoding", "Content-Type"} {
		w.Header().Del(name)
	}
}

func (w *eventWriter) refuse() {
	w.begun = true
	w.plainHeader()
	if w.frontend.Failure == nil {
		return
	}
	plain := w.request.Clone(w.request.Context())
	plain.Header.Set("Content-Type", "application/json")
	_ = connecthttp.NewErrorWriter().Write(w.ResponseWriter, plain, w.frontend.Failure)
}

var _ io.ReadCloser = (*streamBody)(nil)
