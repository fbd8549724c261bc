package http1_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCallsOneAfterAnotherUseOneConnection(t *testing.T) {
	t.Parallel()
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost && len(body)%2 == 0 {
			_ = http.NewResponseController(w).Flush() // so that the response has chunks
		}
		_, _ = w.Write(body)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := client(t, s.Listener.Addr().String())
	for i := range 50 {
		want := strings.Repeat("x", i*i*40)
		if _, got, err := call(c, request(t, http.MethodPost, want)); err != nil || got != want {
			t.Fatalf("a body of %d bytes: got %d bytes, %v", len(want), len(got), err)
		}
		if _, _, err := call(c, request(t, http.MethodGet, "")); err != nil {
			t.Fatal(err)
		}
		response, err := c.RoundTrip(request(t, http.MethodHead, ""))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	if opened.Load() != 1 {
		t.Errorf("150 calls, one after another, opened %d connections, want 1", opened.Load())
	}
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestARequestIsOneWrite(t *testing.T) {
	t.Parallel()
	received := make(chan *http.Request, 2)
	s := listen(t, func(p *peer) {
		for r := p.request(); r != nil; r = p.request() {
			received <- r
			p.send(hello)
		}
	})
	c := client(t, s.address)
	var writes atomic.Int64
	dial := c.Dial
	c.Dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		return countingConn{Conn: conn, writes: &writes}, err
	}
	for i, size := range []int{10, 200_000} {
		r := request(t, http.MethodPost, strings.Repeat("x", size))
		r.Header.Set("X-Name", "value")
		r.Header["content-length"] = []string{"1"} // would make the rest a second request
		wantHello(t, "a call", c, r)
		got := await(t, "the request", received)
		body, _ := io.ReadAll(got.Body)
		if got.Host != "service.test" || got.RequestURI != "/path?query=1" || got.Header.Get("X-Name") != "value" || len(body) != size {
			t.Errorf("the server got %v with %d bytes, want all of the request with %d", got, len(body), size)
		}
		if writes.Load() != int64(i+1) {
			t.Errorf("after %d requests: %d writes", i+1, writes.Load())
		}
	}
}

// A connection that the server has closed is not used, so even a call that must not be
// repeated succeeds.
func TestAStaleConnectionIsNotUsed(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*peer){
		"closed":      func(p *peer) { _ = p.Close() },
		"half closed": func(p *peer) { _ = p.CloseWrite() },
		"reset": func(p *peer) {
			_ = p.SetLinger(0)
			_ = p.Close()
		},
		"sent something": func(p *peer) { p.send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			s := listen(t, func(p *peer) {
				if p.request() == nil {
					return
				}
				p.send(hello)
				if p.number == 20 {
					return
				}
				time.Sleep(time.Millisecond) // so that the answer is read first
				end(p)
				ended <- struct{}{}
				if name == "half closed" && !p.ended() {
					t.Error("the client sent something on a connection that is half closed")
				}
			})
			c := client(t, s.address)
			for i := range 20 {
				wantHello(t, fmt.Sprint("call ", i), c, request(t, http.MethodPost, "x"))
				if i < 19 {
					await(t, "the connection's end", ended)
				}
			}
			if s.requests.Load() != 20 || s.accepted.Load() != 20 {
				t.Errorf("20 calls: %d requests on %d connections, want 20 and 20", s.requests.Load(), s.accepted.Load())
			}
		})
	}
}

// A connection may be closed just as a request is sent on it. Whether the server acted
// on the request isn't known then.
func TestALostRequestIsSentAgainOnlyIfItMayBe(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method, key string
		again             bool
	}{
		{"a read", http.MethodGet, "", true},
		{"a write with a key", http.MethodPost, "key", true},
		{"a write", http.MethodPost, "", false},
	} {
		s := listen(t, func(p *peer) {
			if p.request() == nil {
				return
			}
			p.send(hello)
			if p.number == 1 {
				p.request() // and no answer
			}
		})
		c := client(t, s.address)
		wantHello(t, test.name, c, request(t, http.MethodPost, "x"))
		r := request(t, test.method, "")
		if test.key != "" {
			r.Header.Set("Idempotency-Key", test.key)
		}
		_, body, err := call(c, r)
		want := int64(2)
		if test.again {
			want = 3
		}
		if (err == nil) != test.again || s.requests.Load() != want {
			t.Errorf("%s that is lost on a kept connection: got %q, %v after %d requests, want it sent again: %v", test.name, body, err, s.requests.Load(), test.again)
		}
	}

	s := listen(t, func(p *peer) { p.request() })
	if _, _, err := call(client(t, s.address), request(t, http.MethodGet, "")); !errors.Is(err, io.ErrUnexpectedEOF) || s.requests.Load() != 1 {
		t.Errorf("a read that is lost on a new connection: got %v after %d requests, want an error after one", err, s.requests.Load())
	}
}

// What comes after a response belongs to no request.
func TestBytesAfterAResponseCostTheConnection(t *testing.T) {
	t.Parallel()
	for _, response := range []string{
		hello + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		hello + "\r\n",
	} {
		s := listen(t, func(p *peer) { p.answerAll(response) })
		c := client(t, s.address)
		for range 3 {
			wantHello(t, "with bytes that follow", c, request(t, http.MethodPost, "x"))
		}
		if s.accepted.Load() != 3 {
			t.Errorf("%q: 3 calls used %d connections, want 3", response, s.accepted.Load())
		}
	}
}

