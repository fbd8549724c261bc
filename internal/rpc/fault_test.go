package rpc_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// wireError is a Connect error as JSON shows it.
type wireError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type  string `json:"type"`
		Debug struct {
			Reason          string `json:"reason"`
			FieldViolations []struct {
				Field string `json:"field"`
			} `json:"fieldViolations"`
		} `json:"debug"`
	} `json:"details"`
}

func wireErrorOf(t testing.TB, a rpctest.Answer) (failure wireError, reason, field string) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &failure); err != nil {
		t.Errorf("got %d %q, want a Connect error: %v", a.Status, a.Body, err)
	}
	for _, d := range failure.Details {
		switch d.Type {
		case string((&errdetails.ErrorInfo{}).ProtoReflect().Descriptor().FullName()):
			reason = d.Debug.Reason
		case string((&errdetails.BadRequest{}).ProtoReflect().Descriptor().FullName()):
			field = d.Debug.FieldViolations[0].Field
		}
	}
	return failure, reason, field
}

const (
	jsonType   = "application/json"
	protoType  = "application/proto"
	updatePath = usersv1.ProfileServiceUpdateProfileProcedure
	listPath   = usersv1.ProfileServiceListProfilesProcedure
)

// gateway serves GetProfile as the gateway does its methods, with compression,
// to callers with an internal token, and keeps the log.
func gateway(t testing.TB) (url string, log *lockedBuffer) {
	t.Helper()
	log = &lockedBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: logger, CompressMinBytes: 1024}, rpctest.RegisterProfiles(rpctest.Found))
	return rpctest.Serve(t, server.Mux(rpctest.IsReady)), log
}

func TestARequestThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-s3cret"
	url, log := gateway(t)
	badUTF8, err := proto.Marshal(rpctest.GetRequest())
	if err != nil {
		t.Fatal(err)
	}
	badUTF8[2] = 0xff
	for _, test := range []struct {
		name, path, contentType, body string
		field, message                string // where it matters
	}{
		{"half of JSON", "", jsonType, `{"profileId":`, "", "The request could not be read. Send a valid message of this method."},
		{"malformed JSON", "", jsonType, `{"profileId":}`, "", "The request could not be read at line 1:14. Send a valid message of this method."},
		{"a bare word", "", jsonType, `{"profileId":` + secret + `}`, "", ""},
		{"a word that looks like a fault of a field", "", jsonType, `{"profileId": invalid value for string field ` + secret + `:5}`, "", ""},
		{"a string that looks like a fault of a field", updatePath, jsonType, `{"profile":{"createTime":"invalid value for string field ` + secret + `: 5"}}`, "", ""},
		{"another string that does", updatePath, jsonType, `{"profile":{"createTime":"(line 1:2): invalid value for string field ` + secret + `: 5"}}`, "", ""},
		{"JSON of another shape", "", jsonType, `["` + secret + `"]`, "", ""},
		{"nothing", "", jsonType, ``, "", ""},
		{"a number for a string", "", jsonType, `{"profileId":5550123}`, "profileId", "The request could not be read at line 1:14: profileId has a value of the wrong type."},
		{"a string for a number", listPath, jsonType, `{"pageSize":"` + secret + `"}`, "pageSize", ""},
		{"a boolean for an enum", listPath, jsonType, `{"order":true}`, "order", ""},
		{"a string for a message", updatePath, jsonType, `{"profile":"` + secret + `"}`, "", ""},
		{"a string for a time", updatePath, jsonType, `{"profile":{"createTime":"` + secret + `"}}`, "", ""},
		{"a field twice", "", jsonType, `{"profileId":"` + secret + `","profileId":"` + secret + `"}`, "profileId", "The request could not be read at line 1:31: profileId occurs more than once."},
		{"a string that looks like an unknown field", updatePath, jsonType, `{"profile":{"createTime":"(line 1:2): unknown field ` + secret + `"}}`, "", ""},
		{"invalid UTF-8 in JSON", "", jsonType, "{\"profileId\":\"" + secret + "\xff\"}", "", "The request could not be read at line 1:14: it holds invalid UTF-8. Send a valid message of this method."},
		{"invalid UTF-8 in protobuf", "", protoType, string(badUTF8), "", "The request could not be read: it holds invalid UTF-8. Send a valid message of this method."},
		{"no protobuf", "", protoType, "\xff\xff" + secret, "", "The request could not be read. Send a valid message of this method."},
	} {
		request := rpctest.PostRequest(t, url, test.contentType, test.body)
		if test.path != "" {
			request.URL.Path = test.path
		}
		got := rpctest.Send(t, request)
		failure, reason, field := wireErrorOf(t, got)
		if got.Status != http.StatusBadRequest || failure.Code != "invalid_argument" || reason != fault.ReasonMalformed || field != test.field {
			t.Errorf("%s (%s): got %d %s, want 400 invalid_argument, %s, field %q", test.name, test.body, got.Status, got.Body, fault.ReasonMalformed, test.field)
		}
		if test.message != "" && failure.Message != test.message {
			t.Errorf("%s (%s): got %q, want %q", test.name, test.body, failure.Message, test.message)
		}
		for _, value := range []string{secret, "5550123"} {
			if strings.Contains(got.Body, value) {
				t.Errorf("%s (%s): the answer holds the value: %s", test.name, test.body, got.Body)
			}
		}
	}
	for _, value := range []string{secret, "5550123"} {
		if text := log.String(); strings.Contains(text, value) {
			t.Errorf("the log holds the value %s: %s", value, text)
		}
	}
}

