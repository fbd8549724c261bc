package http1

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// framing is how the end of a body is found (RFC 9112, section 6.3).
type framing int

const (
	byLength framing = iota
	byChunks
	byClose // of the connection
)

// response is a response with its body, in one piece of memory.
type response struct {
	http.Response
	body body
}

// newResponse reads the head of a response. Its body is read from the connection.
func newResponse(r *http.Request, head string, c *conn) (*response, error) {
	first := firstLine(head)
	status, err := parseStatus(first)
	if err != nil {
		return nil, err
	}
	header, err := parseFields(head[len(first)+2:])
	if err != nil {
		return nil, err
	}
	found := &response{Response: http.Response{
		Status: status.text, StatusCode: status.code, Proto: status.proto, ProtoMajor: 1, ProtoMinor: status.minor,
		Header: header, Request: r,
	}}
	if err := found.frame(r.Method); err != nil {
		return nil, err
	}
	found.Close = r.Close || status.minor == 0 || found.body.framing == byClose ||
		httpguts.HeaderValuesContainsToken(header["Connection"], "close") || httpguts.HeaderValuesContainsToken(r.Header["Connection"], "close")
	found.body.response, found.body.conn = found, c
	found.Body = &found.body
	return found, nil
}

// frame finds out how long the body is.
func (r *response) frame(method string) error {
	length, known, err := contentLength(r.Header["Content-Length"])
	if err != nil {
		return err
	}
	coding, chunked := r.Header["Transfer-Encoding"]
	switch {
	case chunked && (known || r.ProtoMinor == 0 || len(coding) != 1 || !strings.EqualFold(coding[0], "chunked")):
		return errors.New("the end of its body is ambiguous")
	case method == http.MethodHead:
		r.ContentLength = -1
		if known {
			r.ContentLength = length
		}
	case r.StatusCode == http.StatusNoContent, r.StatusCode == http.StatusNotModified:
	case chunked:
		r.ContentLength, r.body.framing = -1, byChunks
	case known:
		r.ContentLength, r.body.remaining = length, length
	default:
		r.ContentLength, r.body.framing = -1, byClose
	}
	if known {
		r.Header["Content-Length"] = r.Header["Content-Length"][:1] // a server may repeat it
	}
	if chunked {
		r.TransferEncoding = []string{"chunked"}
		delete(r.Header, "Transfer-Encoding")
	}
	return nil
}

func contentLength(values []string) (length int64, known bool, err error) {
	for i, value := range values {
		if value != values[0] {
			return 0, false, errors.New("it has several lengths")
		}
		if i > 0 {
			continue
		}
		parsed, err := strconv.ParseUint(value, 10, 63)
		if err != nil {
			return 0, false, fmt.Errorf("its length %q is not a number", value)
		}
		length = int64(parsed)
	}
	return length, len(values) > 0, nil
}

type status struct {
	proto, text string
	code, minor int
}

func firstLine(head string) string {
	line, _, _ := strings.Cut(head, "\r\n")
	return line
}

// parseStatus reads a status line such as "HTTP/1.1 200 OK".
func parseStatus(line string) (status, error) {
	const codeAt = len("HTTP/1.1 ")
	if len(line) < codeAt+3 || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return status{}, errMalformed
	}
	s := status{proto: line[:8], text: line[codeAt:], minor: int(line[7] - '0')}
	for _, digit := range []byte(s.text[:3]) {
		if digit < '0' || digit > '9' {
			return status{}, errMalformed
		}
		s.code = 10*s.code + int(digit-'0')
	}
	if s.code < 100 || len(s.text) > 3 && s.text[3] != ' ' || !httpguts.ValidHeaderFieldValue(s.text) {
		return status{}, errMalformed
	}
	return s, nil
}

// parseFields reads header fields, each of which ends with CR LF.
func parseFields(lines string) (http.Header, error) {
	count := strings.Count(lines, "\n")
	header := make(http.Header, count)
	values := make([]string, 0, count) // one for all fields
	for lines != "" {
		line, rest, _ := strings.Cut(lines, "\r\n")
		lines = rest
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, errMalformed
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if before, ok := header[name]; ok {
			header[name] = append(before, value)
			continue
		}
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return header, nil
}
