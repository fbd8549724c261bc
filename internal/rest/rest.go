package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/vanguard"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// handler serves the REST paths of a mux's methods. vanguard finds the method by the
// path and builds its message from path, query and body. It does not see the answer,
// which it would rewrite: successes to 200, errors to numbers, a 304 to 500.
type handler struct {
	mux        *rpc.Mux
	transcoder *vanguard.Transcoder
	methods    map[string]*method // by procedure
	streams    map[string]*method // by path
}

type method struct {
	policy *policy.Method
	// parameters are the fields that a query may set, by both of their names.
	parameters map[string]protoreflect.FieldDescriptor
}

// call is a request on its way through vanguard.
type call struct {
	writer  http.ResponseWriter
	request *http.Request // as it came
	body    *sourceBody
	reached bool // it has a method
	status  int  // of its answer
	// frontend is what the server knows of the call.
	frontend rpc.Frontend
}

// statusOf returns the HTTP status of the answer; 0 for that of the Connect protocol.
func (c *call) statusOf(failure *connect.Error) int {
	switch {
	case failure == nil:
		return c.status
	case fault.Reason(failure) == fault.ReasonTooLarge:
		return http.StatusRequestEntityTooLarge // 429 is for callers who call too often
	default:
		return 0
	}
}

type callKey struct{}

