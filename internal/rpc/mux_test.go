package rpc_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect"

	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

func TestReflectionListsTheServices(t *testing.T) {
	t.Parallel()
	server := rpctest.NewServer(t, "users", rpc.ServerConfig{}, func(server *connect.Server) {
		usersv1.RegisterRelayServiceHandler(server, usersv1.UnimplementedRelayServiceHandler{})
		rpctest.RegisterProfiles(rpctest.Found)(server)
	})
	url := rpctest.Serve(t, server.Mux(rpctest.IsReady))
	client := grpcreflect.NewClient(rpctest.NewHTTPClient(t, (*http.Protocols).SetUnencryptedHTTP2), url, connectv1.WithGRPC())
	stream := client.NewStream(t.Context())
	defer func() {
		if _, err := stream.Close(); err != nil {
			t.Errorf("close the stream: %v", err)
		}
	}()
	listed, err := stream.ListServices()
	if err != nil {
		t.Fatalf("list the services: %v", err)
	}
	var got []string
	for _, name := range listed {
		got = append(got, string(name))
	}
	slices.Sort(got)
	if want := []string{"grpc.health.v1.Health", "users.v1.ProfileService", "users.v1.RelayService"}; !slices.Equal(got, want) {
		t.Errorf("got the services %q, want %q", got, want)
	}
	for _, name := range listed {
		files, err := stream.FileContainingSymbol(name)
		if err != nil || len(files) == 0 {
			t.Errorf("describe %s: got %d files, %v, want at least one", name, len(files), err)
		}
	}
}

func TestHealthFollowsReadiness(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	url := rpctest.Serve(t, rpctest.NewProfiles(t, rpctest.Found).Mux(func() error {
		if !ready.Load() {
			return errors.New("the database is unreachable")
		}
		return nil
	}))
	for _, test := range []struct {
		ready        bool
		method, path string
		request      string
		status       int
		body         string
	}{
		{ready: false, method: "GET", path: "/livez", status: 200, body: "ok\n"},
		{ready: false, method: "GET", path: "/readyz", status: 503, body: "not ready: the database is unreachable\n"},
		{ready: true, method: "GET", path: "/livez", status: 200, body: "ok\n"},
		{ready: true, method: "GET", path: "/readyz", status: 200, body: "ok\n"},
		{ready: true, method: "POST", path: "/readyz", status: 405},
		{ready: false, method: "POST", path: "/grpc.health.v1.Health/Check", request: `{}`, status: 200, body: "STATUS_NOT_SERVING"},
		{ready: true, method: "POST", path: "/grpc.health.v1.Health/Check", request: `{}`, status: 200, body: "STATUS_SERVING"},
		{ready: false, method: "POST", path: "/grpc.health.v1.Health/Check", request: `{"service":"users.v1.ProfileService"}`, status: 200, body: "STATUS_NOT_SERVING"},
		{ready: true, method: "POST", path: "/grpc.health.v1.Health/Check", request: `{"service":"users.v1.ProfileService"}`, status: 200, body: "STATUS_SERVING"},
		{ready: true, method: "POST", path: "/grpc.health.v1.Health/Check", request: `{"service":"users.v1.Nothing"}`, status: 404, body: "not_found"},
		{ready: true, method: "GET", path: "/", status: 404},
	} {
		ready.Store(test.ready)
		request, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, strings.NewReader(test.request))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", jsonType)
		got := rpctest.Send(t, request)
		if got.Status != test.status || !strings.Contains(got.Body, test.body) {
			t.Errorf("%s %s %s, ready: %v: got %d %q, want %d with %q", test.method, test.path, test.request, test.ready, got.Status, got.Body, test.status, test.body)
		}
		if cache := got.Header.Get("Cache-Control"); test.method == "GET" && test.path != "/" && cache != "no-store" {
			t.Errorf("%s %s: got Cache-Control %q, want no-store", test.method, test.path, cache)
		}
	}
}

// All pages besides the methods are listed.
func TestAMuxListsItsPages(t *testing.T) {
	t.Parallel()
	mux := rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady)
	mux.Handle("GET /page", policy.Anyone(), http.NotFoundHandler())
	var got []string
	for _, page := range mux.Pages() {
		got = append(got, page.Pattern)
		if page.Access.GetAnyone() == nil {
			t.Errorf("%s: got the access %v, want anyone's", page.Pattern, page.Access)
		}
	}
	want := []string{
		"/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/",
		"GET /livez", "GET /page", "GET /readyz",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the pages %q, want %q", got, want)
	}
}

func TestAPageThatAsksWhoIsCallingCantBeServed(t *testing.T) {
	t.Parallel()
	for name, access := range map[string]*policyv1.Access{
		"nothing said": nil, "nobody": {}, "the signed in": {Who: &policyv1.Access_SignedIn{SignedIn: &policyv1.SignedIn{}}}, "services": rpctest.ForServices("bff").GetAccess(),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a page for %s: got it served, want a panic", name)
				}
			}()
			rpctest.NewProfiles(t, rpctest.Found).Mux(rpctest.IsReady).Handle("GET /page", access, http.NotFoundHandler())
		}()
	}
}
