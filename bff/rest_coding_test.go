package bff

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"gatehouse/internal/rpc"
)

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	_, err := writer.Write([]byte(text))
	wantNoError(t, "pack", err)
	wantNoError(t, "pack", writer.Close())
	return packed.String()
}

// REST reads the headers of RFC 9110 as Connect does, and says 413 of a body
// that is too large: 429 is for who calls too often.
func TestRESTReadsHeadersAsRFC9110Says(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	large := `{"email":"` + strings.Repeat("a", rpc.MaxMessageBytes) + `"}`
	login := "/api/v1/auth/login"
	for _, test := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		holds                    string
	}{
		{"a parameter", "POST", login, loginBody, []string{"Content-Type", "application/json; odata=verbose"}, 200, ""},
		{"parameters that can't be read", "POST", login, loginBody, []string{"Content-Type", "application/json; a=b; a=c"}, 415, "CONTENT_TYPE_UNSUPPORTED"},
		{"another type", "POST", login, loginBody, []string{"Content-Type", "application/xml"}, 415, "CONTENT_TYPE_UNSUPPORTED"},
		{"GZIP", "POST", login, gzipped(t, loginBody), []string{"Content-Encoding", "GZIP"}, 200, ""},
		{"x-gzip", "POST", login, gzipped(t, loginBody), []string{"Content-Encoding", "x-gzip"}, 200, ""},
		{"gzip, and none wanted", "POST", login, gzipped(t, loginBody), []string{"Content-Encoding", "gzip", "Accept-Encoding", "gzip ;q=0"}, 200, ""},
		{"identity", "POST", login, loginBody, []string{"Content-Encoding", "identity"}, 200, ""},
		{"br", "POST", login, loginBody, []string{"Content-Encoding", "br"}, 501, "COMPRESSION_UNSUPPORTED"},
		{"too large", "POST", login, large, nil, 413, "REQUEST_TOO_LARGE"},
		{"too large when unpacked", "POST", login, gzipped(t, large), []string{"Content-Encoding", "x-gzip"}, 413, "REQUEST_TOO_LARGE"},
		{"HEAD", "HEAD", "/api/v1/me", "", []string{"Authorization", "Bearer " + h.token(alice)}, 200, ""},
		{"HEAD over Connect", "HEAD", meByGet, "", []string{"Authorization", "Bearer " + h.token(alice)}, 200, ""},
	} {
		headers := test.headers
		if test.method == http.MethodPost && (len(headers) == 0 || headers[0] != "Content-Type") {
			headers = append([]string{"Content-Type", "application/json"}, headers...)
		}
		response, text := h.fetch(t, test.method, test.path, test.body, headers...)
		if response.StatusCode != test.status || !strings.Contains(text, test.holds) {
			t.Errorf("%s: %d %.200s, want %d %s", test.name, response.StatusCode, text, test.status, test.holds)
		}
		if coding := response.Header.Get("Content-Encoding"); coding != "" {
			t.Errorf("%s: the answer is in %q", test.name, coding)
		}
	}
	response, text := h.send(t, "/bff.v1.AuthService/Login", large)
	if response.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, "REQUEST_TOO_LARGE") {
		t.Errorf("too large over Connect: %d %.200s, want the protocol's 429", response.StatusCode, text)
	}
	for _, line := range h.log.lines(t, "call") {
		if line["protocol"] == "rest" && line["reason"] == "REQUEST_TOO_LARGE" && line["status"] != float64(413) {
			t.Errorf("logged as %v, want the status 413", line)
		}
	}
}
