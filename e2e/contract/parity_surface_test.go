package contract

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"gatehouse/e2e/harness"
	"gatehouse/internal/fault"
)

// surface is one way to call the gateway, with what it can send.
type surface struct {
	name string
	// text says that it sends a body of any text, wire that it sends bytes that no
	// message has, and unknown that it calls methods that its schema lacks. The
	// others refuse these by themselves.
	text, wire, unknown bool
	// reads says that it calls only what has no side effects.
	reads bool
	// at is how many calls may be under way at once.
	at   int
	open func(testing.TB, string) caller
}

// caller calls the gateway on a surface.
type caller interface {
	call(context.Context, *wireCall) (*outcome, error)
}

// wireCall is one call as all surfaces understand it.
type wireCall struct {
	procedure string
	method    protoreflect.MethodDescriptor // nil where there is none
	text      string                        // the request as JSON
	bytes     []byte                        // the request on the wire, instead
	header    map[string]string
}

// outcome is what came of a call: a message, or an error.
type outcome struct {
	message proto.Message
	failure *failure
	status  int         // of HTTP; 0 where the surface shows none
	header  http.Header // nil where the surface shows none
}

// failure is an error with its details.
type failure struct {
	code    string
	message string
	details []proto.Message
}

// The surfaces that need nothing but Go.
var surfaces = []surface{
	{name: "connect json", text: true, unknown: true, open: func(_ testing.TB, url string) caller { return plainJSON{url, http.MethodPost} }},
	{name: "connect get", text: true, reads: true, open: func(_ testing.TB, url string) caller { return plainJSON{url, http.MethodGet} }},
	{name: "rest", text: true, open: func(_ testing.TB, url string) caller { return restJSON{url} }},
	{name: "connect proto", wire: true, unknown: true, open: func(_ testing.TB, url string) caller { return connectClient{url: url} }},
	{name: "grpc", wire: true, unknown: true, open: openGRPC},
	{name: "grpc-web", wire: true, unknown: true, open: func(_ testing.TB, url string) caller {
		return connectClient{url: url, hasNoStatus: true, options: []connecthttp.Option{connecthttp.WithGRPCWeb()}}
	}},
	{name: "buf curl", at: 3, open: func(t testing.TB, url string) caller { return bufCurl{tool(t, "buf"), url, t.TempDir()} }},
	{name: "grpcurl", at: 3, open: func(t testing.TB, url string) caller { return grpcurl{tool(t, "grpcurl"), url} }},
}

// can reports whether the surface can make the call.
func (s surface) can(c *wireCall, raw bool) bool {
	switch {
	case c.method == nil && !s.unknown,
		raw && !s.text,
		c.bytes != nil && !s.wire,
		s.reads && !readsOnly(c.method):
		return false
	}
	return true
}

func readsOnly(method protoreflect.MethodDescriptor) bool {
	if method == nil {
		return false
	}
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// request is the call's message. Where bytes are given, it is one that is
// written as exactly those.
func (c *wireCall) request() (proto.Message, error) {
	if c.bytes != nil || c.method == nil {
		message := &emptypb.Empty{}
		message.ProtoReflect().SetUnknown(c.bytes)
		return message, nil
	}
	message, err := newMessage(c.method.Input())
	if err == nil {
		err = protojson.Unmarshal([]byte(c.text), message)
	}
	return message, err
}

func (c *wireCall) response() (proto.Message, error) {
	if c.method == nil {
		return &emptypb.Empty{}, nil
	}
	return newMessage(c.method.Output())
}

func newMessage(descriptor protoreflect.MessageDescriptor) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		return nil, err
	}
	return kind.New().Interface(), nil
}

// answer reads a message of the call's response from JSON.
func (c *wireCall) answer(text []byte) (proto.Message, error) {
	message, err := c.response()
	if err == nil {
		err = protojson.Unmarshal(text, message)
	}
	if err != nil {
		return nil, fmt.Errorf("the answer is %.300q: %w", text, err)
	}
	return message, nil
}

// connectJSON is an error as the Connect protocol writes it.
type connectJSON struct {
	Code, Message string
	Details       []struct{ Type, Value string }
}

func readConnectJSON(text []byte) (*failure, error) {
	var read connectJSON
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("the error is %.300q: %w", text, err)
	}
	f := &failure{code: read.Code, message: read.Message}
	for _, detail := range read.Details {
		value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(detail.Value, "="))
		if err != nil {
			return nil, fmt.Errorf("a detail is %q: %w", detail.Value, err)
		}
		if err := f.add(detail.Type, value); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *failure) add(name string, value []byte) error {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return fmt.Errorf("a detail of type %q: %w", name, err)
	}
	message := kind.New().Interface()
	f.details = append(f.details, message)
	return proto.Unmarshal(value, message)
}

