package harness

import (
	"encoding/hex"
	"net"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"

	"gatehouse/app"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
)

// startOthers starts each service of the application that a Stack does not build itself,
// and returns their URLs. They reach those that it does build, which own registers, over
// HTTP.
func (b *stackBuilder) startOthers(s *Stack, own map[string]func(*connect.Server)) (others map[string]string) {
	b.Helper()
	others = map[string]string{}
	listeners := map[string]net.Listener{}
	for _, service := range app.Services() {
		if own[service.Name] == nil && service.Name != RoleBff {
			listeners[service.Name] = b.listen()
			others[service.Name] = "http://" + listeners[service.Name].Addr().String()
		}
	}
	if len(others) == 0 {
		return others
	}
	urls := map[string]string{}
	for name, register := range own {
		server, err := rpc.NewServer(rpc.ServerConfig{Logger: b.Logger, Authorizer: rpc.ServicesOnly(b.keys, name), Internal: true}, register)
		b.check(err)
		listener := b.listen()
		b.serve(listener, server.Mux(func() error { return nil }))
		urls[name] = "http://" + listener.Addr().String()
	}
	for name, url := range others {
		urls[name] = url
	}
	for _, service := range app.Services() {
		if listener := listeners[service.Name]; listener != nil {
			b.serve(listener, b.startOther(s, service, urls))
		}
	}
	return others
}

// startOther builds a service as its command does, and returns its handler.
func (b *stackBuilder) startOther(s *Stack, service app.Definition, urls map[string]string) http.Handler {
	b.Helper()
	settings := map[string]string{"GATEHOUSE_INTERNAL_KEY": hex.EncodeToString(b.keys[0])}
	if name, url, _ := strings.Cut(s.Database.Setting(service.Name), "="); service.HasTables() {
		settings[name] = url
	}
	for _, call := range service.AllCalls() {
		settings[strings.ToUpper(call.Service)+"_URL"] = urls[call.Service]
	}
	stack, err := app.NewStack(b.ctx, app.StackConfig{Schema: schemaSQL, Services: []string{service.Name}, Settings: settings, Logger: b.Logger})
	b.check(err)
	b.running.Go(func() {
		stack.Run(b.ctx)
		stack.Close()
	})
	return stack.Handler()
}

// dialOthers returns a gateway's clients of the other services.
func (b *stackBuilder) dialOthers(others map[string]string) map[string]*connect.Client {
	b.Helper()
	clients := map[string]*connect.Client{}
	for name, url := range others {
		client, err := dial.Dial(dial.Route{Caller: RoleBff, Callee: name, Keys: b.keys}, url)
		b.check(err)
		clients[name] = client
	}
	return clients
}
