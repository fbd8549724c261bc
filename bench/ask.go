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

// ask is a way to ask for something, and what a whole answer to it is. The
// requests are bytes made beforehand, for an HTTP client would take more of the
// shared CPU than writing them does.
type ask struct {
	line  string // the request line without its protocol
	extra string // headers, each with its end
	// etags have each person send what their last answer was named.
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
	// byGet is the same by a GET, whose answer has an ETag.
	byGet = ask{line: "GET /bff.v1.AccountService/GetMe?connect=v1&encoding=proto&message=", check: wholeProto}
	// ifChanged is byGet of those who have the answer already.
	ifChanged = ask{line: byGet.line, etags: true, check: unchanged}
	// auditEvents is what nobody waits for: the gateway sheds it first.
	auditEvents = ask{line: "POST /bff.v1.AccountService/ListMyAuditEvents", extra: asProto + noBody, check: succeeded}
)

// of is one person's request.
func (a ask) of(p *person, address string) []byte {
	var b strings.Builder
	b.WriteString(a.line + " HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: gatehouse-bench\r\n")
	for name, value := range p.headers() {
		b.WriteString(name + ": " + value + "\r\n")
	}
	if a.etags {
		b.WriteString("If-None-Match: " + p.etag + "\r\n")
	}
	b.WriteString(a.extra)
	if !strings.Contains(a.extra, "\r\n\r\n") {
		b.WriteString("\r\n")
	}
	return []byte(b.String())
}

// ofAll is everybody's request.
func (a ask) ofAll(people []*person, address string) [][]byte {
	requests := make([][]byte, 0, len(people))
	for _, p := range people {
		requests = append(requests, a.of(p, address))
	}
	return requests
}

// read reads an answer, and returns whether it is one: a refusal for want of room
// is none. It returns an error unless an answer is a whole one.
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
		return fmt.Errorf("answered %d, not that nothing has changed: %s", status, body)
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

// wholeJSON looks for what must be there; that the answer means the same is
// compared once, beforehand.
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
