package serve_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/rpctest"
	"gatehouse/internal/serve"
)

// taken is a response that a handler left to continue.
type taken struct {
	conn *serve.TakenOver
	stop chan error
	lost chan error
}

// versions are those of HTTP.
var versions = map[string]func(*http.Protocols, bool){"HTTP/1.1": (*http.Protocols).SetHTTP1, "HTTP/2": (*http.Protocols).SetUnencryptedHTTP2}

// streams is a handler whose responses may all go on.
type streams struct{ http.Handler }

func (streams) Streams(*http.Request) bool { return true }

// takesOver returns a handler that begins its responses and leaves them to the test.
func takesOver(t testing.TB) (http.Handler, <-chan taken) {
	t.Helper()
	all := make(chan taken, 10)
	return streams{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.WriteString(w, "first ")
		one := taken{stop: make(chan error), lost: make(chan error)}
		var err error
		if one.conn, err = serve.TakeOver(w, r, func() { close(one.stop) }); err != nil {
			t.Errorf("take over: %v", err)
			return
		}
		one.conn.Watch(func() { close(one.lost) })
		all <- one
	})}, all
}

func next(t *testing.T, all <-chan taken) taken {
	t.Helper()
	select {
	case one := <-all:
		return one
	case <-time.After(20 * time.Second):
		t.Fatal("no response is taken over")
		return taken{}
	}
}

func TestAResponseGoesOnAfterItsHandler(t *testing.T) {
	t.Parallel()
	for version, protocol := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			goesOn(t, rpctest.NewHTTPClient(t, protocol))
		})
	}
}

func goesOn(t *testing.T, client *http.Client) {
	t.Helper()
	handler, all := takesOver(t)
	url, stop, stopped := rpctest.ServeStoppable(t, handler)
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	one := next(t, all)
	stop()
	rpctest.Within(t, 5*time.Second, "stop", one.stop)
	select {
	case <-stopped:
		t.Fatal("the server does not wait for the response")
	case <-time.After(200 * time.Millisecond):
	}
	for _, text := range []string{"second ", "third"} {
		if _, err := io.WriteString(one.conn, text); err != nil {
			t.Fatal(err)
		}
	}
	one.conn.End(false)
	body, err := io.ReadAll(response.Body)
	if string(body) != "first second third" || err != nil || response.Close != (response.ProtoMajor == 1) {
		t.Errorf("got %q, %v, close %v; want the whole body, and no other request on a connection of HTTP/1.1", body, err, response.Close)
	}
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func TestAResponseThatGoesOnNoticesItsClientsLeave(t *testing.T) {
	t.Parallel()
	handler, all := takesOver(t)
	url := rpctest.Serve(t, handler)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n", // of which the handler reads nothing
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, request)
		one := next(t, all)
		if _, err := io.WriteString(one.conn, "second"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("first second"))
		if _, err := io.ReadFull(response.Body, got); string(got) != "first second" || err != nil {
			t.Errorf("%q: got %q, %v", request, got, err)
		}
		_ = conn.Close()
		rpctest.Within(t, 5*time.Second, "lost", one.lost)
		one.conn.End(true)
	}
}

func TestStoppingCutsAResponseThatGoesOnForever(t *testing.T) {
	t.Parallel()
	for version, protocol := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			cutByStopping(t, rpctest.NewHTTPClient(t, protocol))
		})
	}
}

func cutByStopping(t *testing.T, client *http.Client) {
	t.Helper()
	handler, all := takesOver(t)
	url, stop, stopped := rpctest.ServeStopping(t, handler, serve.Stop{Grace: 500 * time.Millisecond})
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	one := next(t, all)
	stop()
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err == nil {
		t.Error("Serve: got nil, want that a response has not ended")
	}
	rpctest.Within(t, 5*time.Second, "lost", one.lost)
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("the body ended as if it were whole")
	}
	one.conn.End(true)
}

// What follows a part of a message would be read as the rest of it.
func TestNothingFollowsAWriteThatFailed(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*serve.TakenOver){"interrupted": (*serve.TakenOver).Interrupt, "too slow at the end": (*serve.TakenOver).LimitLast} {
		for version, protocol := range versions {
			t.Run(name+" over "+version, func(t *testing.T) {
				t.Parallel()
				nothingFollows(t, rpctest.NewHTTPClient(t, protocol), fail)
			})
		}
	}
}

// nothingFollows makes a write fail of which the client has read nothing.
func nothingFollows(t *testing.T, client *http.Client, fail func(*serve.TakenOver)) {
	t.Helper()
	handler, all := takesOver(t)
	response, err := client.Get(rpctest.Serve(t, handler))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	one := next(t, all)
	failed := make(chan error, 1)
	go func() {
		for message := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(one.conn, message); err != nil { // the client reads nothing
				failed <- err
				return
			}
		}
	}()
	select {
	case err := <-failed:
		t.Fatalf("a write to a slow reader: %v", err)
	case <-time.After(time.Second):
	}
	fail(one.conn)
	if err := rpctest.Within(t, 20*time.Second, "the write", failed); err == nil {
		t.Error("the write did not fail")
	}
	body := make(chan error, 1)
	go func() {
		text, err := io.ReadAll(response.Body)
		if stray := strings.Trim(strings.TrimPrefix(string(text), "first "), "x"); stray != "" {
			t.Errorf("the body has %q in a message", stray)
		}
		body <- err
	}()
	one.conn.LimitLast()
	if _, err := io.WriteString(one.conn, "last"); err == nil {
		t.Error("a write after one that failed: got nil, want an error")
	}
	one.conn.End(false)
	if err := rpctest.Within(t, 5*time.Second, "the body", body); err == nil {
		t.Error("the body ended as if it were whole")
	}
	rpctest.Within(t, 5*time.Second, "lost", one.lost)
}