// Handle serves the methods of a mux at their REST paths, all of which begin with
// prefix, such as "/api/". It panics when the paths of a schema cannot be served.
func Handle(mux *rpc.Mux, prefix string) {
	front := &handler{mux: mux, methods: map[string]*method{}, streams: map[string]*method{}}
	var services []*vanguard.Service
	seen := map[protoreflect.FullName]bool{}
	for _, p := range mux.Methods() {
		schema, ok := p.Descriptor.Parent().(protoreflect.ServiceDescriptor)
		if ok && !seen[schema.FullName()] {
			seen[schema.FullName()] = true
			services = append(services, vanguard.NewServiceWithSchema(schema, http.HandlerFunc(front.serveCall)))
		}
		rule := proto.GetExtension(p.Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		path := pathOf(rule)
		streams := p.Streams()
		if !strings.HasPrefix(path, prefix) || streams && !canStream(p, rule) || len(rule.GetAdditionalBindings()) > 0 {
			panic(fmt.Sprintf("rest: %s: %q can't be its REST path: it begins with %s, and that of a stream is a GET without variables", p.Procedure, path, prefix))
		}
		m := &method{policy: p, parameters: parametersOf(p.Descriptor.Input(), path, rule.GetBody())}
		if streams {
			front.streams[path] = m
			mux.StreamsAt(path)
			continue
		}
		front.methods[p.Procedure] = m
	}
	var err error
	front.transcoder, err = vanguard.NewTranscoder(services,
		vanguard.WithCodec(strictCodec), vanguard.WithCodec(innerCodec),
		vanguard.WithCompression("gzip", newGzipWriter, newGzipReader),
		vanguard.WithDefaultServiceOptions(
			vanguard.WithTargetProtocols(vanguard.ProtocolConnect), vanguard.WithTargetCodecs(innerCodecName),
			vanguard.WithNoTargetCompression(), vanguard.WithMaxMessageBufferBytes(rpc.MaxMessageBytes)))
	if err != nil {
		panic(fmt.Sprintf("rest: %v", err))
	}
	mux.HandlePrefix(prefix, front)
}

func pathOf(rule *annotations.HttpRule) string {
	for _, path := range []string{rule.GetGet(), rule.GetPut(), rule.GetPost(), rule.GetDelete(), rule.GetPatch(), rule.GetCustom().GetPath()} {
		if path != "" {
			return path
		}
	}
	return ""
}

var pathVariable = regexp.MustCompile(`\{([^}=.]+)`)

// parametersOf are the fields that neither the path nor the body sets.
func parametersOf(message protoreflect.MessageDescriptor, path, body string) map[string]protoreflect.FieldDescriptor {
	parameters := map[string]protoreflect.FieldDescriptor{}
	if body == "*" {
		return parameters
	}
	set := []string{body}
	for _, match := range pathVariable.FindAllStringSubmatch(path, -1) {
		set = append(set, match[1])
	}
	for i := range message.Fields().Len() {
		if field := message.Fields().Get(i); !slices.Contains(set, string(field.Name())) {
			parameters[string(field.Name())], parameters[field.JSONName()] = field, field
		}
	}
	return parameters
}

// ServeHTTP implements [http.Handler].
func (f *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m := f.streams[r.URL.Path]; m != nil {
		f.serveStream(w, r, m)
		return
	}
	call := &call{writer: w, request: r, body: &sourceBody{ReadCloser: r.Body}}
	call.frontend = rpc.Frontend{Protocol: "rest", Status: call.statusOf}
	routed := r.Clone(rpc.WithFrontend(context.WithValue(r.Context(), callKey{}, call), &call.frontend))
	routed.Body = call.body
	routed.URL.RawQuery = normalizeQuery(r.URL.RawQuery)
	if r.Method == http.MethodHead {
		routed.Method = http.MethodGet
	}
	// By these vanguard would take the request for one of another protocol, or
	// refuse it in words of its own.
	for _, name := range []string{"Connect-Protocol-Version", "X-Server-Timeout"} {
		routed.Header.Del(name)
	}
	routed.Header.Set("Content-Type", "application/json")
	routed.Header.Del("Content-Encoding")
	if rpc.ContentCoding(r.Header.Values("Content-Encoding")) == rpc.CodingGzip {
		routed.Header.Set("Content-Encoding", rpc.CodingGzip)
	}
	lost := &discardWriter{header: http.Header{}}
	f.transcoder.ServeHTTP(lost, routed)
	switch {
	case call.reached:
	case lost.status == http.StatusMethodNotAllowed:
		f.otherMethod(w, r, lost.header.Get("Allow"))
	default:
		f.mux.RefusePath(w, r, "")
	}
}

// otherMethod answers at a path that has other methods than the request's.
func (f *handler) otherMethod(w http.ResponseWriter, r *http.Request, allow string) {
	methods := append(strings.Split(allow, ","), http.MethodOptions)
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	allow = strings.Join(methods, ", ")
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", allow)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	f.mux.RefusePath(w, r, allow)
}

// serveCall makes the Connect call. r is what vanguard built from the request.
func (f *handler) serveCall(_ http.ResponseWriter, r *http.Request) {
	call, _ := r.Context().Value(callKey{}).(*call)
	method := f.methods[r.URL.Path]
	call.reached = true
	r.Header.Set("Content-Type", "application/json")
	if no := rpc.CheckJSONBody(call.request); no != nil {
		f.mux.Refuse(call.writer, r, no)
		return
	}
	body := &body{call: call, method: method, transcoded: r.Body}
	r.Body, r.ContentLength = body, -1
	if method.policy.ReadsOnly() && (call.request.Method == http.MethodGet || call.request.Method == http.MethodHead) && body.prepare() == nil {
		// Only a Connect GET has an ETag. What can't be read stays a POST, to be
		// refused where the chain says.
		r.Method = http.MethodGet
		r.URL.RawQuery = url.Values{"connect": {"v1"}, "encoding": {"json"}, "message": {string(body.text)}}.Encode()
		r.Header.Del("Content-Type")
		r.Body, r.ContentLength = http.NoBody, 0
	}
	f.mux.ServeHTTP(&writer{ResponseWriter: call.writer, call: call, p: method.policy, method: call.request.Method}, r)
}

// discardWriter takes the answers that vanguard writes by itself.
type discardWriter struct {
	header http.Header
	status int
}

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *discardWriter) Flush()                      {}

func (w *discardWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// writer gives a success its REST status.
type writer struct {
	http.ResponseWriter
	call   *call
	p      *policy.Method
	method string
	begun  bool
	empty  bool // the answer has no body
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	w.begun = true
	header := w.Header()
	switch {
	case status == http.StatusTooManyRequests && fault.Reason(w.call.frontend.Failure) == fault.ReasonTooLarge:
		status = http.StatusRequestEntityTooLarge // 429 is about calling too often
	case status != http.StatusOK:
	case w.method == http.MethodDelete:
		status, w.empty = http.StatusNoContent, true
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Length"} {
			header.Del(name)
		}
	case w.p.Created != nil && header.Get("Location") != "":
		status = http.StatusCreated
	case w.p.Created != nil:
		status = http.StatusAccepted
	}
	w.call.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.empty {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// sourceBody remembers an error of reading a body, as against one in its content.
type sourceBody struct {
	io.ReadCloser
	err error
}

func (b *sourceBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as readers return it
		b.err = err
	}
	return n, err
}
