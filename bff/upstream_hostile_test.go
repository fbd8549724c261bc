package bff

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"gatehouse/internal/fault"
)

// hostile answers each request on a port with what a fault writes to the connection,
// and then closes that. It reads the request first.
func hostile(t *testing.T, write func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	wantNoError(t, "listen", err)
	var group sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); group.Wait() })
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				write(conn)
			})
		}
	})
	return "http://" + listener.Addr().String()
}

// writes returns what writes a text as the answer.
func writes(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// answers writes an answer of HTTP/1.1 with a body, and more lines of its header.
func answersWith(status int, kind string, body []byte, lines ...string) func(net.Conn) {
	head := fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n", status, len(body))
	if kind != "" {
		head += "Content-Type: " + kind + "\r\n"
	}
	for _, line := range lines {
		head += line + "\r\n"
	}
	return writes(head + "\r\n" + string(body))
}

// repeats writes a text again and again, until nobody reads it.
func repeats(head, text string, pause time.Duration) func(net.Conn) {
	return func(conn net.Conn) {
		_, err := io.WriteString(conn, head)
		for err == nil {
			if pause > 0 {
				time.Sleep(pause)
			}
			_, err = io.WriteString(conn, text)
		}
	}
}

const (
	inProto    = "application/proto"
	secretText = "s3cret internals"
	evil       = "X-Evil: s3cret internals"
)

// connectError is an error as the Connect protocol has it, with the reasons as details.
func connectError(code, message string, details ...proto.Message) []byte {
	var parts []string
	for _, detail := range details {
		packed, _ := anypb.New(detail)
		parts = append(parts, fmt.Sprintf(`{"type":%q,"value":%q,"debug":{"x":%q}}`, packed.MessageName(), base64Of(packed.GetValue()), secretText))
	}
	text, _ := json.Marshal(message)
	return fmt.Appendf(nil, `{"code":%q,"message":%s,"details":[%s]}`, code, text, strings.Join(parts, ","))
}

func refuses(status int, code, message string, details ...proto.Message) func(net.Conn) {
	return answersWith(status, "application/json", connectError(code, message, details...), evil)
}

func reasonOf(reason string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: reason, Domain: "shop", Metadata: map[string]string{"host": secretText}}
}

// aThing is a valid answer of GetThing.
func aThing() []byte {
	thing := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "t1")
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), thing)
}

func compressed(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(text)
	_ = w.Close()
	return b.Bytes()
}

// hostileCase is an upstream's fault, and what its caller gets.
type hostileCase struct {
	name   string
	write  func(net.Conn)
	status int
	want   string // a part of the answer
	slow   bool   // it ends with the method's time limit
}

