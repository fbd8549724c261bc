package bff

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/intake"
	"gatehouse/bff/shed"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// halfSend begins a request as if from an address, and never ends it.
func (h *harness) halfSend(t testing.TB, path, from, token string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	wantNoError(t, "dial", err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\nX-Forwarded-For: %s\r\nAuthorization: Bearer %s\r\n\r\n{", path, from, token)
	wantNoError(t, "send half a request", err)
	return conn
}

// reading is how many bodies are incomplete.
func (h *harness) reading() int { return h.gateway.intake.State().Reading }

func TestIncompleteRequestsOfOneAddressDoNotAffectOthers(t *testing.T) {
	t.Parallel()
	for _, stranger := range []int{64, 600} {
		t.Run(fmt.Sprint(stranger), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{served: true, limited: true, proxies: networks(t, "127.0.0.0/8")})
			sent := 0
			send := func() {
				path := []string{bffv1.AuthServiceRefreshProcedure, bffv1.AccountServiceUpdateMeProcedure, bffv1.AccountServiceGetMeProcedure, bffv1.AuthServiceLoginProcedure}[sent%4]
				h.halfSend(t, path, "198.51.100.7", h.token(bob))
				sent++
			}
			for range stranger {
				send()
			}
			// Those that time out are replaced, once a second: what was sent needs a moment.
			replaced := time.Now()
			beingRead := func() bool {
				missing := min(stranger, intake.ReadingPerAddress) - h.reading()
				if missing > 0 && time.Since(replaced) > time.Second {
					for range missing {
						send()
					}
					replaced = time.Now()
				}
				return missing <= 0
			}
			eventually(t, "the stranger's requests are being read", beingRead)
			for i := range 50 {
				_, got := h.getMe(t, h.token(alice), "X-Forwarded-For", "192.0.2.1")
				wantNoError(t, "GetMe of another caller", got.err)
				if i%10 != 0 {
					continue
				}
				_, got = ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, h.token(alice), "X-Forwarded-For", "192.0.2.1")
				wantNoError(t, "UpdateMe of another caller", got.err)
			}
			eventually(t, "no slot is held while they are being read", func() bool {
				return beingRead() && !slices.ContainsFunc(h.gateway.shedder.Classes(), func(class *shed.Class) bool {
					state := class.Queue.State()
					return state.Running != 0 || state.Waiting != 0
				})
			})
			if got := h.reading(); got > intake.ReadingPerAddress {
				t.Errorf("%d of the stranger's requests are being read, want at most %d", got, intake.ReadingPerAddress)
			}
		})
	}
}

// It is not parallel: all requests must be sent before the first one's time is over.
func TestTooManyIncompleteRequestsAreRefused(t *testing.T) {
	h := newHarness(t, options{served: true, limited: true, proxies: networks(t, "127.0.0.0/8")})
	for range intake.ReadingPerAddress {
		h.halfSend(t, bffv1.AccountServiceGetMeProcedure, "198.51.100.7", h.token(bob))
	}
	eventually(t, "they are being read", func() bool { return h.reading() == intake.ReadingPerAddress })
	_, got := h.getMe(t, h.token(alice), "X-Forwarded-For", "198.51.100.7")
	if connect.CodeOf(got.err) != connect.CodeResourceExhausted || fault.Reason(got.err) != "TOO_MANY_UNFINISHED_REQUESTS" {
		t.Errorf("one more from the same address: %v (%s), want TOO_MANY_UNFINISHED_REQUESTS", got.err, fault.Reason(got.err))
	}
	response, body := h.fetch(t, http.MethodPatch, "/api/v1/me", `{"user":{"firstName":"Ada"}}`, "Content-Type", "application/json", "Authorization", "Bearer "+h.token(alice), "X-Forwarded-For", "198.51.100.7")
	if response.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more over REST: %d %s, want 429", response.StatusCode, body)
	}
}

// A body that stalls ends by the minimum rate, long before the server's own timeout, and the
// part that was read is discarded.
func TestABodyThatStopsTimesOut(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, limited: true})
	conn := h.halfSend(t, bffv1.AccountServiceGetMeProcedure, "", h.token(alice))
	wantNoError(t, "set a deadline", conn.SetReadDeadline(time.Now().Add(time.Minute)))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	wantNoError(t, "read the answer", err)
	body, _ := io.ReadAll(response.Body)
	if !strings.Contains(string(body), "REQUEST_TOO_SLOW") {
		t.Errorf("%s %s, want REQUEST_TOO_SLOW", response.Status, body)
	}
	eventually(t, "it is forgotten", func() bool {
		state := h.gateway.intake.State()
		return state.Addresses == 0 && state.Bytes == 0
	})
}

// The answer to a stream waits for its body too, also if nobody reads that.
func TestTheBodyOfAStreamTimesOut(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, limited: true})
	plain := &http.Transport{}
	t.Cleanup(plain.CloseIdleConnections)
	urlOverTLS, overTLS := serveTLS(t, h.gateway)
	const call, events = bffv1.AccountServiceWatchMeProcedure, "/api/v1/me:watch"
	for version, over := range map[string]struct {
		client *http.Client
		url    string
		major  int
	}{
		"HTTP/1.1":        {&http.Client{Transport: plain}, h.url, 1},
		"HTTP/2":          {h2cClient(t), h.url, 2},
		"HTTP/2 over TLS": {overTLS, urlOverTLS, 2},
	} {
		for name, one := range map[string]struct{ method, path, kind, token, reason string }{
			"a call that is refused":              {http.MethodPost, call, "application/connect+json", "", "TOKEN_MISSING"},
			"server-sent events that are refused": {http.MethodGet, events, "application/json", "", "TOKEN_MISSING"},
			"a call":                              {http.MethodPost, call, "application/connect+json", "Bearer " + h.token(alice), "REQUEST_TOO_SLOW"},
			"server-sent events":                  {http.MethodGet, events, "application/json", "Bearer " + h.token(alice), "REQUEST_TOO_SLOW"},
		} {
			t.Run(name+" over "+version, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				unsent, never := io.Pipe()
				defer never.Close()
				request, err := http.NewRequestWithContext(ctx, one.method, over.url+one.path, unsent)
				wantNoError(t, "build a request", err)
				request.ContentLength = 100
				request.Header.Set("Content-Type", one.kind)
				if one.token != "" {
					request.Header.Set("Authorization", one.token)
				}
				response, err := over.client.Do(request)
				wantNoError(t, "send half a request", err)
				defer response.Body.Close()
				body, _ := io.ReadAll(response.Body)
				if !strings.Contains(string(body), one.reason) || response.ProtoMajor != over.major {
					t.Errorf("%s %s %s, want %s", response.Proto, response.Status, body, one.reason)
				}
			})
		}
	}
}