// plainJSON speaks Connect as plain curl does: JSON in the body of a POST, or in
// the query of a GET.
type plainJSON struct{ url, method string }

func (p plainJSON) call(ctx context.Context, c *wireCall) (*outcome, error) {
	address, body := p.url+c.procedure, c.text
	if p.method == http.MethodGet {
		address += "?" + url.Values{"connect": {"v1"}, "encoding": {"json"}, "message": {c.text}}.Encode()
		body = ""
	}
	request, err := http.NewRequestWithContext(ctx, p.method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if p.method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	response, text, err := c.exchange(request)
	if err != nil {
		return nil, err
	}
	o := &outcome{status: response.StatusCode, header: response.Header}
	if response.StatusCode == http.StatusOK {
		o.message, err = c.answer(text)
	} else {
		o.failure, err = readConnectJSON(text)
	}
	return o, err
}

// exchange sends a request with the call's headers over HTTP/1.1.
func (c *wireCall) exchange(request *http.Request) (*http.Response, []byte, error) {
	for name, value := range c.header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, text, err
}

// restJSON calls a method at its google.api.http path: what the path and the body
// don't take of the request goes into the query.
type restJSON struct{ url string }

func (p restJSON) call(ctx context.Context, c *wireCall) (*outcome, error) {
	rule, _ := proto.GetExtension(c.method.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil, fmt.Errorf("%s has no path", c.procedure)
	}
	method, path := methodAndPath(rule)
	var fields map[string]any
	body := c.text // as it is, if it can't be parsed
	if err := json.Unmarshal([]byte(c.text), &fields); err == nil {
		path = pathVariable.ReplaceAllStringFunc(path, func(found string) string {
			return url.PathEscape(fmt.Sprint(takeField(fields, strings.Split(strings.Trim(found, "{}"), "."))))
		})
		if rule.GetBody() != "*" {
			field := takeField(fields, []string{rule.GetBody()})
			if query := queryOf("", fields); len(query) > 0 {
				path += "?" + query.Encode()
			}
			written, err := json.Marshal(field)
			if err != nil {
				return nil, err
			}
			body = string(written)
		} else if pathVariable.MatchString(rule.String()) {
			written, err := json.Marshal(fields)
			if err != nil {
				return nil, err
			}
			body = string(written)
		}
	}
	var sent io.Reader
	if rule.GetBody() != "" {
		sent = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, p.url+path, sent)
	if err != nil {
		return nil, err
	}
	if sent != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, text, err := c.exchange(request)
	if err != nil {
		return nil, err
	}
	o := &outcome{status: response.StatusCode, header: response.Header}
	switch {
	case response.StatusCode == http.StatusNoContent && len(text) == 0:
		o.message, err = c.response()
	case response.StatusCode < 300:
		o.message, err = c.answer(text)
	default:
		o.failure, err = readConnectJSON(text)
	}
	return o, err
}

var pathVariable = regexp.MustCompile(`\{[a-z_.]+\}`)

func methodAndPath(rule *annotations.HttpRule) (method, path string) {
	switch rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, rule.GetGet()
	case *annotations.HttpRule_Post:
		return http.MethodPost, rule.GetPost()
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, rule.GetPatch()
	case *annotations.HttpRule_Put:
		return http.MethodPut, rule.GetPut()
	default:
		return http.MethodDelete, rule.GetDelete()
	}
}

// takeField takes a field out of a request; an empty text where there is none.
func takeField(fields map[string]any, path []string) any {
	if len(path) > 1 {
		inner, _ := fields[path[0]].(map[string]any)
		return takeField(inner, path[1:])
	}
	name := jsonName(path[0])
	value, ok := fields[name]
	delete(fields, name)
	if !ok {
		return ""
	}
	return value
}