func TestAnInterruptedRequestIsTheCallersError(t *testing.T) {
	t.Parallel()
	url, log := gateway(t)
	request := rpctest.PostRequest(t, url, jsonType, "")
	conn, err := net.Dial("tcp", request.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nAuthorization: %s\r\nContent-Length: 100\r\n\r\n{",
		request.URL.Path, request.URL.Host, jsonType, request.Header.Get("Authorization"))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatalf("wait for the connection's end: %v", err)
	}
	lines := log.lines(t)
	// It is canceled if the server finds out in time that its caller has gone.
	if len(lines) != 1 || lines[0]["code"] != "canceled" && lines[0]["code"] != "invalid_argument" || lines[0]["level"] != "INFO" {
		t.Errorf("a body that breaks off: got the log %v, want one line at INFO with canceled or invalid_argument", lines)
	}
}

func TestARequestThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	url, _ := gateway(t)
	large := `{"unknown":"` + strings.Repeat("x", rpc.MaxMessageBytes) + `"}`
	packed := zipped(t, []byte(large))
	fits := `{"profileId":"` + rpctest.ProfileID + `","unknown":"` + strings.Repeat("x", rpc.MaxMessageBytes-100) + `"}`
	for _, test := range []struct {
		name, encoding string
		body           string
		status         int
	}{
		{"a body that just fits", "", fits, http.StatusOK},
		{"a large body", "", large, http.StatusTooManyRequests},
		{"a body that is large when decompressed", "gzip", string(packed), http.StatusTooManyRequests},
		{"a body that just fits when decompressed", "gzip", string(zipped(t, []byte(fits))), http.StatusOK},
	} {
		request := rpctest.PostRequest(t, url, jsonType, test.body)
		if test.encoding != "" {
			request.Header.Set("Content-Encoding", test.encoding)
		}
		got := rpctest.Send(t, request)
		if got.Status != test.status {
			t.Errorf("%s: got %d %.200s, want %d", test.name, got.Status, got.Body, test.status)
		}
		if got.Status == http.StatusOK {
			continue
		}
		if failure, reason, _ := wireErrorOf(t, got); failure.Code != "resource_exhausted" || reason != fault.ReasonTooLarge || len(got.Body) > 1000 {
			t.Errorf("%s: got %s, want a short resource_exhausted, %s", test.name, got.Body, fault.ReasonTooLarge)
		}
	}
}

// Not in parallel: it measures what the whole process allocates.
func TestABombIsNotUnpacked(t *testing.T) {
	url, _ := gateway(t)
	// A gigabyte in a megabyte: gzip may hold one archive after another.
	member := zipped(t, make([]byte, 1<<20))
	bomb := bytes.Repeat(member, rpc.MaxMessageBytes/len(member))
	request := rpctest.PostRequest(t, url, jsonType, string(bomb))
	request.Header.Set("Content-Encoding", "gzip")

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := rpctest.Send(t, request)
	runtime.ReadMemStats(&after)
	if _, reason, _ := wireErrorOf(t, got); reason != fault.ReasonTooLarge || len(got.Body) > 1000 {
		t.Errorf("a bomb of %d bytes: got %d %.200s, want a short refusal, %s", len(bomb), got.Status, got.Body, fault.ReasonTooLarge)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 16<<20 {
		t.Errorf("a bomb of %d bytes made the server allocate %d bytes, want at most 16 MiB", len(bomb), allocated)
	}
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// Reason and RetryDelay are asked of every kind of error.
func TestAnErrorWithoutDetailsHasNoReason(t *testing.T) {
	t.Parallel()
	var none *connect.Error
	for name, err := range map[string]error{"nil": nil, "a plain error": io.EOF, "a typed nil": none, "no details": connect.NewError(connect.CodeInternal, "")} {
		if reason := fault.Reason(err); reason != "" {
			t.Errorf("%s: got the reason %q, want none", name, reason)
		}
		if after, ok := fault.RetryDelay(err); ok || after != 0 {
			t.Errorf("%s: got a retry after %v, want none", name, after)
		}
	}
}
