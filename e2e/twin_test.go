package e2e

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	"gatehouse/bff"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
	"gatehouse/users"
)

const twinSecret = "secret-key-one-secret-key-one-01"

// twin is two gateways, each on an auth of its own, over one database.
type twin struct {
	gateways [2]*system
	auths    [2]*auth.Service
	database pgtest.Database
}

func newTwin(t testing.TB) *twin {
	t.Helper()
	w := &twin{database: pgtest.New(t)}
	keys := rpc.InternalKeys{make([]byte, 32)}
	logger := slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	inProcess := func(caller, callee string, register func(*connect.Server)) *connect.Client {
		server, err := rpc.NewServer(rpc.ServerConfig{Logger: logger, Authorizer: rpc.ServicesOnly(keys, callee)}, register)
		if err != nil {
			t.Fatal(err)
		}
		client, err := dial.InProcess(dial.Route{Caller: caller, Callee: callee, Keys: keys}, server)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	usersDB := openDB(t, w.database.Users, "users")
	t.Cleanup(usersDB.Close)
	profiles := users.New(users.Config{DB: usersDB, Logger: logger})
	running.Go(func() { profiles.Run(ctx) })
	for i := range w.gateways {
		authDB := openDB(t, w.database.Auth, "auth")
		t.Cleanup(authDB.Close)
		service, err := auth.New(t.Context(), auth.Config{
			DB: authDB, Users: usersv1.NewRelayServiceClient(inProcess(roleAuth, roleUsers, profiles.Register)),
			Secrets: [][]byte{[]byte(twinSecret)}, Issuer: "http://localhost:8001",
			Registration: auth.RegistrationOpen, SessionIdle: time.Hour, SessionMax: time.Hour, Logger: logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		gateway, err := bff.New(bff.Config{
			Auth: inProcess(roleBff, roleAuth, service.Register), Users: inProcess(roleBff, roleUsers, profiles.Register),
			PublicURL: "http://localhost:8001", Logger: logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { service.Run(ctx) })
		running.Go(func() { gateway.Run(ctx) })
		running.Go(func() {
			if err := serve.Run(ctx, listener, gateway, logger); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		w.auths[i], w.gateways[i] = service, &system{url: "http://" + listener.Addr().String()}
		eventually(t, 30*time.Second, "the gateway is ready", gateway.Ready)
	}
	if err := w.auths[0].CreateAdministrator(t.Context(), adminEmail, adminPassword); err != nil {
		t.Fatal(err)
	}
	return w
}
