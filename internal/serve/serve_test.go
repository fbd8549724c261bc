package serve_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect"
	"golang.org/x/net/http2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
	"gatehouse/internal/serve"
)

// protocols are what a caller may speak to one port.
var protocols = []struct {
	name  string
	speak func(*http.Protocols, bool)
}{
	{"HTTP/1.1", (*http.Protocols).SetHTTP1},
	{"HTTP/2.0", (*http.Protocols).SetUnencryptedHTTP2},
}

// untilRefused waits until nobody listens there any more.
func untilRefused(t testing.TB, url string) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-ticker.C {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			return
		}
		_ = conn.Close()
	}
	t.Fatalf("%s still listens", url)
}

func TestOnePortSpeaksBothProtocols(t *testing.T) {
	t.Parallel()
	url := rpctest.Serve(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	for _, protocol := range protocols {
		client := rpctest.NewHTTPClient(t, protocol.speak)
		for _, contentType := range []string{"application/json", "application/proto"} {
			body := `{"profileId":"` + rpctest.ProfileID + `"}`
			if contentType == "application/proto" {
				body = "\x0a\x24" + rpctest.ProfileID
			}
			response, err := client.Do(rpctest.PostRequest(t, url, contentType, body))
			if err != nil {
				t.Fatalf("%s, %s: %v", protocol.name, contentType, err)
			}
			answer, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK || response.Proto != protocol.name || !strings.Contains(string(answer), "Ada") {
				t.Errorf("%s, %s: got %s %d %q, %v, want %s 200 with Ada", protocol.name, contentType, response.Proto, response.StatusCode, answer, err, protocol.name)
			}
		}
	}
}

func TestLargeHeadersAndBodiesAreRefused(t *testing.T) {
	t.Parallel()
	url := rpctest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
		}
	}))
	for _, protocol := range protocols {
		client := rpctest.NewHTTPClient(t, protocol.speak)
		for _, test := range []struct {
			name         string
			header, body int
			status       int
		}{
			{"what fits", 32 << 10, 1 << 20, http.StatusOK},
			{"a large header", 128 << 10, 0, http.StatusRequestHeaderFieldsTooLarge},
			{"a large body", 0, 1<<20 + 1, http.StatusRequestEntityTooLarge},
		} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(strings.Repeat("x", test.body)))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("X-Large", strings.Repeat("x", test.header))
			response, err := client.Do(request)
			if err != nil && protocol.name == "HTTP/2.0" && test.status == http.StatusRequestHeaderFieldsTooLarge {
				continue // the server has told the limit, so the client doesn't even try
			}
			if err != nil {
				t.Errorf("%s, %s: got %v, want the status %d", protocol.name, test.name, err, test.status)
				continue
			}
			_ = response.Body.Close()
			if response.StatusCode != test.status {
				t.Errorf("%s, %s: got the status %d, want %d", protocol.name, test.name, response.StatusCode, test.status)
			}
		}
	}
}

func TestStoppingLetsACallFinish(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			begun, finish := make(chan error), make(chan struct{})
			url, stop, stopped := rpctest.ServeStoppable(t, rpctest.NewProfiles(t, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				close(begun)
				select {
				case <-finish:
					return rpctest.Found(ctx, req)
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}).Mux(rpctest.IsReady))
			client := rpctest.NewHTTPClient(t, protocol.speak)
			request := rpctest.PostRequest(t, url, "application/json", `{"profileId":"`+rpctest.ProfileID+`"}`)
			called := make(chan error, 1)
			go func() {
				response, err := client.Do(request)
				if err == nil {
					defer response.Body.Close()
					if response.StatusCode != http.StatusOK {
						err = errors.New(response.Status)
					}
				}
				called <- err
			}()
			_ = rpctest.Within(t, 5*time.Second, "the method", begun)
			stop()
			untilRefused(t, url)
			close(finish)
			if err := rpctest.Within(t, 5*time.Second, "the call", called); err != nil {
				t.Errorf("the call under way: got %v, want its answer", err)
			}
			if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
				t.Errorf("Serve: got %v, want nil", err)
			}
		})
	}
}

