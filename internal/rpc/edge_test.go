package rpc_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

const (
	getProfilePath    = "/users.v1.ProfileService/GetProfile"
	updateProfilePath = "/users.v1.ProfileService/UpdateProfile"
)

// The server reports faults in the HTTP request in the same form as all other errors,
// and logs them.
func TestMalformedHTTPRequestsAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	message := "message=%7B%22profileId%22%3A%22" + rpctest.ProfileID + "%22%7D"
	for _, test := range []struct {
		name, method, path string
		headers            []string
		status             int
		reason             string
		header             [2]string // a response header and what it holds
	}{
		{name: "a curl without a type", path: getProfilePath, headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415, reason: "CONTENT_TYPE_UNSUPPORTED", header: [2]string{"Accept-Post", "application/json, application/proto"}},
		{name: "no type", path: getProfilePath, headers: []string{"Content-Type", ""}, status: 415, reason: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "another charset", path: getProfilePath, headers: []string{"Content-Type", "application/json; charset=latin1"}, status: 415, reason: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "gRPC-Web in text", path: getProfilePath, headers: []string{"Content-Type", "application/grpc-web+text"}, status: 415, reason: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "gRPC in an unknown codec", path: getProfilePath, headers: []string{"Content-Type", "application/grpc+thrift"}, status: 415, reason: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "a stream's type", path: getProfilePath, headers: []string{"Content-Type", "application/connect+json"}, status: 415, reason: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "a time-out in words", path: getProfilePath, headers: []string{"Connect-Timeout-Ms", "soon"}, status: 400, reason: "TIMEOUT_INVALID"},
		{name: "a time-out below zero", path: getProfilePath, headers: []string{"Connect-Timeout-Ms", "-1"}, status: 400, reason: "TIMEOUT_INVALID"},
		{name: "a time-out of eleven digits", path: getProfilePath, headers: []string{"Connect-Timeout-Ms", "12345678901"}, status: 400, reason: "TIMEOUT_INVALID"},
		{name: "an unknown compression", path: getProfilePath, headers: []string{"Content-Encoding", "br"}, status: 501, reason: "COMPRESSION_UNSUPPORTED"},
		{name: "another version", path: getProfilePath, headers: []string{"Connect-Protocol-Version", "2"}, status: 400, reason: "PROTOCOL_VERSION_UNSUPPORTED"},
		{name: "GET without a message", method: "GET", path: getProfilePath, status: 400, reason: "QUERY_INVALID"},
		{name: "GET in another encoding", method: "GET", path: getProfilePath + "?encoding=xml&" + message, status: 400, reason: "QUERY_INVALID"},
		{name: "GET of another version", method: "GET", path: getProfilePath + "?connect=v2&encoding=json&" + message, status: 400, reason: "QUERY_INVALID"},
		{name: "GET in an unknown compression", method: "GET", path: getProfilePath + "?encoding=json&compression=br&" + message, status: 501, reason: "COMPRESSION_UNSUPPORTED"},
		{name: "GET of a method with side effects", method: "GET", path: updateProfilePath + "?encoding=json&message={}", status: 405, reason: "HTTP_METHOD_UNSUPPORTED", header: [2]string{"Allow", "POST"}},
		{name: "PUT of a read", method: "PUT", path: getProfilePath, status: 405, reason: "HTTP_METHOD_UNSUPPORTED", header: [2]string{"Allow", "GET, HEAD, POST"}},
		{name: "an unknown method", path: "/users.v1.ProfileService/Nope", status: 501, reason: "METHOD_UNKNOWN"},
		{name: "an unknown service", path: "/x.v1.Nope/Nope", status: 404, reason: "METHOD_UNKNOWN"},
		{name: "gRPC's time-out in an unknown unit", path: getProfilePath, headers: []string{"Content-Type", "application/grpc+proto", "Grpc-Timeout", "5x"}, status: 200, header: [2]string{"Grpc-Status", "3"}},
		{name: "gRPC in an unknown compression", path: getProfilePath, headers: []string{"Content-Type", "application/grpc", "Grpc-Encoding", "br"}, status: 200, header: [2]string{"Grpc-Status", "12"}},
		{name: "gRPC-Web to an unknown service", path: "/x.v1.Nope/Nope", headers: []string{"Content-Type", "application/grpc-web+proto"}, status: 200, header: [2]string{"Grpc-Status", "12"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			log := &lockedBuffer{}
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: slog.New(slog.NewJSONHandler(log, nil))}, rpctest.RegisterProfiles(rpctest.Found))
			url := rpctest.Serve(t, server.Mux(rpctest.IsReady))
			method := test.method
			if method == "" {
				method = http.MethodPost
			}
			request, err := http.NewRequestWithContext(t.Context(), method, url+test.path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if method == http.MethodPost || method == http.MethodPut {
				request.Header.Set("Content-Type", jsonType)
			}
			for i := 0; i < len(test.headers); i += 2 {
				request.Header.Set(test.headers[i], test.headers[i+1])
			}
			response, err := rpctest.NewHTTPClient(t, (*http.Protocols).SetUnencryptedHTTP2).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			got := response.Header.Get(test.header[0]) + response.Trailer.Get(test.header[0])
			if strings.Contains(string(body), "grpc-status: 12") { // gRPC-Web's trailers are in the body
				got = "12"
			}
			if response.StatusCode != test.status || !strings.Contains(string(body), test.reason) || test.header[0] != "" && got != test.header[1] {
				t.Errorf("%d %s %s, %s %q; want %d %s, %q", response.StatusCode, body, test.name, test.header[0], got, test.status, test.reason, test.header[1])
			}
			if response.Header.Get("X-Request-Id") == "" {
				t.Error("the answer has no request id")
			}
			if test.reason != "" && !strings.Contains(log.String(), fmt.Sprintf(`"status":%d,"client_ip":"127.0.0.1"`, test.status)) {
				t.Errorf("the log says %q, want the status and the client's address", log.String())
			}
			if test.reason != "" && (strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), test.reason)) {
				t.Errorf("the log says %q, want one line with %s", log.String(), test.reason)
			}
		})
	}
}
