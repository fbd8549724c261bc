package bff

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// These tests use a gateway that listens on a port, because net/http rejects many bad
// requests before a handler runs. No bad request may reach a service.

var (
	loginPath    = bffv1.AuthServiceLoginProcedure
	getMePath    = bffv1.AccountServiceGetMeProcedure
	updateMePath = bffv1.AccountServiceUpdateMeProcedure
)

const getMeQuery = "?connect=v1&encoding=json&message="

// overBoth runs a test over HTTP/1.1 and HTTP/2.
func overBoth(t *testing.T, h *harness, run func(*testing.T)) {
	t.Helper()
	plain := &http.Transport{}
	t.Cleanup(plain.CloseIdleConnections)
	for name, client := range map[string]*http.Client{"HTTP/1.1": {Transport: plain}, "HTTP/2": h2cClient(t)} {
		h.http = client
		t.Run(name, run)
	}
}

// wantNoCalls runs what must cause no call of a service.
func (h *harness) wantNoCalls(t *testing.T, run func()) {
	t.Helper()
	before := h.called("")
	run()
	if calls := h.called("") - before; calls != 0 {
		t.Errorf("services were called %d times, want never", calls)
	}
}

// post sends a body of a type, which may be of unknown length.
func (h *harness) post(t *testing.T, path, kind string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+path, body)
	wantNoError(t, path, err)
	request.Header.Set("Content-Type", kind)
	request.Header.Set("Authorization", "Bearer "+h.token(alice))
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := h.http.Do(request)
	wantNoError(t, path, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	wantNoError(t, path, err)
	return response, string(text)
}

// wantRefusal checks a refusal as it is on the wire: short, and in our words.
func wantRefusal(t *testing.T, what string, response *http.Response, body string, status int, code connect.Code, reason string) {
	t.Helper()
	var failure struct {
		Code, Message string
		Details       []struct{ Type, Value string }
	}
	if err := json.Unmarshal([]byte(body), &failure); err != nil {
		t.Errorf("%s: got %d %.200q, which is no JSON: %v", what, response.StatusCode, body, err)
		return
	}
	var info errdetails.ErrorInfo
	for _, detail := range failure.Details {
		if detail.Type == "google.rpc.ErrorInfo" {
			value, err := base64.RawStdEncoding.DecodeString(detail.Value)
			if err == nil {
				err = proto.Unmarshal(value, &info)
			}
			wantNoError(t, what, err)
		}
	}
	if response.StatusCode != status || failure.Code != code.String() || info.GetReason() != reason || failure.Message == "" || len(body) > 2000 {
		t.Errorf("%s: got %d %.500s (%s), want a short %d %s %s", what, response.StatusCode, body, info.GetReason(), status, code, reason)
	}
}

// wantAllocated fails the test if the process allocates more than most bytes during
// run. Do not call it from a parallel test.
func wantAllocated(t *testing.T, what string, most uint64, run func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > most {
		t.Errorf("%s: %d KiB were allocated, want at most %d", what, allocated>>10, most>>10)
	}
}

func TestALargeBodyIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	large := `{"unknown":"` + strings.Repeat("x", rpc.MaxMessageBytes+1000) + `"}`
	overBoth(t, h, func(t *testing.T) {
		h.wantNoCalls(t, func() {
			for _, path := range []string{loginPath, updateMePath} {
				response, body := h.post(t, path, "application/json", strings.NewReader(large))
				wantRefusal(t, path+" with a length", response, body, http.StatusTooManyRequests, connect.CodeResourceExhausted, fault.ReasonTooLarge)
				response, body = h.post(t, path, "application/json", io.MultiReader(strings.NewReader(large)))
				wantRefusal(t, path+" in chunks", response, body, http.StatusTooManyRequests, connect.CodeResourceExhausted, fault.ReasonTooLarge)
			}
		})
	})
}

// endless is a body without an end.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read.Add(int64(len(p)))
	return len(p), nil
}

func TestAnEndlessBodyIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	h.wantNoCalls(t, func() {
		body := &endless{}
		response, text := h.post(t, loginPath, "application/json", body)
		wantRefusal(t, "HTTP/2", response, text, http.StatusTooManyRequests, connect.CodeResourceExhausted, fault.ReasonTooLarge)
		if read := body.read.Load(); read > 8<<20 {
			t.Errorf("HTTP/2: %d bytes were read, want little more than 1 MiB", read)
		}

		conn := dialRaw(t, h.url)
		go func() {
			_, err := io.WriteString(conn, "POST "+loginPath+" HTTP/1.1\r\nHost: gatehouse\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(conn, "1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n")
			}
		}()
		response, text = readResponse(t, conn)
		wantRefusal(t, "HTTP/1.1", response, text, http.StatusTooManyRequests, connect.CodeResourceExhausted, fault.ReasonTooLarge)
	})
}

func dialRaw(t *testing.T, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	wantNoError(t, "dial", err)
	t.Cleanup(func() { _ = conn.Close() })
	wantNoError(t, "set a deadline", conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

func readResponse(t *testing.T, conn net.Conn) (*http.Response, string) {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	wantNoError(t, "read the answer", err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	wantNoError(t, "read the answer", err)
	return response, string(body)
}

// zipBomb is a gigabyte of zeros in less than a megabyte: gzip may hold one
// archive after another.
func zipBomb(t *testing.T) []byte {
	t.Helper()
	var member bytes.Buffer
	writer, err := gzip.NewWriterLevel(&member, gzip.BestCompression)
	wantNoError(t, "zip", err)
	_, err = writer.Write(make([]byte, 16<<20))
	wantNoError(t, "zip", err)
	wantNoError(t, "zip", writer.Close())
	return bytes.Repeat(member.Bytes(), (rpc.MaxMessageBytes-5)/member.Len())
}

func TestABombIsNotUnpacked(t *testing.T) {
	h := newHarness(t, options{served: true})
	bomb := zipBomb(t)
	envelope := append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(bomb))), bomb...)
	h.wantNoCalls(t, func() {
		for _, kind := range []string{"application/json", "application/proto"} {
			wantAllocated(t, kind, 16<<20, func() {
				response, body := h.post(t, updateMePath, kind, bytes.NewReader(bomb), "Content-Encoding", "gzip")
				wantRefusal(t, kind, response, body, http.StatusTooManyRequests, connect.CodeResourceExhausted, fault.ReasonTooLarge)
			})
		}
		for _, kind := range []string{"application/grpc", "application/grpc-web"} {
			wantAllocated(t, kind, 16<<20, func() {
				response, body := h.post(t, updateMePath, kind, bytes.NewReader(envelope), "Grpc-Encoding", "gzip")
				status := response.Trailer.Get("Grpc-Status") + response.Header.Get("Grpc-Status")
				if status != "8" && !strings.Contains(body, "grpc-status: 8") {
					t.Errorf("%s: got %v %v %.200q, want the status 8", kind, response.Header, response.Trailer, body)
				}
			})
		}
	})
}

