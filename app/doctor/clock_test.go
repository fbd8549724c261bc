package doctor

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
)

func TestDoctorComparesClocks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		off     time.Duration
		problem string
	}{
		{0, ""}, {12 * time.Second, "ahead of ours"}, {-12 * time.Second, "behind ours"},
		{time.Hour, "ahead of ours: beyond 45s, calls between services and fresh access tokens are refused"},
		{-time.Hour, "behind ours: beyond 45s, calls between services and fresh access tokens are refused"},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(test.off).UTC().Format(http.TimeFormat))
		})}
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		r := NewReport(t.Context())
		route := dial.Route{Caller: "bff", Callee: "auth"}
		if test.off.Abs() > rpc.ClockSkew { // a refused call would say nothing of the key
			route.Keys = rpc.InternalKeys{make([]byte, 32)}
		}
		r.Peer(Peer{Setting: "AUTH_URL", URL: "http://" + listener.Addr().String(), Route: route})
		if len(r.findings) != 1 || (test.problem == "") != (r.findings[0].problem == "") || !strings.HasSuffix(r.findings[0].problem, test.problem) {
			t.Errorf("a clock %s off: got %+v, want the problem %q", test.off, r.findings, test.problem)
		}
	}
}