var hostileCases = []hostileCase{
	{name: "closes the connection", write: writes(""), status: 503},
	{name: "resets the connection", write: func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }, status: 503},
	{name: "is silent", write: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, status: 503, slow: true},
	{name: "sends its header byte by byte", write: repeats("HTTP/1.1 200 OK\r\n", "X", 50*time.Millisecond), status: 503, slow: true},
	{name: "sends its body byte by byte", write: repeats("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\n\r\n", "\x08", 50*time.Millisecond), status: 503, slow: true},
	{name: "sends half a header", write: writes("HTTP/1.1 200 OK\r\nContent-"), status: 503},
	{name: "sends half a body", write: writes("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 100\r\n\r\n\x0a"), status: 503},
	{name: "speaks SSH", write: writes("SSH-2.0-OpenSSH_9.2\r\n"), status: 503},
	{name: "speaks HTTP/0.9", write: writes("<html>s3cret internals</html>"), status: 503},
	{name: "speaks HTTP/2 to HTTP/1.1", write: writes("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), status: 503},
	{name: "speaks TLS in clear", write: writes("\x15\x03\x01\x00\x02\x02\x46"), status: 503},
	{name: "HTML", write: answersWith(200, "text/html", []byte("<h1>s3cret internals</h1>"), evil), status: 503},
	{name: "HTML, not found", write: answersWith(404, "text/html", []byte(secretText), evil), status: 503},
	{name: "HTML, bad gateway", write: answersWith(502, "text/html", []byte(secretText), evil), status: 503},
	{name: "HTML, sign in", write: answersWith(401, "text/html", []byte(secretText), `WWW-Authenticate: Basic realm="s3cret internals"`), status: 503},
	{name: "sign in to a proxy", write: answersWith(407, "text/html", nil, `Proxy-Authenticate: Basic realm="s3cret internals"`), status: 503},
	{name: "forbidden by a proxy", write: answersWith(403, "text/plain", []byte(secretText)), status: 503},
	{name: "JSON in place of protobuf", write: answersWith(200, "application/json", []byte(`{"thing":{"id":"s3cret internals"}}`)), status: 503},
	{name: "another content type", write: answersWith(200, "application/octet-stream", aThing()), status: 503},
	{name: "no content type", write: answersWith(200, "", aThing()), status: 503},
	{name: "gRPC in place of Connect", write: answersWith(200, "application/grpc", nil, "Grpc-Status: 0"), status: 503},
	{name: "an endless body", write: repeats("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\n\r\n", strings.Repeat("\x0a\x02ab", 16<<10), 0), status: 503},
	{name: "a body of 5 MiB", write: answersWith(200, inProto, bytes.Repeat([]byte{0x50, 0}, 5<<19)), status: 503},
	{name: "a body that says it is compressed", write: answersWith(200, inProto, aThing(), "Content-Encoding: gzip"), status: 503},
	{name: "a body that is compressed unasked", write: answersWith(200, inProto, compressed(bytes.Repeat([]byte{0x50, 0}, 32<<20)), "Content-Encoding: gzip"), status: 503},
	{name: "another compression", write: answersWith(200, inProto, aThing(), "Content-Encoding: br"), status: 503},
	{name: "protobuf that is cut off", write: answersWith(200, inProto, aThing()[:4]), status: 503},
	{name: "protobuf with the end of a group", write: answersWith(200, inProto, []byte{0x0c}), status: 503},
	{name: "protobuf with field 0", write: answersWith(200, inProto, []byte{0x02, 0x00}), status: 503},
	{name: "groups in groups", write: answersWith(200, inProto, bytes.Repeat([]byte{0x53}, 200_000)), status: 503},
	{name: "a text that is no UTF-8", write: answersWith(200, inProto, []byte{0x0a, 4, 0x0a, 2, 0xff, 0xfe}), status: 503},
	{name: "a field of another type", write: answersWith(200, inProto, []byte{0x08, 7}), status: 200, want: `{}`},
	{name: "an unknown field", write: answersWith(200, inProto, append(aThing(), 0xf8, 0x3f, 1)), status: 200, want: `{"thing":{"id":"t1"}}`},
	{name: "a redirect", write: answersWith(302, "", nil, "Location: http://127.0.0.1:1/s3cret"), status: 503},
	{name: "a redirect that keeps the method", write: answersWith(307, "", nil, "Location: http://127.0.0.1:1/s3cret"), status: 503},
	{name: "another protocol by upgrade", write: writes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), status: 503},
	{name: "early hints", write: writes("HTTP/1.1 103 Early Hints\r\nLink: </s3cret>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 0\r\n\r\n"), status: 200, want: `{}`},
	{name: "informational answers without end", write: repeats("", "HTTP/1.1 100 Continue\r\n\r\n", 0), status: 503},
	{name: "not modified", write: answersWith(304, "", nil, "ETag: \"x\""), status: 503},
	{name: "no content", write: writes("HTTP/1.1 204 No Content\r\n\r\n"), status: 503},
	{name: "a header of 1 MiB", write: answersWith(200, inProto, aThing(), "X-Long: "+strings.Repeat("a", 1<<20)), status: 503},
	{name: "10,000 headers", write: answersWith(200, inProto, aThing(), strings.TrimSuffix(strings.Repeat("X-Many: s3cret\r\n", 10_000), "\r\n")), status: 503},
	{name: "a header with a line break", write: writes("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nX-A: b\n c\x00\r\nContent-Length: 0\r\n\r\n"), status: 503},
	{name: "two lengths", write: writes("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 2\r\nContent-Length: 7\r\n\r\n\x0a\x00"), status: 503},
	{name: "a broken chunk", write: writes("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\x0a\x00\r\n"), status: 503},
	{name: "headers of its own", write: answersWith(200, inProto, aThing(), evil, "Set-Cookie: __Host-gatehouse=s3cret internals; Path=/; Secure", "Access-Control-Allow-Origin: s3cret", "X-Request-Id: s3cret",
		"Location: http://s3cret.example", "Strict-Transport-Security: max-age=0", "Cache-Control: public, s3cret", "Clear-Site-Data: \"s3cret\""), status: 200, want: `"t1"`},
	{name: "an error that is not public", write: refuses(404, "not_found", secretText), status: 404, want: "UPSTREAM_NOT_FOUND"},
	{name: "an error with a reason that is not public", write: refuses(412, "failed_precondition", secretText, reasonOf("S3CRET_REASON")), status: 400, want: "UPSTREAM_FAILED_PRECONDITION"},
	{name: "an error that is public", write: refuses(412, "failed_precondition", "None is left.", &errdetails.DebugInfo{Detail: secretText}, reasonOf("OUT_OF_STOCK")), status: 400, want: "None is left."},
	{name: "an error with control characters", write: refuses(412, "failed_precondition", "None\r\nSet-Cookie: a=b\x1b[31m", reasonOf("OUT_OF_STOCK")), status: 400, want: `"NoneSet-Cookie: a=b[31m"`},
	{name: "an error of 100 KiB", write: refuses(412, "failed_precondition", strings.Repeat("x", 100<<10), reasonOf("OUT_OF_STOCK")), status: 400, want: `"` + strings.Repeat("x", 1024) + `"`},
	{name: "an error that signs people out", write: refuses(401, "unauthenticated", secretText, reasonOf("TOKEN_EXPIRED")), status: 500, want: "INTERNAL"},
	{name: "permission denied", write: refuses(403, "permission_denied", secretText), status: 403, want: "UPSTREAM_PERMISSION_DENIED"},
	{name: "an internal error", write: refuses(500, "internal", secretText), status: 500, want: "INTERNAL"},
	{name: "a panic", write: refuses(500, "unknown", secretText), status: 500, want: "INTERNAL"},
	{name: "unavailable for an hour", write: refuses(503, "unavailable", secretText), status: 503},
	{name: "cancelled", write: refuses(499, "canceled", secretText), status: 503},
	{name: "out of its own time", write: refuses(504, "deadline_exceeded", secretText), status: 503},
	{name: "a method that it lacks", write: refuses(404, "unimplemented", secretText), status: 501, want: "METHOD_UNKNOWN"},
	{name: "a code that there is not", write: refuses(400, "s3cret", secretText), status: 500, want: "INTERNAL"},
	{name: "an error that can't be read", write: answersWith(400, "application/json", []byte(`{"code":"s3cret`)), status: 503},
	{name: "an error with a success's status", write: answersWith(200, "application/json", connectError("internal", secretText)), status: 503},
}

