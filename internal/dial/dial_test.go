package dial_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpctest"
	"gatehouse/internal/serve"
)

func TestAnUnreachableServiceIsUnavailable(t *testing.T) {
	t.Parallel()
	stranger := rpctest.Serve(t, http.NotFoundHandler())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	untrusted := httptest.NewUnstartedServer(rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady))
	untrusted.EnableHTTP2 = true
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)

	for _, test := range []struct {
		name, url string
		code      connect.Code
	}{
		{"no listener", "http://" + listener.Addr().String(), connect.CodeUnavailable},
		{"an untrusted certificate", untrusted.URL, connect.CodeUnavailable},
		{"another server", stranger, connect.CodeUnimplemented},
	} {
		_, err := rpctest.Get(t.Context(), rpctest.Dial(t, rpctest.BFFToUsers, test.url))
		rpctest.WantError(t, test.name, err, test.code, "")
		if failure, ok := errors.AsType[*connect.Error](err); ok && failure.IsRemote() {
			t.Errorf("%s: got an error that is marked as the service's: %v", test.name, err)
		}
	}
	if _, err := dial.Dial(rpctest.BFFToUsers, stranger+",http://["); err == nil {
		t.Error("an invalid URL: got a client, want an error")
	}
	if _, err := dial.Dial(dial.Route{Caller: "bff", Callee: "users"}, stranger); err == nil {
		t.Error("without a key: got a client, want an error")
	}
}

func TestAClientReconnects(t *testing.T) {
	t.Parallel()
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	url, stop, stopped := rpctest.ServeStoppable(t, mux)
	client := rpctest.Dial(t, rpctest.BFFToUsers, url)
	if _, err := rpctest.Get(t.Context(), client); err != nil {
		t.Fatalf("the first call: %v", err)
	}
	stop()
	if err := rpctest.Within(t, 5*time.Second, "Serve", stopped); err != nil {
		t.Fatalf("stop: %v", err)
	}
	_, err := rpctest.Get(t.Context(), client)
	rpctest.WantError(t, "without a listener", err, connect.CodeUnavailable, "")

	listener, err := net.Listen("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	rpctest.Servers.Go(func() error { return serve.Run(ctx, listener, mux, slog.New(slog.DiscardHandler)) })
	if _, err := rpctest.Get(t.Context(), client); err != nil {
		t.Errorf("after the restart: got %v, want a response", err)
	}
}

// A redirect would send the token to another server.
func TestAClientFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	elsewhere := rpctest.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	for _, status := range []int{http.StatusMovedPermanently, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		url := rpctest.Serve(t, http.RedirectHandler(elsewhere, status))
		if res, err := rpctest.Get(t.Context(), rpctest.Dial(t, rpctest.BFFToUsers, url)); err == nil {
			t.Errorf("%d: got %v, want an error", status, res)
		}
		if followed.Load() {
			t.Errorf("%d: the client followed it", status)
		}
	}
}

func TestTheSizeOfAResponseIsBounded(t *testing.T) {
	t.Parallel()
	var size int
	client := rpctest.OverHTTP(t, rpctest.BFFToUsers, rpctest.NewProfiles(t, func(context.Context, *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{FirstName: strings.Repeat("x", size)}}, nil
	}))
	size = 3 << 20
	if res, err := rpctest.Get(t.Context(), client); err != nil || len(res.GetProfile().GetFirstName()) != size {
		t.Errorf("a response of %d bytes: got %d bytes, %v, want all", size, len(res.GetProfile().GetFirstName()), err)
	}
	size = 5 << 20
	_, err := rpctest.Get(t.Context(), client)
	rpctest.WantError(t, "a response of 5 MiB", err, connect.CodeResourceExhausted, "")
}