// jsonName is a field's name in JSON.
func jsonName(name string) string {
	first, others, _ := strings.Cut(name, "_")
	for part := range strings.SplitSeq(others, "_") {
		if part != "" {
			first += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return first
}

func queryOf(prefix string, fields map[string]any) url.Values {
	query := url.Values{}
	for name, value := range fields {
		switch value := value.(type) {
		case map[string]any:
			maps.Copy(query, queryOf(prefix+name+".", value))
		case []any:
			for _, item := range value {
				query.Add(prefix+name, fmt.Sprint(item))
			}
		case float64:
			query.Set(prefix+name, strconv.FormatFloat(value, 'f', -1, 64))
		default:
			query.Set(prefix+name, fmt.Sprint(value))
		}
	}
	return query
}

// connectClient is the client of connect-go.
type connectClient struct {
	url         string
	options     []connecthttp.Option
	hasNoStatus bool
}

func (t connectClient) call(ctx context.Context, c *wireCall) (*outcome, error) {
	request, err := c.request()
	if err != nil {
		return nil, err
	}
	o := &outcome{}
	if o.message, err = c.response(); err != nil {
		return nil, err
	}
	seen := &seeing{over: harness.H2C.Transport}
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: seen}, t.url, t.options...))
	ctx, info := connect.NewClientContext(ctx)
	for name, value := range c.header {
		info.RequestHeader().Set(name, value)
	}
	err = client.CallUnary(ctx, connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: c.procedure}, request, o.message)
	if seen.response != nil {
		o.header = seen.response.Header
		if !t.hasNoStatus {
			o.status = seen.response.StatusCode
		}
	}
	if err == nil {
		return o, nil
	}
	reported, ok := errors.AsType[*connect.Error](err)
	if !ok || !reported.IsRemote() {
		return nil, fmt.Errorf("the client failed by itself: %w", err)
	}
	o.message, o.failure = nil, &failure{code: reported.Code().String(), message: reported.Message()}
	for _, detail := range reported.Details() {
		if err := o.failure.add(detail.Type, detail.Value); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// seeing keeps the response that it saw.
type seeing struct {
	over     http.RoundTripper
	response *http.Response
}

func (s *seeing) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := s.over.RoundTrip(r)
	s.response = response
	return response, err
}

// grpcGo is gRPC's own client.
type grpcGo struct{ conn *grpc.ClientConn }

func openGRPC(t testing.TB, url string) caller {
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpcGo{conn}
}