func TestTenThousandHeadersAreRefused(t *testing.T) {
	h := newHarness(t, options{served: true})
	token := h.token(alice)
	h.wantNoCalls(t, func() {
		// As short as can be, they would fit into the bound of their size.
		for name, header := range map[string]string{"short": "%x:\r\n", "long": "x-some-header-%d: value\r\n"} {
			var text strings.Builder
			fmt.Fprintf(&text, "GET %s%s{} HTTP/1.1\r\nHost: gatehouse\r\nAuthorization: Bearer %s\r\n", getMePath, getMeQuery, token)
			for i := range 10_000 {
				fmt.Fprintf(&text, header, i)
			}
			text.WriteString("\r\n")
			wantAllocated(t, name, 16<<20, func() {
				conn := dialRaw(t, h.url)
				go func() { _, _ = io.WriteString(conn, text.String()) }()
				response, body := readResponse(t, conn)
				if name == "short" {
					wantRefusal(t, name, response, body, http.StatusRequestHeaderFieldsTooLarge, connect.CodeResourceExhausted, fault.ReasonTooLarge)
				} else if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("%s: got %d %.200q, want 431", name, response.StatusCode, body)
				}
			})
		}
		// HTTP/2 bounds their size with 32 bytes for each: ten thousand end the
		// connection, of a client that cares for no bound.
		for count, want := range map[int][]string{1000: {"431"}, 10_000: {"431", "PROTOCOL_ERROR"}} {
			pairs := getMeOverHTTP2("{}", token)
			for i := range count {
				pairs = append(pairs, fmt.Sprintf("x-%x", i), "")
			}
			wantAllocated(t, "HTTP/2", 16<<20, func() {
				if got := answerOverHTTP2(t, h, pairs); !slices.Contains(want, got) {
					t.Errorf("HTTP/2, %d: got the status %s, want %v", count, got, want)
				}
			})
		}
	})
	// Headers that browsers and proxies send are accepted.
	var headers []string
	for i := range 100 {
		headers = append(headers, fmt.Sprintf("X-Some-%d", i), "value")
	}
	_, got := h.getMe(t, token, headers...)
	wantNoError(t, "a hundred headers", got.err)
}

func getMeOverHTTP2(message, token string) []string {
	return []string{
		":method", "GET", ":scheme", "http", ":authority", "gatehouse", ":path", getMePath + getMeQuery + message,
		"authorization", "Bearer " + token,
	}
}

// requester speaks HTTP/2 frame by frame with the gateway.
func requester(t *testing.T, h *harness) *wire {
	t.Helper()
	conn := dialRaw(t, h.url)
	_, err := io.WriteString(conn, http2.ClientPreface)
	wantNoError(t, "begin", err)
	w := &wire{Framer: http2.NewFramer(conn, conn), conn: conn, stream: 1}
	w.AllowIllegalWrites = true
	w.hpack = hpack.NewEncoder(&w.buffer)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	wantNoError(t, "begin", w.WriteSettings())
	return w
}

// answerOverHTTP2 sends a request of these headers and returns the status, or
// how the connection ended.
func answerOverHTTP2(t *testing.T, h *harness, pairs []string) string {
	t.Helper()
	w := requester(t, h)
	go w.longRequest(w.encode(pairs...))
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.GoAwayFrame:
			return frame.ErrCode.String()
		}
	}
}

// longRequest is long, with no body after it.
func (w *wire) longRequest(block []byte) {
	n := min(len(block), 16<<10)
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: block[:n], EndStream: true, EndHeaders: n == len(block)})
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), 16<<10)
		if w.WriteContinuation(w.stream, n == len(block), block[:n]) != nil {
			return
		}
	}
}

func TestAMegabyteInTheQueryIsRefused(t *testing.T) {
	h := newHarness(t, options{served: true})
	token, message := h.token(alice), `{"unknown":"`+strings.Repeat("x", 1<<20)+`"}`
	h.wantNoCalls(t, func() {
		wantAllocated(t, "HTTP/1.1", 16<<20, func() {
			conn := dialRaw(t, h.url)
			go func() {
				_, _ = io.WriteString(conn, "GET "+getMePath+getMeQuery+message+" HTTP/1.1\r\nHost: gatehouse\r\nAuthorization: Bearer "+token+"\r\n\r\n")
			}()
			if response, body := readResponse(t, conn); response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("HTTP/1.1: got %d %.200q, want 431", response.StatusCode, body)
			}
		})
		wantAllocated(t, "HTTP/2", 16<<20, func() {
			got := answerOverHTTP2(t, h, getMeOverHTTP2(message, token))
			if got != "431" && got != "COMPRESSION_ERROR" && got != "PROTOCOL_ERROR" {
				t.Errorf("HTTP/2: got %s, want 431 or the connection's end with its reason", got)
			}
		})
	})
}

