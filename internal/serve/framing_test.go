package serve_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/rpctest"
)

// A proxy in front of this server may read a request with two lengths as two requests, so
// the connection is closed after it (request smuggling).
func TestARequestWithTwoLengthsEndsItsConnection(t *testing.T) {
	t.Parallel()
	url := rpctest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(append([]byte(r.URL.Path+" "), body...))
	}))
	chunked := "Transfer-Encoding: chunked\r\n"
	hello := "\r\n5\r\nhello\r\n0\r\n\r\n"
	for _, test := range []struct {
		name  string
		parts []string // sent one by one
		ends  bool
	}{
		{"a length alone", []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"}, false},
		{"chunks alone", []string{"POST /a HTTP/1.1\r\nHost: x\r\n" + chunked + hello}, false},
		{"chunks alone, in lines that begin alike", []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Lengt: 5\r\nX-Content-Length: 5\r\n" + chunked + hello}, false},
		{"no body", []string{"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"}, false},
		{"both, the length first", []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + chunked + hello}, true},
		{"both, the length last", []string{"POST /a HTTP/1.1\r\nHost: x\r\n" + chunked + "content-LENGTH: 5\r\n" + hello}, true},
		{"both, byte by byte", strings.Split("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"+chunked+hello, ""), true},
		{"both, behind a line that begins alike", []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-: x\r\n", "Content-Length: 5\r\n" + chunked + hello}, true},
		{"both, sent along with the request before", []string{
			"POST /b HTTP/1.1\r\nHost: x\r\n" + chunked + hello + "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n", chunked + hello,
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			for _, part := range test.parts {
				if _, err := io.WriteString(conn, part); err != nil {
					t.Fatal(err)
				}
			}
			reader := bufio.NewReader(conn)
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			if len(body) < 2 {
				t.Errorf("got %s, want an answer all the same", body)
			}
			if response.Close != test.ends {
				t.Errorf("the answer ends the connection: %v, want %v", response.Close, test.ends)
			}
			_, _ = io.WriteString(conn, "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
			next, err := http.ReadResponse(reader, nil)
			if (err != nil) != test.ends {
				t.Errorf("the next request: %v, %v; a response on an ended connection or none on a valid one", next, err)
			}
		})
	}
}
