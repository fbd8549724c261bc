package http1_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A response that is cut short is an error, wherever that is.
func TestAResponseThatIsCutShortIsAnError(t *testing.T) {
	t.Parallel()
	for _, whole := range []string{
		hello,
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + hello,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: x\r\n\r\n",
	} {
		for end := range len(whole) {
			s := listen(t, func(p *peer) {
				if p.request() != nil {
					p.send(whole[:end])
				}
			})
			if _, body, err := call(client(t, s.address), request(t, http.MethodPost, "x")); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: got %q, %v, want an unexpected end", whole[:end], body, err)
			}
		}
		s := listen(t, func(p *peer) { p.answerAll(whole) })
		c := client(t, s.address)
		for range 2 {
			wantHello(t, whole, c, request(t, http.MethodPost, "x"))
		}
		if s.accepted.Load() != 1 {
			t.Errorf("%q: the connection wasn't kept", whole)
		}
	}
}

// The same for one that comes byte by byte, and is whole.
func TestAResponseMayComeByteByByte(t *testing.T) {
	t.Parallel()
	for _, whole := range []string{
		hello,
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + hello,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
	} {
		s := listen(t, func(p *peer) {
			for p.request() != nil {
				for i := range len(whole) {
					p.send(whole[i : i+1])
				}
			}
		})
		c := client(t, s.address)
		for range 3 {
			wantHello(t, whole, c, request(t, http.MethodPost, "x"))
		}
		if s.accepted.Load() != 1 {
			t.Errorf("%q: the connection wasn't kept", whole)
		}
	}
}

func TestResponsesWithoutABodyEndWithTheirHead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ method, response string }{
		{http.MethodPost, "HTTP/1.1 204 No Content\r\n\r\n"},
		{http.MethodPost, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		{http.MethodPost, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{http.MethodHead, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		{http.MethodHead, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		s := listen(t, func(p *peer) { p.answerAll(test.response) })
		c := client(t, s.address)
		for range 2 {
			if _, body, err := call(c, request(t, test.method, "")); err != nil || body != "" {
				t.Errorf("%s, %q: got %q, %v, want no body", test.method, test.response, body, err)
			}
		}
		if s.accepted.Load() != 1 {
			t.Errorf("%s, %q: the connection wasn't kept", test.method, test.response)
		}
	}
}

// What RFC 9112 forbids a server, or what could be read in two ways, is an error and
// ends the connection.
func TestAMalformedResponseIsAnError(t *testing.T) {
	t.Parallel()
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, response := range map[string]string{
		"not HTTP":                  "SSH-2.0-OpenSSH_9.9\r\n",
		"HTTP/2":                    "\x00\x00\x12\x04\x00\x00\x00\x00\x00",
		"another version":           "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
		"no code":                   "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
		"a short code":              "HTTP/1.1 20\r\nContent-Length: 0\r\n\r\n",
		"a long code":               "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"a code below 100":          "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"another protocol":          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"no end of interim answers": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 6),
		"a line without its end":    "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
		"a field without its end":   "HTTP/1.1 200 OK\r\nX: x\nContent-Length: 0\r\n\r\n",
		"a line over two":           "HTTP/1.1 200 OK\r\nX: x\r\n y\r\nContent-Length: 0\r\n\r\n",
		"a space before the colon":  "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
		"a space before a field":    "HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n",
		"a field without a name":    "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
		"a field without a colon":   "HTTP/1.1 200 OK\r\nX\r\n\r\n",
		"a NUL":                     "HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
		"two lengths":               "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
		"a list of lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
		"a negative length":         "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
		"a length with a sign":      "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
		"an empty length":           "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
		"a length past any":         "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nhello",
		"a length and chunks":       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"chunks in HTTP/1.0":        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"another coding":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"two codings":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a chunk without a size":    chunked + "\r\nhello\r\n0\r\n\r\n",
		"a chunk's size in words":   chunked + "five\r\nhello\r\n0\r\n\r\n",
		"a chunk's size with 0x":    chunked + "0x5\r\nhello\r\n0\r\n\r\n",
		"a chunk past any":          chunked + "8000000000000000\r\nhello\r\n0\r\n\r\n",
		"a chunk's bare line feed":  chunked + "5\nhello\r\n0\r\n\r\n",
		"a chunk that is too long":  chunked + "5\r\nhello!\r\n0\r\n\r\n",
		"a chunk's endless line":    chunked + "5;" + strings.Repeat("x", 4096),
		"a trailer without a colon": chunked + "5\r\nhello\r\n0\r\nX\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan bool, 1)
			s := listen(t, func(p *peer) {
				p.request()
				p.send(response)
				closed <- p.ended()
			})
			if _, body, err := call(client(t, s.address), request(t, http.MethodPost, "x")); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: got %q, %v, want an error", response, body, err)
			}
			if !await(t, "the connection's end", closed) {
				t.Errorf("%q: the connection stays open", response)
			}
		})
	}
}

// A head takes no more memory than it may, nor do trailers.
func TestAHugeHeaderIsAnError(t *testing.T) {
	t.Parallel()
	line := "X-Filler: " + strings.Repeat("x", 1000) + "\r\n"
	for name, response := range map[string]string{
		"many fields":        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + strings.Repeat(line, 70) + "\r\nhello",
		"one field":          "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: " + strings.Repeat("x", 70_000) + "\r\n\r\nhello",
		"an endless line":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 200_000),
		"many trailers":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + strings.Repeat(line, 70) + "\r\n",
		"an endless trailer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: " + strings.Repeat("x", 200_000),
	} {
		s := listen(t, func(p *peer) {
			p.request()
			p.send(response)
			p.ended()
		})
		if _, _, err := call(client(t, s.address), request(t, http.MethodPost, "x")); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s: got %v, want an error that says that it is too large", name, err)
		}
	}
	s := listen(t, func(p *peer) {
		p.answerAll("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + strings.Repeat(line, 60) + "\r\nhello")
	})
	c := client(t, s.address)
	for range 2 {
		wantHello(t, "60 kB of header", c, request(t, http.MethodPost, "x"))
	}
}

func TestHeadersOfAResponse(t *testing.T) {
	t.Parallel()
	s := listen(t, func(p *peer) {
		p.answerAll("HTTP/1.1 429 Too Many Requests\r\ncontent-type:application/json\r\nSet-Cookie: a\r\nX-Empty:\r\nset-cookie: \t b \r\nContent-Length: 5\r\nSet-Cookie: c\r\n\r\nhello")
	})
	response, body, err := call(client(t, s.address), request(t, http.MethodPost, "x"))
	if err != nil || body != "hello" || response.StatusCode != http.StatusTooManyRequests || response.Status != "429 Too Many Requests" || response.ContentLength != 5 {
		t.Fatalf("got %+v, %q, %v", response, body, err)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Set-Cookie": "a,b,c", "X-Empty": "", "Content-Length": "5"} {
		if got, ok := response.Header[name]; !ok || strings.Join(got, ",") != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