func TestASlowBodyTimesOut(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	token := h.token(alice)
	var both sync.WaitGroup
	both.Go(func() {
		conn := dialRaw(t, h.url)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gatehouse\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", updateMePath, token)
		response, body := readResponse(t, conn)
		wantRefusal(t, "HTTP/1.1", response, body, http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, "REQUEST_TOO_SLOW")
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("HTTP/1.1: got %v, want the connection's end", err)
		}
	})
	both.Go(func() {
		w := requester(t, h)
		_ = w.block(false, ":method", "POST", ":scheme", "http", ":authority", "gatehouse", ":path", updateMePath,
			"content-type", "application/json", "authorization", "Bearer "+token)
		_ = w.WriteData(1, false, []byte("{"))
		response := &http.Response{StatusCode: http.StatusGatewayTimeout}
		for {
			frame, err := w.ReadFrame()
			if err != nil {
				t.Errorf("HTTP/2: %v, want an answer before the minute is over", err)
				return
			}
			switch frame := frame.(type) {
			case *http2.MetaHeadersFrame:
				if status := frame.PseudoValue("status"); status != "504" {
					t.Errorf("HTTP/2: got the status %s, want 504", status)
				}
			case *http2.DataFrame:
				wantRefusal(t, "HTTP/2", response, string(frame.Data()), http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, "REQUEST_TOO_SLOW")
				return
			}
		}
	})
	h.wantNoCalls(t, both.Wait)
}

func TestAThousandUnknownKeysCauseNoCall(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	h.wantNoCalls(t, func() {
		var callers sync.WaitGroup
		for caller := range 8 {
			callers.Go(func() {
				for i := range 125 {
					kid := fmt.Sprintf("unknown-%d-%d", caller, i)
					_, got := h.getMe(t, h.signer.token(func(header, _ map[string]any) { header["kid"] = kid }))
					wantError(t, kid, got, http.StatusUnauthorized, connect.CodeUnauthenticated, "TOKEN_INVALID")
				}
			})
		}
		callers.Wait()
	})
}

// Who somebody is comes from the access token alone, and what a service is sent
// from the gateway alone.
func TestForgedIdentityHeadersReachNobody(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{apart: true})
	var forged []string
	for _, name := range []string{
		"X-User-Id", "X-User-Roles", "X-Forwarded-User", "X-Forwarded-Email", "X-Auth-Request-User", "Remote-User", "X-Remote-User",
		"X-Gatehouse-User", "X-Gatehouse-Principal", "X-Gatehouse-Roles", "X-Gatehouse-Caller", "X-Internal-Token", "X-Account-Id", "X_User_Id",
		"Proxy-Authorization", "Cookie", "X-Amzn-Oidc-Identity", "X-Goog-Authenticated-User-Id", "X-Client-Cert", "X-Original-Url", "X-Http-Method-Override",
	} {
		forged = append(forged, name, "forged-"+bob)
	}
	var seen []string
	h.onRequest = func(header *connect.Header) {
		for name, values := range header.All() {
			if text := strings.Join(values, ","); strings.Contains(text, bob) || strings.Contains(text, h.token(alice)) {
				t.Errorf("a service was sent %s: %.100s", name, text)
			}
			seen = append(seen, name)
		}
	}
	sent := func(headers ...string) []string {
		h.mu.Lock()
		seen = nil
		h.mu.Unlock()
		me, got := h.getMe(t, h.token(alice), headers...)
		wantNoError(t, "GetMe", got.err)
		if me.GetUser().GetId() != alice {
			t.Errorf("GetMe: got %s, want the token's %s", me.GetUser().GetId(), alice)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		slices.Sort(seen)
		return slices.Compact(slices.Clone(seen))
	}
	plain, withForged := sent(), sent(forged...)
	if !slices.Equal(plain, withForged) {
		t.Errorf("with forged headers services were sent %v, without them %v", withForged, plain)
	}
	// The messages to services contain nothing from them either.
	answer(h.backend, authv1.SessionServiceLoginProcedure, func(_ context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		if text := req.String(); strings.Contains(text, bob) || req.GetOrigin().GetAccountId() != "" {
			t.Errorf("auth received %s", text)
		}
		return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
	})
	_, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "correct horse"}, "", forged...)
	wantNoError(t, "Login", got.err)
	h.wantNoCalls(t, func() { // and without a token they make nobody of anybody
		_, got := h.getMe(t, "", forged...)
		wantError(t, "forged headers alone", got, http.StatusUnauthorized, connect.CodeUnauthenticated, "TOKEN_MISSING")
	})
}

