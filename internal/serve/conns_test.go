package serve_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"gatehouse/internal/rpctest"
	"gatehouse/internal/serve"
)

// from returns a client whose connections come from an address.
func from(t testing.TB, address string, speak func(*http.Protocols, bool)) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}
	speak(transport.Protocols, true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// serveLimited serves a handler on a listener with limits, and returns its address.
func serveLimited(t testing.TB, limits serve.ConnLimits, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- serve.Run(ctx, serve.LimitConns(listener, limits), handler, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		stop()
		if err := rpctest.Within(t, 20*time.Second, "Serve", served); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener.Addr().String()
}

func TestAConnectionWithACallIsNotClosedForAnother(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			begun, finish := make(chan struct{}, 10), make(chan struct{})
			address := serveLimited(t, serve.ConnLimits{Total: 8, PerAddress: 8}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					begun <- struct{}{}
					<-finish
				}
			}))
			// Seven connections of the busiest address have a call, and one is idle.
			answers := make(chan error, 7)
			for range cap(answers) {
				client := from(t, "127.0.0.2", protocol.speak)
				go func() {
					response, err := client.Get("http://" + address + "/slow")
					if err == nil {
						err = response.Body.Close()
					}
					answers <- err
				}()
				<-begun
			}
			idle, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer idle.Close()
			response, err := from(t, "127.0.0.3", (*http.Protocols).SetHTTP1).Get("http://" + address + "/")
			if err != nil {
				t.Fatalf("a call from another address: %v", err)
			}
			_ = response.Body.Close()
			_ = idle.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := bufio.NewReader(idle).ReadByte(); err != io.EOF { //nolint:errorlint // the bare one
				t.Errorf("the idle connection: got %v, want that it is closed", err)
			}
			close(finish)
			for range cap(answers) {
				if err := rpctest.Within(t, 20*time.Second, "a call", answers); err != nil {
					t.Errorf("a call in flight: %v", err)
				}
			}
		})
	}
}

// net/http closes the writing side first, so that a client that still sends gets its answer.
func TestALimitedConnectionClosesItsWritingSideAlone(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := serve.LimitConns(listener, serve.ConnLimits{Total: 1})
	defer limited.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := limited.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("the connection cannot close its writing side")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // the bare one
		t.Errorf("the client reads %v, want the end", err)
	}
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("after it the server reads %d bytes, %v, want one", n, err)
	}
}