func TestAConnectionIsKeptOnlyWhereTheServerKeepsIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		response string
		ends     bool // the server closes the connection after it
		conns    int64
	}{
		{hello, false, 1},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", false, 3},
		{"HTTP/1.1 200 OK\r\nconnection: x, CLOSE\r\nContent-Length: 5\r\n\r\nhello", false, 3},
		{"HTTP/1.1 200 OK\r\n\r\nhello", true, 3},
		{"HTTP/1.0 200 OK\r\n\r\nhello", true, 3},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 3},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", false, 3},
	} {
		s := listen(t, func(p *peer) {
			for p.request() != nil {
				p.send(test.response)
				if test.ends {
					return
				}
			}
		})
		c := client(t, s.address)
		for range 3 {
			wantHello(t, test.response, c, request(t, http.MethodPost, "x"))
		}
		if s.accepted.Load() != test.conns {
			t.Errorf("%q: 3 calls used %d connections, want %d", test.response, s.accepted.Load(), test.conns)
		}
	}

	s := listen(t, func(p *peer) { p.answerAll(hello) })
	c := client(t, s.address)
	for range 3 {
		r := request(t, http.MethodPost, "x")
		r.Close = true
		wantHello(t, "a request that ends its connection", c, r)
	}
	response, err := c.RoundTrip(request(t, http.MethodPost, "x"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if n, err := response.Body.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("reading a body that was closed: %d bytes, %v, want an error", n, err)
	}
	wantHello(t, "after a body that wasn't read", c, request(t, http.MethodPost, "x"))
	if s.accepted.Load() != 5 {
		t.Errorf("5 calls that each end their connection used %d", s.accepted.Load())
	}
}

// A server that answers before it has read the whole request says why.
func TestAnEarlyAnswerIsRead(t *testing.T) {
	t.Parallel()
	s := listen(t, func(p *peer) {
		_, _ = p.reader.Peek(1)
		p.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
		_ = p.CloseWrite()
		_, _ = io.Copy(io.Discard, io.LimitReader(p, 1<<20))
	})
	response, body, err := call(client(t, s.address), request(t, http.MethodPost, strings.Repeat("x", 32<<20)))
	if err != nil || response.StatusCode != http.StatusRequestEntityTooLarge || body != "large" {
		t.Errorf("got %v, %q, %v, want 413", response, body, err)
	}
}

func TestIdleConnectionsAreBoundedAndGrowOld(t *testing.T) {
	t.Parallel()
	const calls, kept = 6, 2
	for _, test := range []struct {
		timeout time.Duration
		closed  int64
	}{{time.Hour, calls - kept}, {300 * time.Millisecond, calls}} {
		var together sync.WaitGroup
		together.Add(calls)
		var closed atomic.Int64
		s := listen(t, func(p *peer) {
			if p.request() == nil {
				return
			}
			together.Done()
			together.Wait()
			p.send(hello)
			if p.ended() {
				closed.Add(1)
			}
		})
		c := client(t, s.address)
		c.MaxIdle, c.IdleTimeout = kept, test.timeout
		var callers sync.WaitGroup
		for range calls {
			callers.Go(func() { wantHello(t, "a call", c, request(t, http.MethodPost, "x")) })
		}
		callers.Wait()
		for until := time.Now().Add(patience / 2); closed.Load() < test.closed && time.Now().Before(until); {
			time.Sleep(5 * time.Millisecond)
		}
		if closed.Load() != test.closed {
			t.Errorf("%d calls at once, of whose connections %d are kept for %v: %d were closed, want %d", calls, kept, test.timeout, closed.Load(), test.closed)
		}
	}
}

func TestClosingIdleConnectionsLeavesCallsAlone(t *testing.T) {
	t.Parallel()
	asked, answer, closed := make(chan struct{}), make(chan struct{}), make(chan bool, 2)
	s := listen(t, func(p *peer) {
		if p.request() == nil {
			return
		}
		asked <- struct{}{}
		<-answer
		p.send(hello)
		closed <- p.ended()
	})
	c := client(t, s.address)
	var callers sync.WaitGroup
	callers.Go(func() { wantHello(t, "a call during which the others are closed", c, request(t, http.MethodPost, "x")) })
	await(t, "the request", asked)
	c.CloseIdleConnections()
	close(answer)
	callers.Wait()
	if !await(t, "the connection's end", closed) {
		t.Error("the connection of the call was kept")
	}
	callers.Go(func() { wantHello(t, "a later call", c, request(t, http.MethodPost, "x")) })
	await(t, "the request", asked)
	callers.Wait()
	c.CloseIdleConnections()
	if !await(t, "the connection's end", closed) {
		t.Error("an idle connection stayed open")
	}
}

// Callers at the same time, some of whom leave, never get each other's answers.
func TestConcurrentCallersGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	c := client(t, s.Listener.Addr().String())
	c.MaxIdle = 8
	var callers sync.WaitGroup
	var succeeded atomic.Int64
	for caller := range 16 {
		callers.Go(func() {
			for i := range 60 {
				ctx, cancel := context.WithCancel(t.Context())
				want := strings.Repeat(fmt.Sprint(caller, "-", i, " "), 1+i*20)
				if i%5 == 0 {
					leave := time.AfterFunc(time.Duration(i)*5*time.Microsecond, cancel)
					defer leave.Stop()
				}
				_, got, err := call(c, requestWith(ctx, t, http.MethodPost, want))
				switch {
				case err == nil && got == want:
					succeeded.Add(1)
				case err == nil:
					t.Errorf("caller %d, call %d: got another answer: %.40q", caller, i, got)
				case ctx.Err() == nil:
					t.Errorf("caller %d, call %d: %v", caller, i, err)
				}
				cancel()
			}
		})
	}
	callers.Wait()
	if succeeded.Load() < 16*48 {
		t.Errorf("%d calls succeeded, want all that were not cancelled", succeeded.Load())
	}
}
