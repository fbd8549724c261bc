package rpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gatehouse/internal/continuation"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// continuing is a stream that continues; start says what it does then.
type continuing struct {
	start      func(continuation.Transport)
	stop, lost chan error
	end        func(error) // as an interceptor's; nil for none
}

func (c continuing) Start(transport continuation.Transport) { c.start(transport) }
func (c continuing) Stop()                                  { close(c.stop) }
func (c continuing) Lost()                                  { close(c.lost) }
func (c continuing) onEnd() func(error)                     { return c.end }

// slowLog is a log that takes its time for the line of a call.
type slowLog struct{ writing, written chan error }

func (l slowLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("reason=GONE")) {
		close(l.writing)
		<-l.written
	}
	return len(p), nil
}

// inVersions runs a test over each version of HTTP.
func inVersions(t *testing.T, run func(*testing.T, *http.Client)) {
	t.Helper()
	for version, protocol := range map[string]func(*http.Protocols, bool){"HTTP/1.1": (*http.Protocols).SetHTTP1, "HTTP/2": (*http.Protocols).SetUnencryptedHTTP2} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			run(t, rpctest.NewHTTPClient(t, protocol))
		})
	}
}

// continued serves a method whose streams continue as stream says, and opens one of which
// nothing is read.
func continued(t *testing.T, client *http.Client, log io.Writer, stream interface {
	continuation.Stream
	onEnd() func(error)
}) (response *http.Response, stop context.CancelFunc, stopped <-chan error) {
	t.Helper()
	spec := rpctest.Method(t, rpctest.ForServices("bff"), connect.StreamTypeServer)
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: slog.New(slog.NewTextHandler(log, nil))}, func(server *connect.Server) {
		server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, calls connect.ServerStream) error {
			if err := calls.Receive(&wrapperspb.StringValue{}); err != nil {
				return err
			}
			offer := continuation.Accept(ctx)
			if err := calls.Send(&wrapperspb.StringValue{Value: "first"}); err != nil {
				return err
			}
			if end := stream.onEnd(); end != nil {
				continuation.OnEnd(ctx, end)
			}
			offer.Continue(stream)
			return nil
		}})
	})
	url, stop, stopped := rpctest.ServeStoppable(t, server.Mux(rpctest.IsReady))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+spec.Procedure, bytes.NewReader(binary.BigEndian.AppendUint32([]byte{0}, 0)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/connect+proto")
	request.Header.Set("Authorization", "Bearer "+rpctest.InternalToken(t, rpctest.BFFToUsers))
	response, err = client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response, stop, stopped
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Errorf("the body %q ended with %v", text, err)
	}
	return string(text)
}

// The process may end as soon as the server has stopped.
func TestAServerStopsAfterItsContinuedStreamsAreLoggedAndTheirClientsAreLeft(t *testing.T) {
	t.Parallel()
	inVersions(t, stopsAfterItsStreams)
}

func stopsAfterItsStreams(t *testing.T, client *http.Client) {
	t.Helper()
	began, proceed := make(chan error), make(chan struct{})
	ended := make(chan error)
	stream := continuing{stop: make(chan error), lost: make(chan error), start: func(transport continuation.Transport) {
		close(began)
		<-proceed
		transport.End(fault.New(connect.CodeAborted, "GONE", "Begin again."))
		if client.Transport.(*http.Transport).Protocols.HTTP1() { // which does not wait for it
			<-ended // the handler still runs
		}
	}}
	log := slowLog{make(chan error), make(chan error)}
	response, stop, stopped := continued(t, client, log, stream)
	rpctest.Within(t, 20*time.Second, "Start", began)
	stop()
	rpctest.Within(t, 20*time.Second, "Stop", stream.stop)
	close(proceed)
	rpctest.Within(t, 20*time.Second, "the log", log.writing)
	select {
	case <-stopped:
		t.Error("the server does not wait until the call is logged")
	case <-time.After(time.Second):
	}
	close(log.written)
	if err := rpctest.Within(t, 20*time.Second, "Serve", stopped); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	select {
	case <-stream.lost:
	default:
		t.Error("the server has stopped, and still reads from the client")
	}
	close(ended)
	if got := body(t, response); !strings.Contains(got, "first") || !strings.Contains(got, "GONE") {
		t.Errorf("the client got %q, want a message and GONE", got)
	}
}

func TestTheEndOfAContinuedStreamDoesNotWaitForItsReader(t *testing.T) {
	t.Parallel()
	inVersions(t, endsWithoutItsReader)
}

func endsWithoutItsReader(t *testing.T, client *http.Client) {
	t.Helper()
	ended := make(chan error)
	stream := continuing{stop: make(chan error), lost: make(chan error), start: func(transport continuation.Transport) {
		go func() {
			defer close(ended)
			// More than the buffers of both ends hold, and nobody reads.
			transport.End(fault.New(connect.CodeAborted, "GONE", strings.Repeat("Begin again. ", 2<<20)))
		}()
	}}
	continued(t, client, io.Discard, stream)
	rpctest.Within(t, 20*time.Second, "End", ended)
	rpctest.Within(t, 20*time.Second, "Lost", stream.lost)
}

// countingLog counts panics in the log.
type countingLog struct{ panics chan string }

func (l countingLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("panic: s3cret")) && bytes.Contains(p, []byte("continue_test.go")) {
		l.panics <- string(p)
	}
	return len(p), nil
}

func TestAPanicAfterTheMethodIsLogged(t *testing.T) {
	t.Parallel()
	inVersions(t, logsPanics)
}

func logsPanics(t *testing.T, client *http.Client) {
	t.Helper()
	log := countingLog{make(chan string, 10)}
	ended := make(chan error)
	stream := lostPanics{continuing{end: func(error) { panic("s3cret") }, start: func(transport continuation.Transport) {
		go func() {
			defer close(ended)
			transport.End(fault.New(connect.CodeAborted, "GONE", "Begin again."))
		}()
	}}}
	response, _, _ := continued(t, client, log, stream)
	rpctest.Within(t, 20*time.Second, "End", ended)
	if got := body(t, response); !strings.Contains(got, "GONE") {
		t.Errorf("the client got %q, want GONE", got)
	}
	for range 2 { // of the end of the call, and of the reader
		select {
		case line := <-log.panics:
			if !strings.Contains(line, "stream panicked after its method") {
				t.Errorf("the log says %s", line)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a panic is not in the log")
		}
	}
}

type lostPanics struct{ continuing }

func (lostPanics) Lost() { panic("s3cret") }
