package rpc_test

import (
	"context"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// limitedWrites records whether each write of a response has a limit, and whether reading
// has. The HTTP server has set both before.
type limitedWrites struct {
	http.ResponseWriter

	mu        sync.Mutex
	unlimited bool
	writes    []string
	reads     bool // without a limit
}

func (w *limitedWrites) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *limitedWrites) SetWriteDeadline(at time.Time) error {
	w.mu.Lock()
	w.unlimited = at.IsZero()
	w.mu.Unlock()
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(at)
}

func (w *limitedWrites) SetReadDeadline(at time.Time) error {
	w.mu.Lock()
	w.reads = at.IsZero()
	w.mu.Unlock()
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(at)
}

func (w *limitedWrites) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := "limited"
	if w.unlimited {
		one = "unlimited"
	}
	if len(w.writes) == 0 || w.writes[len(w.writes)-1] != one {
		w.writes = append(w.writes, one)
	}
	return w.ResponseWriter.Write(p)
}

// recorded is a mux whose responses are recorded.
type recorded struct {
	*rpc.Mux
	recording http.Handler
}

func (r recorded) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.recording.ServeHTTP(w, request)
}

func TestOnlyAMethodThatStreamsWritesWithoutALimit(t *testing.T) {
	t.Parallel()
	inVersions(t, limitsWrites)
}

func limitsWrites(t *testing.T, client *http.Client) {
	t.Helper()
	spec := rpctest.Method(t, rpctest.ForServices("bff"), connect.StreamTypeServer)
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
		server.Register(connect.Method{Spec: spec, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
			if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
				return err
			}
			if err := stream.Send(&wrapperspb.StringValue{Value: "first"}); err != nil {
				return err
			}
			return fault.New(connect.CodeAborted, "GONE", "Begin again.")
		}})
	})
	mux := server.Mux(rpctest.IsReady)
	responses := make(chan *limitedWrites, 1)
	url := rpctest.Serve(t, recorded{mux, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one := &limitedWrites{ResponseWriter: w}
		mux.ServeHTTP(one, r)
		responses <- one
	})})
	for name, test := range map[string]struct {
		token, body, reason string
		want                []string
		read                bool // the whole body
	}{
		"refused":    {"none", "", "INTERNAL_TOKEN", []string{"limited"}, false},
		"unreadable": {rpctest.InternalToken(t, rpctest.BFFToUsers), "x", "invalid_argument", nil, true},
		"ended":      {rpctest.InternalToken(t, rpctest.BFFToUsers), "", "GONE", []string{"unlimited", "limited"}, true},
		"chunked":    {rpctest.InternalToken(t, rpctest.BFFToUsers), "", "GONE", []string{"unlimited", "limited"}, true},
	} {
		body := test.body
		if body == "" {
			body = string(binary.BigEndian.AppendUint32([]byte{0}, 0))
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+spec.Procedure, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if name == "chunked" {
			request.ContentLength = -1
		}
		request.Header.Set("Content-Type", "application/connect+proto")
		request.Header.Set("Authorization", "Bearer "+test.token)
		answer := rpctest.SendOver(t, client, request)
		if !strings.Contains(answer.Body, test.reason) {
			t.Errorf("%s: got %d %q, want %s", name, answer.Status, answer.Body, test.reason)
		}
		got := <-responses
		if last := len(got.writes) - 1; last < 0 || got.writes[last] != "limited" || test.want != nil && !slices.Equal(got.writes, test.want) {
			t.Errorf("%s: the writes were %q, want %q, and the last limited", name, got.writes, test.want)
		}
		if got.reads != test.read {
			t.Errorf("%s: the limit of reading has ended: %v, want %v", name, got.reads, test.read)
		}
	}
}
