package http1

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// message is an encoded request. Its memory is reused.
type message struct{ bytes []byte }

var messages = sync.Pool{New: func() any { return &message{bytes: make([]byte, 0, 2048)} }}

// maxKeptBytes bounds the memory that is kept for later messages.
const maxKeptBytes = 64 << 10

func (m *message) release() {
	if cap(m.bytes) <= maxKeptBytes {
		m.bytes = m.bytes[:0]
		messages.Put(m)
	}
}

// encode reads the request's body, closes it, and returns the request as it is sent.
func encode(r *http.Request) (*message, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	m := messages.Get().(*message)
	encoded, err := appendRequest(m.bytes, r)
	m.bytes = encoded
	if err != nil {
		m.release()
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	return m, nil
}

// written are the fields that appendRequest derives from the request or refuses. Those
// in the header are ignored, as net/http does.
var written = []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer"}

// appendRequest appends the request as it is sent. It refuses what a server might read
// as another request.
func appendRequest(to []byte, r *http.Request) ([]byte, error) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	target := r.URL.RequestURI()
	switch {
	case r.Method == http.MethodConnect, !isToken(r.Method):
		return to, fmt.Errorf("the method %q can't be sent", r.Method)
	case !isTarget(target):
		return to, fmt.Errorf("the target %q has a character that it must not have", target)
	case host == "" || !httpguts.ValidHostHeader(host):
		return to, fmt.Errorf("the host %q is invalid", host)
	case len(r.Trailer) > 0:
		return to, errors.New("trailers can't be sent")
	}
	to = append(append(append(append(to, r.Method...), ' '), target...), " HTTP/1.1\r\nHost: "...)
	to = append(append(to, host...), "\r\n"...)
	for name, values := range r.Header {
		if slices.ContainsFunc(written, func(own string) bool { return strings.EqualFold(own, name) }) {
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return to, fmt.Errorf("the name %q of a header is invalid", name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return to, fmt.Errorf("the value of the header %s is invalid", name) // it may be secret
			}
			to = append(append(append(append(to, name...), ": "...), value...), "\r\n"...)
		}
	}
	if r.Close {
		to = append(to, "Connection: close\r\n"...)
	}
	return appendBody(to, r)
}

func appendBody(to []byte, r *http.Request) ([]byte, error) {
	length := int(r.ContentLength)
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		length = 0
	case length <= 0:
		return to, errors.New("the length of the body isn't known")
	}
	if length > 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		to = append(strconv.AppendInt(append(to, "Content-Length: "...), int64(length), 10), "\r\n"...)
	}
	to = append(to, "\r\n"...)
	if length == 0 {
		return to, nil
	}
	head := len(to)
	to = slices.Grow(to, length)[:head+length]
	if _, err := io.ReadFull(r.Body, to[head:]); err != nil {
		return to, fmt.Errorf("read the body: %w", err)
	}
	var more [1]byte
	if n, _ := r.Body.Read(more[:]); n > 0 {
		return to, errors.New("the body is longer than its length")
	}
	return to, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if !httpguts.IsTokenRune(rune(s[i])) {
			return false
		}
	}
	return s != ""
}

func isTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}
