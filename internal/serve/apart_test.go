package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse/internal/rpctest"
	"gatehouse/internal/serve"
)

// The end of one stream, in whatever way, is nothing to the others of its connection, unless
// that ends.
func TestAResponseOverHTTP2NoticesItsClientsLeave(t *testing.T) {
	t.Parallel()
	handler, all := takesOver(t)
	url := rpctest.Serve(t, handler)
	client := rpctest.NewHTTPClient(t, (*http.Protocols).SetUnencryptedHTTP2)
	var mu sync.Mutex
	var conns []net.Conn
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, conn)
		return conn, err
	}
	open := func(method string) (taken, *http.Response, context.CancelFunc) {
		ctx, leave := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("a body that the handler does not read"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return next(t, all), response, leave
	}
	stays, body, leaveLast := open(http.MethodGet)
	defer leaveLast()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		leaves, _, leave := open(method)
		leave()
		rpctest.Within(t, 5*time.Second, "lost", leaves.lost)
		leaves.conn.End(true)
		cut, body, leave := open(method)
		cut.conn.End(true)
		rpctest.Within(t, 5*time.Second, "lost", cut.lost)
		if text, err := io.ReadAll(body.Body); err == nil {
			t.Errorf("a body that is cut off is %q, as if it were whole", text)
		}
		leave()
	}
	if _, err := io.WriteString(stays.conn, "second"); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, len("first second"))
	if _, err := io.ReadFull(body.Body, text); string(text) != "first second" || err != nil || len(conns) != 1 {
		t.Errorf("the other stream got %q, %v, over %d connections", text, err, len(conns))
	}
	_ = conns[0].Close()
	rpctest.Within(t, 5*time.Second, "lost", stays.lost)
	stays.conn.Interrupt()
	stays.conn.End(true)
	stays.conn.Interrupt() // too late, and without effect
}

func TestAPanicOverHTTP2ResetsTheStream(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rpctest.Servers.Go(func() error {
		return serve.Run(ctx, listener, streams{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic("s3cret")
			case "/taken":
				taken, err := serve.TakeOver(w, r, func() {})
				if err != nil {
					t.Errorf("take over: %v", err)
					return
				}
				taken.Watch(func() { taken.End(false) })
				panic("s3cret")
			case "/abort":
				_, _ = io.WriteString(w, "begun")
				panic(http.ErrAbortHandler)
			}
		})}, logger)
	})
	client := rpctest.NewHTTPClient(t, (*http.Protocols).SetUnencryptedHTTP2)
	for path, ends := range map[string]bool{"/panic": false, "/taken": false, "/abort": false, "/": true} {
		response, err := client.Get("http://" + listener.Addr().String() + path)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		if (err == nil) != ends {
			t.Errorf("%s: the response ended with %v", path, err)
		}
	}
	// Where it panicked, rather than where the server waited.
	var text string
	for begun := time.Now(); strings.Count(text, "apart_test.go") < 2; text = log.String() {
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("the log says %s, want a panic with its place", text)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if strings.Count(text, "panic serving") != 2 || !strings.Contains(text, "s3cret") {
		t.Errorf("the log says %s, want two panics", text)
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A client whose windows are wide open, and that reads nothing, holds up the reset of its
// stream too.
func TestAClientThatReadsNothingFromItsConnectionIsDisconnected(t *testing.T) {
	t.Parallel()
	handler, all := takesOver(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(rpctest.Serve(t, handler), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, http2.ClientPreface)
	frames := http2.NewFramer(conn, conn)
	var header bytes.Buffer
	fields := hpack.NewEncoder(&header)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "here"}, {":path", "/"}} {
		if err := fields.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}), frames.WriteWindowUpdate(0, 1<<30),
		frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header.Bytes(), EndStream: true, EndHeaders: true}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	one := next(t, all)
	failed := make(chan error, 1)
	go func() {
		for message := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(one.conn, message); err != nil {
				failed <- err
				return
			}
		}
	}()
	rpctest.Within(t, 2*time.Minute, "the write", failed)
	rpctest.Within(t, 5*time.Second, "lost", one.lost)
	one.conn.End(false)
}
