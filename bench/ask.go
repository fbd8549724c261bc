package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse/gen/bff/v1"
)

// ask is a kind of request and the check of its response. Requests are prepared
// bytes, because an HTTP client would use more of the shared CPU.
type ask struct {
	line  string // the request line without its protocol
	extra string // headers, each with its end
	// body returns a person's message; nil if extra has everything.
	body func(*person) string
	// etags makes each person send the ETag of their last response.
	etags bool
	check func(status int, body []byte) error
}

const (
	postGetMe = "POST /bff.v1.AccountService/GetMe"
	noBody    = "Content-Length: 0\r\n"
	asProto   = "Content-Type: application/proto\r\nConnect-Protocol-Version: 1\r\n"
)

var (
	// overProto is GetMe over Connect with the proto codec. Its message is empty.
	overProto = ask{line: postGetMe, extra: asProto + noBody, check: wholeProto}
	// overJSON is the same with JSON both ways.
	overJSON = ask{line: postGetMe, extra: "Content-Type: application/json\r\nConnect-Protocol-Version: 1\r\nContent-Length: 2\r\n\r\n{}", check: wholeJSON}
	// byGet is the same by GET, whose response has an ETag.
	byGet = ask{line: "GET /bff.v1.AccountService/GetMe?connect=v1&encoding=proto&message=", check: wholeProto}
	// ifChanged is byGet with If-None-Match.
	ifChanged = ask{line: byGet.line, etags: true, check: unchanged}
	// auditEvents is a sheddable call, which the gateway sheds first.
	auditEvents = ask{line: "POST /bff.v1.AccountService/ListMyAuditEvents", extra: asProto + noBody, check: succeeded}
)

// of returns one person's request.
func (a ask) of(p *person, address string) []byte {
	var b strings.Builder
	b.WriteString(a.line + " HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: " + userAgent + "\r\n")
	for name, value := range p.headers() {
		b.WriteString(name + ": " + value + "\r\n")
	}
	if a.etags {
		b.WriteString("If-None-Match: " + p.etag + "\r\n")
	}
	b.WriteString(a.extra)
	if a.body != nil {
		message := a.body(p)
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(message), message)
		return []byte(b.String())
	}
	if !strings.Contains(a.extra, "\r\n\r\n") {
		b.WriteString("\r\n")
	}
	return []byte(b.String())
}

// ofAll returns every person's request.
func (a ask) ofAll(people []*person, address string) [][]byte {
	requests := make([][]byte, 0, len(people))
	for _, p := range people {
		requests = append(requests, a.of(p, address))
	}
	return requests
}

// read reads a response and reports whether the call succeeded; false means that it
// was shed. It returns an error for any other response or an incomplete one.
func (a ask) read(reader *bufio.Reader) (bool, error) {
	response, body, err := readResponse(reader)
	if err != nil {
		return false, err
	}
	if isRefusal(response) {
		return false, nil
	}
	return true, a.check(response.StatusCode, body)
}

func isRefusal(response *http.Response) bool {
	return response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != ""
}

func readResponse(reader *bufio.Reader) (*http.Response, []byte, error) {
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("read an answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("read an answer: %w", err)
	}
	return response, body, nil
}

func succeeded(status int, body []byte) error {
	if status != http.StatusOK {
		return fmt.Errorf("answered %d: %s", status, body)
	}
	return nil
}

func unchanged(status int, body []byte) error {
	if status != http.StatusNotModified {
		return fmt.Errorf("got status %d, want 304: %s", status, body)
	}
	return nil
}

func wholeProto(status int, body []byte) error {
	if err := succeeded(status, body); err != nil {
		return err
	}
	var answer bffv1.GetMeResponse
	if err := proto.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if len(answer.GetErrors()) > 0 || answer.GetUser().GetId() == "" || len(answer.GetSessions()) == 0 {
		return fmt.Errorf("GetMe left something out: %v", &answer)
	}
	return nil
}

// wholeJSON checks that required text is present; compare checks the content once,
// before the measurement.
func wholeJSON(status int, body []byte) error {
	if err := succeeded(status, body); err != nil {
		return err
	}
	for _, wanted := range []string{`"user"`, `"sessions"`, `"current"`, `"security"`} {
		if !bytes.Contains(body, []byte(wanted)) {
			return fmt.Errorf("GetMe left %s out: %s", wanted, body)
		}
	}
	return nil
}