func TestAHostileUpstreamsFaultsHaveAnAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range hostileCases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, withShop(t, hostile(t, test.write), append([]string{`    http: "1.1"`, "    reasons: [OUT_OF_STOCK]"}, restock("500ms")...)...))
			path, body := getThing, `{"userId":"`+alice+`","thingId":"t1"}`
			if test.slow {
				path, body = "/shop.v1.ShopService/Restock", `{"userId":"`+alice+`"}`
			}
			response, text := h.send(t, path, body, "Authorization", "Bearer "+h.token(alice))
			checkHostile(t, h, test, response, text)
		})
	}
}

// checkHostile checks what the caller got, and that nothing of the upstream's own came
// with it.
func checkHostile(t *testing.T, h *harness, test hostileCase, response *http.Response, text string) {
	t.Helper()
	want := test.want
	if test.status == http.StatusServiceUnavailable {
		want = fault.ReasonUnavailable
	}
	if response.StatusCode != test.status || !strings.Contains(text, want) {
		t.Errorf("got %d %.300s, want %d with %.80s", response.StatusCode, text, test.status, want)
	}
	if strings.Contains(text, "s3cret") || strings.Contains(text, base64Of([]byte("s3cret"))[:6]) {
		t.Errorf("the answer holds something of the upstream's: %.300s", text)
	}
	for name, values := range response.Header {
		if strings.Contains(strings.Join(values, ","), "s3cret") || name == "X-Evil" || name == "Set-Cookie" || name == "Www-Authenticate" {
			t.Errorf("the answer has the upstream's header %s: %q", name, values)
		}
	}
	if log := h.log.String(); test.status >= 500 && test.status != 501 && !strings.Contains(log, "upstream shop") {
		t.Errorf("the log does not name the upstream:\n%s", log)
	} else if test.status == http.StatusNotImplemented && !strings.Contains(log, "upstream lacks a published method") {
		t.Errorf("the log does not say that the method is missing:\n%s", log)
	}
}

// An answer that nobody asked for is not given to the next caller.
func TestAnUnsolicitedAnswerReachesNobody(t *testing.T) {
	t.Parallel()
	forged := protowire.AppendBytes([]byte{0x0a}, protowire.AppendString([]byte{0x0a}, "s3cret"))
	one := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s", len(aThing()), aThing())
	two := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s", len(forged), forged)
	h := newHarness(t, withShop(t, hostile(t, writes(one+two)), `    http: "1.1"`))
	for range 5 {
		response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice))
		if response.StatusCode == http.StatusOK && !strings.Contains(text, `"t1"`) || strings.Contains(text, "s3cret") {
			t.Errorf("got %d %s, want the answer to this call", response.StatusCode, text)
		}
	}
}

// grpcFrame is a message as gRPC frames it.
func grpcFrame(flags byte, message []byte) []byte {
	frame := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))) //nolint:gosec // of a test
	return append(frame, message...)
}