func TestForwardedHeadersOfStrangersAreIgnored(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	addresses := make(chan string, 1)
	answer(h.backend, authv1.SessionServiceLoginProcedure, func(_ context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		addresses <- req.GetOrigin().GetIpAddress()
		return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
	})
	for _, header := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Client-Ip", "Fastly-Client-Ip"} {
		value := "203.0.113.7"
		if header == "Forwarded" {
			value = "for=203.0.113.7;host=evil.example;proto=https"
		}
		_, got := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "correct horse"}, "",
			header, value, "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https")
		wantNoError(t, header, got.err)
		if address := <-addresses; address != "127.0.0.1" {
			t.Errorf("%s: auth received %q, want the peer's own 127.0.0.1", header, address)
		}
	}
}

func TestAnInvalidMaskCausesNoCall(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	overBoth(t, h, func(t *testing.T) {
		for _, mask := range [][]string{
			{"nickname"}, {"email"}, {"first_name", "nickname"}, {"firstName"}, {"user.first_name"}, {"roles"}, {"id"}, {"*"}, {""},
			{"first__name"}, {strings.Repeat("x", 100_000)}, slices.Repeat([]string{"x"}, 100_000),
		} {
			user, named := &bffv1.User{Id: alice, FirstName: "F"}, &fieldmaskpb.FieldMask{Paths: mask}
			for path, message := range map[string]proto.Message{
				updateMePath:                         &bffv1.UpdateMeRequest{User: user, UpdateMask: named},
				bffv1.UserServiceUpdateUserProcedure: &bffv1.UpdateUserRequest{User: user, UpdateMask: named},
			} {
				text, err := proto.Marshal(message)
				wantNoError(t, "marshal", err)
				h.wantNoCalls(t, func() {
					response, body := h.post(t, path, "application/proto", bytes.NewReader(text))
					wantRefusal(t, fmt.Sprintf("%s of %.20q", path, mask), response, body, http.StatusBadRequest, connect.CodeInvalidArgument, "UPDATE_MASK_INVALID")
				})
			}
		}
		h.wantNoCalls(t, func() {
			response, body := h.post(t, updateMePath, "application/json", strings.NewReader(`{"user":{"firstName":"F"},"updateMask":"firstName,nickname"}`))
			wantRefusal(t, "JSON", response, body, http.StatusBadRequest, connect.CodeInvalidArgument, "UPDATE_MASK_INVALID")
		})
	})
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	h := newHarness(t, options{served: true})
	const jsonType, protoType = "application/json", "application/proto"
	deep := 500_000
	for name, test := range map[string]struct{ kind, body string }{
		"deep arrays":             {jsonType, `{"x":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`},
		"deep arrays without end": {jsonType, `{"x":` + strings.Repeat("[", deep)},
		"deep objects":            {jsonType, `{"x":` + strings.Repeat(`{"x":`, deep/10) + "1" + strings.Repeat("}", deep/10) + `}`},
		"deep groups":             {protoType, strings.Repeat("\x7b", deep) + strings.Repeat("\x7c", deep)},
		"a key twice":             {jsonType, `{"user":{"firstName":"A","firstName":"B"}}`},
		"a message twice":         {jsonType, `{"user":{"firstName":"A"},"user":{"firstName":"B"}}`},
		"a key by both names":     {jsonType, `{"user":{"firstName":"A","first_name":"B"}}`},
		"invalid UTF-8":           {jsonType, "{\"user\":{\"firstName\":\"A\xff\"}}"},
		"half a surrogate pair":   {jsonType, `{"user":{"firstName":"\ud800"}}`},
		"UTF-8 that is too long":  {jsonType, "{\"user\":{\"firstName\":\"\xc0\xaf\"}}"},
		"invalid UTF-8 in proto":  {protoType, "\x0a\x04\x22\x02A\xff"},
		"a length beyond the end": {protoType, "\x0a\xff\xff\xff\xff\x07"},
		"a number for a name":     {jsonType, `{"user":{"firstName":5}}`},
		"two values":              {jsonType, `{}{}`},
	} {
		wantAllocated(t, name, 64<<20, func() {
			h.wantNoCalls(t, func() {
				response, body := h.post(t, updateMePath, test.kind, strings.NewReader(test.body))
				wantRefusal(t, name, response, body, http.StatusBadRequest, connect.CodeInvalidArgument, fault.ReasonMalformed)
			})
		})
	}
}

