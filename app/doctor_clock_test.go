package app

import (
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDoctorComparesClocks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		off   time.Duration
		fault string
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
		e := &examination{ctx: t.Context()}
		route := dial.Route{Caller: roleBff, Callee: roleAuth}
		if test.off.Abs() > rpc.ClockSkew { // a refused call would say nothing of the key
			route.Keys = rpc.InternalKeys{make([]byte, keyLength)}
		}
		e.peer("AUTH_URL", "http://"+listener.Addr().String(), route)
		if len(e.findings) != 1 || (test.fault == "") != (e.findings[0].fault == "") || !strings.HasSuffix(e.findings[0].fault, test.fault) {
			t.Errorf("a clock %s off: got %+v, want the fault %q", test.off, e.findings, test.fault)
		}
	}
}