func TestAHostileGRPCUpstreamsFaultsHaveAnAnswer(t *testing.T) {
	t.Parallel()
	grpc := func(body []byte, trailers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("X-Evil", secretText)
			if len(body) > 0 {
				_, _ = w.Write(body)
			}
			for i := 0; i+1 < len(trailers); i += 2 {
				w.Header().Set(http.TrailerPrefix+trailers[i], trailers[i+1])
			}
		}
	}
	thing := grpcFrame(0, aThing())
	for _, test := range []struct {
		hostileCase
		handler http.HandlerFunc
	}{
		{hostileCase{name: "a success", status: 200, want: `"t1"`}, grpc(thing, "Grpc-Status", "0", "X-Evil", secretText)},
		{hostileCase{name: "no status", status: 503}, grpc(thing)},
		{hostileCase{name: "a status that is no number", status: 503}, grpc(thing, "Grpc-Status", "s3cret")},
		{hostileCase{name: "no message", status: 503}, grpc(nil, "Grpc-Status", "0")},
		{hostileCase{name: "two messages", status: 503}, grpc(append(thing[:len(thing):len(thing)], thing...), "Grpc-Status", "0")},
		{hostileCase{name: "half a message", status: 503}, grpc(thing[:7], "Grpc-Status", "0")},
		{hostileCase{name: "half a frame", status: 503}, grpc(thing[:3], "Grpc-Status", "0")},
		{hostileCase{name: "a message that says it is compressed", status: 503}, grpc(grpcFrame(1, aThing()), "Grpc-Status", "0")},
		{hostileCase{name: "a message of 4 GiB", status: 503}, grpc([]byte{0, 0xff, 0xff, 0xff, 0xff, 1}, "Grpc-Status", "0")},
		{hostileCase{name: "protobuf that is cut off", status: 503}, grpc(grpcFrame(0, aThing()[:4]), "Grpc-Status", "0")},
		{hostileCase{name: "an error", status: 404, want: "UPSTREAM_NOT_FOUND"}, grpc(nil, "Grpc-Status", "5", "Grpc-Message", "s3cret%0d%0a")},
		{hostileCase{name: "an error after the message", status: 500, want: "INTERNAL"}, grpc(thing, "Grpc-Status", "13", "Grpc-Message", "s3cret")},
		{hostileCase{name: "a code that there is not", status: 500, want: "INTERNAL"}, grpc(nil, "Grpc-Status", "77", "Grpc-Message", "s3cret")},
		{hostileCase{name: "details that can't be read", status: 503}, grpc(nil, "Grpc-Status", "5", "Grpc-Status-Details-Bin", "AAAA")},
		{hostileCase{name: "a stream that is reset", status: 503}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{hostileCase{name: "HTML over HTTP/2", status: 503}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<p>s3cret") }},
		{hostileCase{name: "Connect in place of gRPC", status: 503}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			_, _ = w.Write(aThing())
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, withShop(t, serveHTTP(t, test.handler), "    protocol: grpc"))
			response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice))
			checkHostile(t, h, test.hostileCase, response, text)
		})
	}
}

// What an upstream streams before a fault is passed on, and then the fault.
func TestAHostileStreamEndsWithAnError(t *testing.T) {
	t.Parallel()
	message := grpcFrame(0, aThing())
	for _, test := range []struct {
		name, tail string
		messages   int
		want       string
	}{
		{"the end", string(grpcFrame(2, []byte(`{}`))), 2, `{}`},
		{"cut off", "", 2, fault.ReasonUnavailable},
		{"half a message", string(message[:7]), 2, fault.ReasonUnavailable},
		{"a message that can't be read", string(grpcFrame(0, aThing()[:4])), 2, fault.ReasonUnavailable},
		{"a message of 4 GiB", "\x00\xff\xff\xff\xff", 2, fault.ReasonUnavailable},
		{"an end that can't be read", string(grpcFrame(2, []byte(`{"error":s3cret`))), 2, fault.ReasonUnavailable},
		{"an error that is not public", string(grpcFrame(2, []byte(`{"error":{"code":"not_found","message":"s3cret"},"metadata":{"x-evil":["s3cret"]}}`))), 2, "UPSTREAM_NOT_FOUND"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			head := "HTTP/1.1 200 OK\r\nContent-Type: application/connect+proto\r\n\r\n"
			h := newHarness(t, withShop(t, hostile(t, writes(head+strings.Repeat(string(message), test.messages)+test.tail)), `    http: "1.1"`))
			response, text := h.fetch(t, http.MethodPost, "/shop.v1.ShopService/WatchThings", string(grpcFrame(0, []byte(`{}`))), "Content-Type", "application/connect+json", "Authorization", "Bearer "+h.token(alice))
			if got := strings.Count(text, `"t1"`); response.StatusCode != http.StatusOK || got != test.messages || !strings.Contains(text, test.want) || strings.Contains(text, "s3cret") {
				t.Errorf("got %d %q, want %d messages and then %s", response.StatusCode, text, test.messages, test.want)
			}
		})
	}
}
