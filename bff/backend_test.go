package bff

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
)

func TestAGatewayIsNotBuiltWhenABackendDoesNotFit(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	auth, users := h.backend.reach(t, authName, options{}), h.backend.reach(t, usersName, options{})
	for name, test := range map[string]struct {
		backends []Backend
		problem  string
	}{
		"no users": {backends(auth, nil), "no client of the service users"},
		"an extension that asks for another service": {append(backends(auth, users), Backend{Name: "notes", Client: users, Extension: Extension{
			Register: func(_ *connect.Server, g *Gateway) { g.Client("notes"); g.Client("orders") },
		}}), "no client of the service orders"},
		"two that tell of one kind": {append(backends(auth, users), Backend{Name: "notes", Client: users, Tells: []string{"profile"}}), `users and notes both tell of the changes of "profile"`},
		"a part with secrets": {append(backends(auth, users), Backend{Name: "notes", Client: users, Extension: Extension{
			Cacheable: []proto.Message{&authv1.LoginResponse{}},
		}}), "auth.v1.LoginResponse is cached, and holds a redacted field"},
	} {
		_, err := New(Config{Backends: test.backends, PublicURL: publicURL, Logger: discard})
		if err == nil || !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got %v, want %q", name, err, test.problem)
		}
	}
}

func TestOnlyPartsThatAreNamedAreCached(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	_, got := h.getMe(t, h.token(alice, "user"))
	wantNoError(t, "GetMe", got.err)
	delete(h.gateway.cache.cacheable, (&usersv1.Profile{}).ProtoReflect().Descriptor().FullName())
	h.gateway.cache.InvalidateAll()
	before := h.called(usersv1.ProfileServiceGetProfileProcedure)
	if _, got := h.getMe(t, h.token(alice, "user")); got.err == nil || h.called(usersv1.ProfileServiceGetProfileProcedure) != before {
		t.Errorf("GetMe with a part that nobody named: %v, want a failure before it is fetched", got.err)
	}
}

// feedServer is a service that has a change feed by one of its names.
type feedServer struct {
	older  bool
	opened chan string // by which name
}

func (f *feedServer) register(server *connect.Server) {
	if f.older {
		usersv1.RegisterChangeServiceHandler(server, olderFeed{f})
	} else {
		servicev1.RegisterChangeServiceHandler(server, newerFeed{f})
		usersv1.RegisterChangeServiceHandler(server, olderFeed{f})
	}
}

type olderFeed struct{ *feedServer }

func (f olderFeed) WatchChanges(ctx context.Context, _ *usersv1.WatchChangesRequest, stream usersv1.ChangeServiceWatchChangesServerStream) error {
	f.opened <- "users.v1"
	if err := stream.Send(&usersv1.WatchChangesResponse{Complete: true, Cursor: "1", AskedAfter: durationpb.New(0)}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

type newerFeed struct{ *feedServer }

func (f newerFeed) WatchChanges(ctx context.Context, _ *servicev1.WatchChangesRequest, stream servicev1.ChangeServiceWatchChangesServerStream) error {
	f.opened <- "service.v1"
	if err := stream.Send(&servicev1.WatchChangesResponse{Complete: true, Cursor: "1", AskedAfter: durationpb.New(0)}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// A gateway follows services of this version and of the version before, over the
// network and in process, and a service that was replaced by either.
func TestAFeedIsFollowedByTheNameThatTheServiceKnows(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ older, apart bool }{
		"in process": {}, "apart": {apart: true}, "of the version before, in process": {older: true}, "of the version before, apart": {older: true, apart: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := &feedServer{older: test.older, opened: make(chan string, 10)}
			route := dial.Route{Caller: "bff", Callee: usersName, Keys: internalKeys}
			server, err := rpc.NewServer(rpc.ServerConfig{Logger: discard, Authorizer: rpc.ServicesOnly(internalKeys, usersName), Internal: true}, service.register)
			wantNoError(t, "NewServer", err)
			client, err := dial.InProcess(route, server)
			if test.apart {
				client, err = dial.Dial(route, serveHTTP(t, server.Mux(func() error { return nil })))
			}
			wantNoError(t, "reach the service", err)
			feed := newChangeFeed(Backend{Name: usersName, Client: client}, &recordedInvalidations{}, discard)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); feed.follower.Run(ctx) }()
			want := "service.v1"
			if test.older {
				want = "users.v1"
			}
			select {
			case got := <-service.opened:
				if got != want {
					t.Errorf("it opened the feed of %s, want %s", got, want)
				}
			case <-time.After(20 * time.Second):
				t.Error("it opened no feed")
			}
			for deadline := time.Now().Add(20 * time.Second); feed.asOf.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the first message was not applied")
				}
			}
			stop()
			<-done
		})
	}
}
