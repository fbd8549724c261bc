package rpc_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

func TestAcceptEncodingIsReadAsRFC9110Says(t *testing.T) {
	t.Parallel()
	for accepted, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "br, gzip": true, "gzip;q=0.5": true, "*": true, "br;q=1.0, gzip;q=0.8": true, "br;q=1.0,gzip ; Q=0.8": true,
		"gzip ;q=0": false, "gzip;q=0": false, "gzip; q=0.000": false, "gzip;q=0, *": false, "*;q=0": false, "br": false, "identity": false, "identity;q=0, *": true,
		"gzip;q=0.5, identity;q=0.8": false, "gzip, identity;q=0.5": true, "gzip, identity;q=0": true, "gzip;q=0.2, *;q=0.7": false, "gzip, *;q=0": true,
		"gzip;q=high": false, "gzip;q=NaN": false, "gzip;q=2": false, ",, gzip ,": true, "gzipped": false,
	} {
		if got := rpc.AcceptsGzip([]string{accepted}); got != want {
			t.Errorf("Accept-Encoding: %s: gzip is accepted: %v, want %v", accepted, got, want)
		}
	}
	if !rpc.AcceptsGzip([]string{"br", "gzip"}) {
		t.Error("the second of two headers doesn't count")
	}
}

// What RFC 9110 allows to be written otherwise is read alike, over Connect, by
// POST and GET.
func TestHeadersAreReadAsRFC9110Says(t *testing.T) {
	t.Parallel()
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: slog.New(slog.DiscardHandler), CompressMinBytes: 1, Authorizer: rpctest.AllowAll}, rpctest.RegisterProfiles(rpctest.Found))
	url := rpctest.Serve(t, server.Mux(rpctest.IsReady))
	client := rpctest.NewHTTPClient(t, (*http.Protocols).SetHTTP1)
	client.Transport.(*http.Transport).DisableCompression = true
	body := `{"profileId":"` + rpctest.ProfileID + `"}`
	query := getProfilePath + "?connect=v1&encoding=json&message=%7B%22profileId%22%3A%22" + rpctest.ProfileID + "%22%7D"
	packed := string(zipped(t, []byte(body)))
	for _, test := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		coding, holds            string
	}{
		{name: "a parameter", headers: []string{"Content-Type", "application/json; odata=verbose"}, status: 200},
		{name: "several parameters", headers: []string{"Content-Type", `Application/JSON ; charset="UTF-8"; odata=verbose`}, status: 200},
		{name: "the other label of UTF-8", headers: []string{"Content-Type", "application/json;charset=utf8"}, status: 200},
		{name: "a semicolon", headers: []string{"Content-Type", "application/json;"}, status: 200},
		{name: "parameters that can't be read", headers: []string{"Content-Type", "application/json; a=b; a=c"}, status: 415, holds: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "another charset after a parameter", headers: []string{"Content-Type", "application/json; odata=verbose; charset=latin1"}, status: 415, holds: "CONTENT_TYPE_UNSUPPORTED"},
		{name: "gzip", headers: []string{"Accept-Encoding", "gzip"}, status: 200, coding: "gzip"},
		{name: "no gzip, with a space", headers: []string{"Accept-Encoding", "gzip ;q=0"}, status: 200},
		{name: "gzip behind another", headers: []string{"Accept-Encoding", "br;q=1.0, gzip;q=0.8"}, status: 200, coding: "gzip"},
		{name: "anything", headers: []string{"Accept-Encoding", "*"}, status: 200, coding: "gzip"},
		{name: "identity", headers: []string{"Accept-Encoding", "identity;q=1, gzip;q=0.5"}, status: 200},
		{name: "GZIP sent", body: packed, headers: []string{"Content-Encoding", "GZIP"}, status: 200, coding: "gzip"},
		{name: "x-gzip sent", body: packed, headers: []string{"Content-Encoding", "x-gzip"}, status: 200, coding: "gzip"},
		{name: "identity sent", headers: []string{"Content-Encoding", "Identity"}, status: 200},
		{name: "identity and gzip sent", body: packed, headers: []string{"Content-Encoding", "identity, gzip"}, status: 200, coding: "gzip"},
		{name: "gzip sent, none wanted", body: packed, headers: []string{"Content-Encoding", "gzip", "Accept-Encoding", "gzip;q=0"}, status: 200},
		{name: "no gzip sent as gzip, none wanted", headers: []string{"Content-Encoding", "gzip", "Accept-Encoding", "identity"}, status: 400, holds: "MALFORMED_REQUEST"},
		{name: "too large a body as gzip, none wanted", body: string(zipped(t, bytes.Repeat([]byte{' '}, rpc.MaxMessageBytes+1))), headers: []string{"Content-Encoding", "gzip", "Accept-Encoding", "identity"}, status: 429, holds: "REQUEST_TOO_LARGE"},
		{name: "twice packed", headers: []string{"Content-Encoding", "gzip, gzip"}, status: 501, holds: "COMPRESSION_UNSUPPORTED"},
		{name: "GET", method: "GET", path: query, headers: []string{"Accept-Encoding", "br, gzip;q=0.1"}, status: 200, coding: "gzip"},
		{name: "HEAD", method: "HEAD", path: query, status: 200},
		{name: "HEAD of a method with side effects", method: "HEAD", path: updateProfilePath, status: 405},
		{name: "GET with a body", method: "GET", path: query, body: body, status: 400, holds: "BODY_UNEXPECTED"},
	} {
		method, path := test.method, test.path
		if method == "" {
			method, path = http.MethodPost, getProfilePath
		}
		sent := test.body
		if sent == "" && method == http.MethodPost {
			sent = body
		}
		request, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			request.Header.Set("Content-Type", jsonType)
		}
		for i := 0; i < len(test.headers); i += 2 {
			request.Header.Set(test.headers[i], test.headers[i+1])
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != test.status || response.Header.Get("Content-Encoding") != test.coding || !strings.Contains(string(text), test.holds) {
			t.Errorf("%s: %d, coding %q, %.200q; want %d, %q, %s", test.name, response.StatusCode, response.Header.Get("Content-Encoding"), text, test.status, test.coding, test.holds)
		}
		if method == http.MethodHead && len(text) > 0 {
			t.Errorf("%s: the answer has a body: %q", test.name, text)
		}
		if allow := response.Header.Get("Accept-Encoding"); test.status == 501 && allow != "gzip" {
			t.Errorf("%s: Accept-Encoding says %q, want what there is", test.name, allow)
		}
	}
}
