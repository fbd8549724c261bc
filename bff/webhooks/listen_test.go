package webhooks

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"gatehouse/bff/access"
	"gatehouse/bff/watch"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

func TestMain(m *testing.M) { rpctest.Main(m) }

// flood sends events without an end.
type flood struct {
	authv1.UnimplementedWebhookServiceHandler
}

func (flood) ListenEvents(ctx context.Context, _ *authv1.ListenEventsRequest, stream authv1.WebhookServiceListenEventsServerStream) error {
	message := &authv1.ListenEventsResponse{ListenerId: "0195514a-2f40-7cc3-98c4-dc0c0c07398f", EventId: "0195514a-2f40-7cc3-98c4-dc0c0c07398f", Body: strings.Repeat("x", 16<<10)}
	for ctx.Err() == nil {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// noted reports the end of a stream.
type noted struct {
	*Service
	ended chan error
}

func (n noted) ListenEvents(ctx context.Context, req *bffv1.ListenEventsRequest, stream bffv1.WebhookServiceListenEventsServerStream) error {
	err := n.Service.ListenEvents(ctx, req, stream)
	n.ended <- err
	return err
}

// serveListening returns the URL of a gateway for an administrator, and the ends of its streams.
func serveListening(t *testing.T, handler authv1.WebhookServiceHandler) (url string, ended <-chan error) {
	t.Helper()
	backend := rpctest.NewServer(t, "auth", rpc.ServerConfig{}, func(server *connect.Server) { authv1.RegisterWebhookServiceHandler(server, handler) })
	auth := rpctest.OverHTTP(t, dial.Route{Caller: "bff", Callee: "auth", Keys: rpctest.Keys}, backend)
	hub := watch.New(watch.Config{
		Keys: [][]byte{make([]byte, 32)}, Check: func(context.Context, *access.Principal) error { return nil },
		Known: func(*access.Principal) error { return nil }, Fresh: func() bool { return true },
	})
	service := noted{ended: make(chan error, 10), Service: &Service{
		Webhooks: authv1.NewWebhookServiceClient(auth), Live: hub, Public: func(_ context.Context, err error) error { return err },
		Caller: func(context.Context) *access.Principal {
			return &access.Principal{UserID: "root", Expire: time.Now().Add(time.Hour)}
		},
		ClientInfo: func(context.Context) *authv1.Origin { return nil },
	}}
	open := func(*policy.Method) (rpc.Admission, error) {
		return rpc.Admission{Authenticate: func(next connect.ServerFunc) connect.ServerFunc { return next }}, nil
	}
	gateway := rpctest.NewServer(t, "bff", rpc.ServerConfig{Authorizer: open}, func(server *connect.Server) { bffv1.RegisterWebhookServiceHandler(server, service) })
	return rpctest.Serve(t, gateway.Mux(rpctest.IsReady)), service.ended
}

// A reader that stops reading, and leaves its side of the connection half open, does not
// keep its stream: the end of the stream interrupts the write that waits for the reader.
func TestAReaderThatStopsReadingDoesNotKeepItsStream(t *testing.T) {
	t.Parallel()
	url, ended := serveListening(t, flood{})

	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	const message = "\x00\x00\x00\x00\x02{}"
	request, err := http.NewRequest(http.MethodPost, url+bffv1.WebhookServiceListenEventsProcedure, strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/connect+json")
	if err := request.Write(connection); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the stream begins with %v, %v", response, err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := response.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// Nothing more is read: the buffers of both sides fill up, while the server still writes.
	select {
	case err := <-ended:
		t.Fatalf("the stream has ended by itself: %v", err)
	case <-time.After(time.Second):
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the stream has not ended 30 s after its reader left")
	}
}

// counting makes a listener for each stream, and sends nothing more.
type counting struct {
	authv1.UnimplementedWebhookServiceHandler
	listeners *atomic.Int32
}

func (c counting) ListenEvents(ctx context.Context, _ *authv1.ListenEventsRequest, stream authv1.WebhookServiceListenEventsServerStream) error {
	c.listeners.Add(1)
	if err := stream.Send(&authv1.ListenEventsResponse{ListenerId: "0195514a-2f40-7cc3-98c4-dc0c0c07398f"}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// auth keeps the listener of a stream for a minute after its end, and allows few of them.
func TestAStreamBeyondTheLimitMakesNoListener(t *testing.T) {
	t.Parallel()
	listeners := new(atomic.Int32)
	url, _ := serveListening(t, counting{listeners: listeners})
	client := bffv1.NewWebhookServiceClient(connect.NewClient(connecthttp.NewTransport(http.DefaultClient, url)))
	const limit = 3 // the policy of the method
	for n := range limit + 2 {
		stream, err := client.ListenEvents(t.Context(), &bffv1.ListenEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stream.Close() })
		first, err := stream.Receive()
		switch {
		case n < limit && (err != nil || first.GetListenerId() == ""):
			t.Fatalf("stream %d begins with %v, %v", n+1, first, err)
		case n >= limit && fault.Reason(err) != "TOO_MANY_STREAMS":
			t.Errorf("stream %d: %v, want TOO_MANY_STREAMS", n+1, err)
		}
	}
	if n := listeners.Load(); n != limit {
		t.Errorf("auth has made %d listeners, want %d", n, limit)
	}
}