func (g grpcGo) call(ctx context.Context, c *wireCall) (*outcome, error) {
	request, err := c.request()
	if err != nil {
		return nil, err
	}
	o := &outcome{header: http.Header{}}
	if o.message, err = c.response(); err != nil {
		return nil, err
	}
	for name, value := range c.header {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	var header, trailer metadata.MD
	err = g.conn.Invoke(ctx, c.procedure, request, o.message, grpc.Header(&header), grpc.Trailer(&trailer))
	for _, reported := range []metadata.MD{header, trailer} {
		for name, values := range reported {
			o.header[http.CanonicalHeaderKey(name)] = values
		}
	}
	if err == nil {
		return o, nil
	}
	reported, _ := status.FromError(err)
	o.message = nil
	o.failure, err = readStatus(reported.Proto())
	return o, err
}

func readStatus(reported *rpcstatus.Status) (*failure, error) {
	f := &failure{code: connect.Code(reported.GetCode()).String(), message: reported.GetMessage()}
	for _, detail := range reported.GetDetails() {
		if err := f.add(string(detail.MessageName()), detail.GetValue()); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// tool builds a program of the module of tools, where that hasn't been done yet,
// and returns its path.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tools/go.mod", "-n", name).Output()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	return strings.TrimSpace(string(path))
}

// run runs a program that is given the call's text and returns what it writes.
func (c *wireCall) run(ctx context.Context, env []string, program string, args ...string) (stdout, stderr []byte, failed bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(c.header)) {
		args = append([]string{args[0], "-H", name + ": " + c.header[name]}, args[1:]...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(append(os.Environ(), "GOGC=off"), env...) // they end before a collection pays
	cmd.Stdin = strings.NewReader(c.text)
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	err = cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.Bytes(), fault.Bytes(), true, nil
	}
	return out.Bytes(), fault.Bytes(), false, err
}

// bufCurl is the command of that name, which asks the gateway for its schema.
type bufCurl struct{ program, url, cache string }

func (b bufCurl) call(ctx context.Context, c *wireCall) (*outcome, error) {
	stdout, stderr, failed, err := c.run(ctx, []string{"BUF_CACHE_DIR=" + b.cache}, b.program, "curl", "-d", "@-", b.url+c.procedure)
	if err != nil {
		return nil, err
	}
	o := &outcome{}
	if failed {
		o.failure, err = readConnectJSON(stderr)
	} else {
		o.message, err = c.answer(stdout)
	}
	return o, err
}

// grpcurl is the command of that name, which asks the gateway for its schema.
type grpcurl struct{ program, url string }

func (g grpcurl) call(ctx context.Context, c *wireCall) (*outcome, error) {
	c, err := c.withMasksAsMessages()
	if err != nil {
		return nil, err
	}
	stdout, stderr, failed, err := c.run(ctx, nil, g.program, "-plaintext", "-format-error", "-d", "@",
		strings.TrimPrefix(g.url, "http://"), strings.TrimPrefix(c.procedure, "/"))
	if err != nil {
		return nil, err
	}
	o := &outcome{}
	if !failed {
		o.message, err = c.answer(stdout)
		return o, err
	}
	var reported rpcstatus.Status
	if err := protojson.Unmarshal(stderr, &reported); err != nil {
		return nil, fmt.Errorf("the error is %.300q: %w", stderr, err)
	}
	o.failure, err = readStatus(&reported)
	return o, err
}

// withMasksAsMessages writes a field mask as grpcurl wants it: as the message
// that it is, and not as JSON has it.
func (c *wireCall) withMasksAsMessages() (*wireCall, error) {
	var request map[string]any
	if err := json.Unmarshal([]byte(c.text), &request); err != nil {
		return nil, err
	}
	text, ok := request["updateMask"].(string)
	if !ok {
		return c, nil
	}
	quoted, _ := json.Marshal(text)
	var mask fieldmaskpb.FieldMask
	if err := protojson.Unmarshal(quoted, &mask); err != nil {
		return nil, err
	}
	request["updateMask"] = map[string]any{"paths": mask.GetPaths()}
	written, err := json.Marshal(request)
	other := *c
	other.text = string(written)
	return &other, err
}

// The surfaces that need Node too, and clients/typescript built: scripts/parity.sh runs them.
var moreSurfaces = []surface{{name: "typescript", at: 4, open: openTypeScript}}

// typescript is the client of clients/typescript, in one process for all calls.
type typescript struct {
	mu      sync.Mutex
	asked   int
	in      io.Writer
	waiting map[int]chan typescriptAnswer
	ended   error
}

type typescriptAnswer struct {
	ID       int
	Status   int
	Header   http.Header
	Response []byte
	Error    *struct {
		Code            uint32
		Message, Reason string
		FieldViolations []struct{ Field, Description, Reason string }
		RetryAfterMs    *float64
	}
	Fault string
}

func openTypeScript(t testing.TB, url string) caller {
	cmd := exec.CommandContext(t.Context(), "node", "clients/typescript/test/parity.js", url)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the TypeScript client: %v", err)
	}
	c := &typescript{in: in, waiting: map[int]chan typescriptAnswer{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for answers := json.NewDecoder(out); ; {
			var answer typescriptAnswer
			if err := answers.Decode(&answer); err != nil {
				c.end(err)
				return
			}
			c.mu.Lock()
			c.waiting[answer.ID] <- answer
			delete(c.waiting, answer.ID)
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-done
		_ = cmd.Wait()
	})
	return c
}

// end tells those who still wait that no answer comes.
func (p *typescript) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = fmt.Errorf("it has ended: %w", err)
	for _, waits := range p.waiting {
		waits <- typescriptAnswer{Fault: p.ended.Error()}
	}
	clear(p.waiting)
}

func (p *typescript) call(_ context.Context, c *wireCall) (*outcome, error) {
	request, err := c.request()
	if err != nil {
		return nil, err
	}
	written, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	waits := make(chan typescriptAnswer, 1)
	p.mu.Lock()
	if p.ended != nil {
		defer p.mu.Unlock()
		return nil, p.ended
	}
	p.asked++
	p.waiting[p.asked] = waits
	err = json.NewEncoder(p.in).Encode(map[string]any{
		"id": p.asked, "service": c.method.Parent().Name(), "method": c.method.Name(), "request": written, "headers": c.header,
	})
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	answer := <-waits
	if answer.Fault != "" {
		return nil, errors.New(answer.Fault)
	}
	o := &outcome{status: answer.Status, header: http.Header{}}
	for name, values := range answer.Header {
		o.header[http.CanonicalHeaderKey(name)] = values
	}
	if answer.Error == nil {
		if o.message, err = c.response(); err == nil {
			err = proto.Unmarshal(answer.Response, o.message)
		}
		return o, err
	}
	// What the client makes of the details is what its callers see.
	o.failure = &failure{code: connect.Code(answer.Error.Code).String(), message: answer.Error.Message}
	o.failure.details = append(o.failure.details, &errdetails.ErrorInfo{Reason: answer.Error.Reason, Domain: fault.Domain})
	if len(answer.Error.FieldViolations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, fault := range answer.Error.FieldViolations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: fault.Field, Description: fault.Description, Reason: fault.Reason})
		}
		o.failure.details = append(o.failure.details, bad)
	}
	if after := answer.Error.RetryAfterMs; after != nil {
		delay := durationpb.New(time.Duration(*after * float64(time.Millisecond)))
		o.failure.details = append(o.failure.details, &errdetails.RetryInfo{RetryDelay: delay})
	}
	return o, nil
}