// callCounter counts the calls that a service has.
type callCounter struct {
	running, most, all atomic.Int64
	stopped            chan struct{} // closed after asked is
}

// countCalls counts the beginnings and ends of calls until asked is closed.
func countCalls(asked <-chan struct{}, ended <-chan error) *callCounter {
	c := &callCounter{stopped: make(chan struct{})}
	go func() {
		defer close(c.stopped)
		for open := true; open; {
			select {
			case _, open = <-asked:
				c.most.Store(max(c.most.Load(), c.running.Add(1)))
				c.all.Add(1)
			case <-ended:
				c.running.Add(-1)
			}
		}
	}()
	return c
}

// readPings reads frames until the connection ends, when it closes read. It sends to
// ponged for each PING frame, and fails the test for a GOAWAY frame.
func readPings(t *testing.T, w *wire) (read, ponged chan struct{}) {
	read, ponged = make(chan struct{}), make(chan struct{}, 1)
	go func() {
		defer close(read)
		for {
			frame, err := w.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.PingFrame:
				ponged <- struct{}{}
			case *http2.GoAwayFrame:
				t.Errorf("the server goes away: %v", frame.ErrCode)
			}
		}
	}()
	return read, ponged
}

// CVE-2023-39325: requests that are reset at once must not pile up.
func TestRapidResetsDoNotPileUp(t *testing.T) {
	h := newHarness(t, options{served: true})
	asked, ended := h.hang(authv1.AccountServiceGetAccountProcedure)
	calls := countCalls(asked, ended)
	w := requester(t, h)
	read, ponged := readPings(t, w)
	pairs := getMeOverHTTP2("{}", h.token(alice))
	next := uint32(1)
	begin := func() (stream uint32) {
		w.stream, next = next, next+2
		wantNoError(t, "begin a stream", w.block(true, pairs...))
		return w.stream
	}
	for wave := range int64(5) { // reset once a service works for them
		var streams []uint32
		for range 100 {
			streams = append(streams, begin())
		}
		eventually(t, "the service is asked", func() bool { return calls.all.Load() == 100*(wave+1) })
		for _, w.stream = range streams {
			w.reset(http2.ErrCodeCancel)
		}
		eventually(t, "the calls of requests that were reset end", func() bool { return calls.running.Load() == 0 })
	}
	for range 1000 { // reset at once
		begin()
		w.reset(http2.ErrCodeCancel)
	}
	wantNoError(t, "ping", w.WritePing(false, [8]byte{}))
	select { // all before it was read
	case <-ponged:
	case <-time.After(30 * time.Second):
		t.Error("the server answers no ping after a thousand resets")
	}
	eventually(t, "the calls of requests that were reset end", func() bool { return calls.running.Load() == 0 })
	_ = w.conn.Close()
	<-read
	answer(h.backend, authv1.AccountServiceGetAccountProcedure, func(_ context.Context, req *authv1.GetAccountRequest) (*authv1.GetAccountResponse, error) {
		return &authv1.GetAccountResponse{Account: accountOf(req.GetAccountId())}, nil
	})
	_, got := h.getMe(t, h.token(alice))
	wantNoError(t, "another's call", got.err)
	if calls.most.Load() > 250 {
		t.Errorf("%d calls of one connection were under way at once, want at most 250", calls.most.Load())
	}
	t.Logf("%d calls began, at most %d at once", calls.all.Load(), calls.most.Load())
	close(asked)
	<-calls.stopped
}