func TestStoppingSendsCallersElsewhereBeforeItRefusesThem(t *testing.T) {
	t.Parallel()
	url, stop, stopped := rpctest.ServeStopping(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady), serve.Stop{Pause: 3 * time.Second, Grace: 5 * time.Second})
	h2 := rpctest.NewHTTPClient(t, (*http.Protocols).SetUnencryptedHTTP2)
	if err := askProfile(t, h2, url); err != nil { // its connection is there before the stop
		t.Fatal(err)
	}
	stop()
	ready := func() int {
		response, err := http.Get(url + "/readyz")
		if err != nil {
			t.Fatalf("while it pauses: %v, want an answer", err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	for deadline := time.Now().Add(2 * time.Second); ready() == http.StatusOK; {
		if time.Now().After(deadline) {
			t.Fatal("it stops, and says that it is ready")
		}
	}
	response, err := http.Post(url+"/grpc.health.v1.Health/Check", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if !strings.Contains(string(text), "NOT_SERVING") {
		t.Errorf("gRPC health: %s, want NOT_SERVING", text)
	}
	for _, protocol := range protocols {
		client := rpctest.NewHTTPClient(t, protocol.speak)
		for call := range 2 {
			reused := true
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
			response, err := client.Do(rpctest.PostRequest(t, url, "application/json", `{"profileId":"`+rpctest.ProfileID+`"}`).WithContext(ctx))
			if err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("%s, call %d while it pauses: %v %v, want an answer", protocol.name, call, response, err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if call > 0 && reused {
				t.Errorf("%s: a second call came over the same connection, which was to end with the first's answer", protocol.name)
			}
		}
	}
	if err := rpctest.Within(t, 15*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

// askProfile makes one call.
func askProfile(t testing.TB, client *http.Client, url string) error {
	response, err := client.Do(rpctest.PostRequest(t, url, "application/json", `{"profileId":"`+rpctest.ProfileID+`"}`))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func TestStoppingEndsStreamsAndNotCalls(t *testing.T) {
	t.Parallel()
	spec := rpctest.Method(t, rpctest.ForServices("bff"), connect.StreamTypeServer)
	began, begun, finish := make(chan error), make(chan error), make(chan struct{})
	var cut error
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
		server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			close(began)
			<-ctx.Done()
			return ctx.Err()
		}})
		usersv1.RegisterProfileServiceHandler(server, rpctest.Profiles{Get: func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			close(begun)
			<-finish
			cut = ctx.Err()
			return rpctest.Found(ctx, req)
		}})
	})
	url, stop, stopped := rpctest.ServeStopping(t, server.Mux(rpctest.IsReady), serve.Stop{Grace: 30 * time.Second})
	client := rpctest.Dial(t, rpctest.BFFToUsers, url)
	streamed, called := make(chan error, 1), make(chan error, 1)
	go func() { streamed <- rpctest.Exhaust(t, client, spec) }()
	go func() {
		_, err := rpctest.Get(t.Context(), client)
		called <- err
	}()
	_ = rpctest.Within(t, 5*time.Second, "the stream", began)
	_ = rpctest.Within(t, 5*time.Second, "the call", begun)
	stop()
	err := rpctest.Within(t, 5*time.Second, "the stream's end", streamed)
	if connect.CodeOf(err) != connect.CodeUnavailable || fault.Reason(err) != "SERVER_STOPPING" {
		t.Errorf("the stream: got %v, want unavailable SERVER_STOPPING", err)
	}
	untilRefused(t, url)
	close(finish)
	if err := rpctest.Within(t, 5*time.Second, "the call's answer", called); err != nil || cut != nil {
		t.Errorf("the call under way: got %v, and its context said %v, want its answer", err, cut)
	}
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func TestStoppingDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	t.Run("for a stream that has no end", stopEndsAStream)
	t.Run("for a connection on which nothing is asked", stopClosesAnUnusedConnection)
	t.Run("for a connection that begins just as it stops", stopClosesANewConnection)
	t.Run("for a call that looks at its context", stopCancelsACall)
	t.Run("for a call that doesn't", stopCutsACall)
}

func stopEndsAStream(t *testing.T) {
	t.Parallel()
	url, stop, stopped := rpctest.ServeStoppable(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	stream := grpcreflect.NewClient(rpctest.NewHTTPClient(t, (*http.Protocols).SetUnencryptedHTTP2), url, connectv1.WithGRPC()).NewStream(t.Context())
	defer func() { _, _ = stream.Close() }()
	if _, err := stream.ListServices(); err != nil {
		t.Fatalf("list the services: %v", err)
	}
	stop()
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func stopClosesAnUnusedConnection(t *testing.T) {
	t.Parallel()
	url, stop, stopped := rpctest.ServeStoppable(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if response, err := http.Get(url + "/livez"); err != nil { // accepted after it
		t.Fatal(err)
	} else {
		_ = response.Body.Close()
	}
	stop()
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func stopClosesANewConnection(t *testing.T) {
	t.Parallel()
	url, stop, stopped := rpctest.ServeStopping(t, rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady), serve.Stop{Grace: 30 * time.Second})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface[:10]); err != nil {
		t.Fatal(err)
	}
	if response, err := http.Get(url + "/livez"); err != nil { // accepted after it
		t.Fatal(err)
	} else {
		_ = response.Body.Close()
	}
	stop()
	untilRefused(t, url)
	time.Sleep(100 * time.Millisecond) // so that the other connections received their GOAWAY
	framer := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface[10:]); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if frame, err := framer.ReadFrame(); err != nil {
				ended <- err
				return
			} else if _, ok := frame.(*http2.GoAwayFrame); ok {
				ended <- nil
				return
			}
		}
	}()
	if err := rpctest.Within(t, 10*time.Second, "a GOAWAY", ended); err != nil {
		t.Errorf("the connection: got %v, want a GOAWAY", err)
	}
	if err := rpctest.Within(t, 10*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func stopCancelsACall(t *testing.T) {
	t.Parallel()
	begun := make(chan error)
	url, stop, stopped := rpctest.ServeStoppable(t, rpctest.NewProfiles(t, func(ctx context.Context, _ *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	}).Mux(rpctest.IsReady))
	called := make(chan error, 1)
	go func() {
		_, err := rpctest.Get(t.Context(), rpctest.Dial(t, rpctest.BFFToUsers, url))
		called <- err
	}()
	_ = rpctest.Within(t, 5*time.Second, "the method", begun)
	stop()
	if err := rpctest.Within(t, 5*time.Second, "the call", called); err == nil {
		t.Error("the call: got an answer, want an error")
	}
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func stopCutsACall(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan error), make(chan struct{})
	defer close(finish)
	url, stop, stopped := rpctest.ServeStoppable(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-finish
	}))
	client := rpctest.NewHTTPClient(t, (*http.Protocols).SetHTTP1)
	called := make(chan error, 1)
	go func() {
		response, err := client.Get(url)
		if err == nil {
			_ = response.Body.Close()
		}
		called <- err
	}()
	_ = rpctest.Within(t, 5*time.Second, "the method", begun)
	stop()
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve: got %v, want the deadline of stopping", err)
	}
	if err := rpctest.Within(t, 5*time.Second, "the call", called); err == nil {
		t.Error("the call: got an answer, want its connection cut")
	}
}

func TestServeTellsWhyItCannot(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	err = serve.Run(t.Context(), listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("a closed listener: got %v, want an error that names %s", err, listener.Addr())
	}
}

func TestAConnectionWithoutAWholeHeaderIsCut(t *testing.T) {
	t.Parallel()
	url := rpctest.Serve(t, http.NotFoundHandler())
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: gate"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("half a header: got %v after %v, want the connection closed", err, time.Since(start))
	}
}
