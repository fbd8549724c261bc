package bff

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/bff/intake"
	bffv1 "gatehouse/gen/bff/v1"
)

// What is received and not complete is bounded in bytes, for each address.
func TestUnfinishedBodiesOfOneAddressAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, limited: true, proxies: networks(t, "127.0.0.0/8")})
	const size = 1_000_000
	refused := make(chan string, 100)
	for range intake.BytesPerAddress/size + 3 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		wantNoError(t, "dial", err)
		t.Cleanup(func() { _ = conn.Close() })
		go func() {
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n", bffv1.AuthServiceLoginProcedure, size+1)
			_, _ = conn.Write(bytes.Repeat([]byte(" "), size))
		}()
		go func() {
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(response.Body)
			refused <- fmt.Sprint(response.StatusCode, " ", string(body))
		}()
	}
	select {
	case got := <-refused:
		if !strings.HasPrefix(got, "429 ") || !strings.Contains(got, "TOO_MANY_UNFINISHED_REQUESTS") {
			t.Errorf("above the bound in bytes: got %s, want 429 TOO_MANY_UNFINISHED_REQUESTS", got)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("no request was refused")
	}
	_, got := h.getMe(t, h.token(alice), "X-Forwarded-For", "192.0.2.1")
	wantNoError(t, "GetMe of another caller", got.err)
}

// A stream of gRPC reflection ends when its caller ends it.
func TestStreamsOfReflectionAreBoundedForEachAddress(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, limited: true, proxies: networks(t, "127.0.0.0/8")})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	begin := func(from string) *http.Response {
		t.Helper()
		body, end := io.Pipe() // nothing is sent, and it isn't ended
		t.Cleanup(func() { _ = end.Close() })
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", body)
		wantNoError(t, "make a request", err)
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("X-Forwarded-For", from)
		response, err := transport.RoundTrip(request)
		if err != nil {
			return nil // the test is over
		}
		return response
	}
	streams := func() int { return h.gateway.intake.State().Streams }
	for range intake.StreamsPerAddress {
		go begin("198.51.100.7")
	}
	eventually(t, "the streams are open", func() bool { return streams() == intake.StreamsPerAddress })
	answer := make(chan *http.Response, 1)
	go func() { answer <- begin("198.51.100.7") }()
	var response *http.Response
	select {
	case response = <-answer:
	case <-time.After(15 * time.Second):
		t.Fatal("one stream more is not refused")
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	const resourceExhausted = "8"
	if status := response.Header.Get("Grpc-Status") + response.Trailer.Get("Grpc-Status"); status != resourceExhausted {
		t.Errorf("one stream more: %s, grpc-status %q (%s), want %s", response.Status, status, response.Trailer.Get("Grpc-Message")+response.Header.Get("Grpc-Message"), resourceExhausted)
	}
	go begin("192.0.2.1")
	eventually(t, "another address has its stream", func() bool { return streams() == intake.StreamsPerAddress+1 })
}
