package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"gatehouse/app"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

// system is one deployment that serves GetMe.
type system struct {
	address string
	ask     ask
	gateway *process   // nil for one that can't be run here
	servers []*process // the gateway and what is behind it
	// etagsOf is the address of the gateway whose ETags the requests carry, if they do.
	// They change with each refresh of the tokens, because a session's last use does.
	etagsOf string
}

// The systems, in the table's order. The last two use JSON, as Fastify does.
const (
	oneProcess = iota
	threeProcesses
	bare
	threeOverJSON
	fastify
	systemCount
)

// stack is every measured system, on one Postgres.
type stack struct {
	systems   [systemCount]system
	processes []*process
	database  *postgres.Server
	close     func() error
	binary    string
	// dir has the logs, environment the settings of each command.
	dir         string
	environment map[string][]string
	people      []*person
	refreshed   time.Time
	registered  int
	// peers are the settings with the URLs of the services behind the gateway.
	peers []string
	// services serve every gateway that runs in its own process.
	services []*process
	// noise is the share of the machine's CPU that other processes used, of each turn.
	noise []float64
	// noFastify says why Fastify is skipped; empty if it runs.
	noFastify string
}

// databaseName is also the prefix of the services' database roles.
const databaseName = "gatehouse"

// noCache disables the cache, so that every response is composed.
const noCache = "GATEHOUSE_CACHE_BYTES=0"

// unthrottled disables rate limits and load shedding.
const unthrottled = "GATEHOUSE_THROTTLE=off"

// open starts Postgres and all systems on it.
func open(ctx context.Context, binary, dir string) (_ *stack, err error) {
	h := &stack{binary: binary, dir: dir}
	// Postgres must keep running while an interrupt stops its clients.
	h.database, err = postgres.Start(ctx, postgres.Config{Dir: filepath.Join(dir, "database")})
	if err != nil {
		return nil, err
	}
	h.close = func() error {
		for _, p := range slices.Backward(h.processes) {
			p.stop()
		}
		return h.database.Stop(context.WithoutCancel(ctx))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	h.environment, err = h.prepare(ctx, binary, dir, databaseName)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h.services, h.peers, err = h.startServices(ctx, "")
	if err != nil {
		return nil, err
	}
	bff, bffAt, err := h.begin(ctx, "bff", binary, "bff", append(h.peers, noCache)...)
	if err != nil {
		return nil, err
	}
	hand, handAt, err := h.begin(ctx, "bare", self, bareCommand, h.peers...)
	if err != nil {
		return nil, err
	}
	serve, serveAt, err := h.begin(ctx, "serve", binary, "serve", noCache)
	if err != nil {
		return nil, err
	}
	behind := func(gateway *process) []*process { return append([]*process{gateway}, h.services...) }
	h.systems = [systemCount]system{
		oneProcess:     {address: serveAt, ask: overProto, gateway: serve, servers: []*process{serve}},
		threeProcesses: {address: bffAt, ask: overProto, gateway: bff, servers: behind(bff)},
		bare:           {address: handAt, ask: overProto, gateway: hand, servers: behind(hand)},
		threeOverJSON:  {address: bffAt, ask: overJSON, gateway: bff, servers: behind(bff)},
	}
	return h, h.openFastify(ctx, bffAt)
}

// behindGateway are the services that run behind the gateway, which is the last one.
func behindGateway() []app.Definition {
	all := app.Services()
	return all[:len(all)-1]
}

// startServices starts the services behind the gateway, and returns the settings with
// their URLs. more are settings of each, by its name.
func (h *stack) startServices(ctx context.Context, suffix string, more ...func(service string) []string) (services []*process, peers []string, err error) {
	at := map[string]string{}
	for _, service := range behindGateway() {
		if at[service.Name], err = freeAddress(); err != nil {
			return nil, nil, err
		}
		peers = append(peers, strings.ToUpper(service.Name)+"_URL=http://"+at[service.Name])
	}
	for _, service := range behindGateway() {
		env := append(slices.Clone(peers), unthrottled) // or failed sign-ins throttle the addresses of the load
		for _, settings := range more {
			env = append(env, settings(service.Name)...)
		}
		p, err := h.beginAt(ctx, at[service.Name], service.Name+suffix, h.binary, service.Name, env...)
		if err != nil {
			return nil, nil, err
		}
		services = append(services, p)
	}
	return services, slices.Clip(peers), nil
}

// fastifyFolder is the folder of the Fastify gateway, relative to the repository's root.
const fastifyFolder = "bench/fastify"

// openFastify starts the Fastify gateway if Node and its packages are installed.
func (h *stack) openFastify(ctx context.Context, gateway string) error {
	node, err := exec.LookPath("node")
	if err != nil {
		h.noFastify = "there is no node here"
		return nil
	}
	if _, err := os.Stat(filepath.Join(fastifyFolder, "node_modules")); err != nil {
		h.noFastify = "its packages are missing: npm ci --prefix " + fastifyFolder
		return nil
	}
	p, address, err := h.begin(ctx, "fastify", node, filepath.Join(fastifyFolder, "gateway.js"),
		append(h.peers, "JWKS_URL=http://"+gateway+"/.well-known/jwks.json", "NODE_ENV=production")...)
	if err != nil {
		return err
	}
	h.systems[fastify] = system{address: address, ask: overJSON, gateway: p, servers: append([]*process{p}, h.services...)}
	return nil
}

// begin starts a process and returns when it is ready.
func (h *stack) begin(ctx context.Context, name, program, command string, env ...string) (*process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	p, err := h.beginAt(ctx, address, name, program, command, env...)
	return p, address, err
}

func (h *stack) beginAt(ctx context.Context, address, name, program, command string, env ...string) (*process, error) {
	of, ok := h.environment[command]
	if !ok {
		of = h.environment[bareCommand]
	}
	env = slices.Concat(of, env, []string{"GATEHOUSE_LISTEN=" + address})
	p, err := start(ctx, program, []string{command}, env, nil, filepath.Join(h.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	h.processes = append(h.processes, p)
	return p, p.answers(ctx, address)
}

// prepare creates a database and returns each command's settings, as in
// compose.yaml. All systems on it share them, so that each accepts the same tokens.
func (h *stack) prepare(ctx context.Context, binary, dir, database string) (map[string][]string, error) {
	owner := h.database.URL(database)
	if err := execute(ctx, h.database.URL("postgres"), "CREATE DATABASE "+database); err != nil {
		return nil, err
	}
	// The load sends many addresses in X-Forwarded-For.
	internal := []string{"GATEHOUSE_INTERNAL_KEY=" + newKey(), "GATEHOUSE_PUBLIC_URL=http://localhost", "GATEHOUSE_TRUSTED_PROXIES=127.0.0.1"}
	accounts := []string{"GATEHOUSE_SECRET_KEY=" + newKey(), "GATEHOUSE_REGISTRATION=open"} // settings of auth
	all := slices.Concat(accounts, internal)
	environment := map[string][]string{bareCommand: internal}
	for _, service := range app.Services() {
		environment[service.Name] = internal
		if !service.HasTables() {
			continue
		}
		url, err := schema.ServiceURL(owner, schema.RoleName(database, service.Name), rand.Text())
		if err != nil {
			return nil, err
		}
		setting := strings.ToUpper(service.Name) + "_DATABASE_URL=" + url
		environment[service.Name] = append([]string{setting}, internal...)
		all = append(all, setting)
	}
	environment["auth"] = append(environment["auth"], accounts...)
	environment["serve"] = all

	apply, err := start(ctx, binary, []string{"schema", "apply"}, append(all, "DATABASE_URL="+owner), nil, filepath.Join(dir, "schema.log"))
	if err != nil {
		return nil, err
	}
	<-apply.ended
	if !apply.cmd.ProcessState.Success() {
		return nil, fmt.Errorf("apply the schema: %s", apply.logTail())
	}
	apply.stop()
	return environment, nil
}

func execute(ctx context.Context, url, statement string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

func newKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return hex.EncodeToString(key)
}

// person is a signed-in person.
type person struct {
	accountID, sessionID      string
	accessToken, refreshToken string
	etag                      string // of their GetMe
	// address is the IP address that they sign in and refresh from.
	address string
}

// register creates accounts through the gateway at an address, and checks that all
// systems respond to them equally.
func (h *stack) register(ctx context.Context, address string, count int) error {
	for range count {
		p := &person{address: someAddress()}
		client := bffv1.NewAuthServiceClient(clientOf(address, false, p))
		h.registered++
		response, err := client.Register(ctx, &bffv1.RegisterRequest{
			Email: email(h.registered - 1), Password: password, FirstName: "Ada", LastName: "Lovelace",
		})
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		tokens := response.GetSignedIn().GetTokens()
		p.accountID = response.GetSignedIn().GetUser().GetId()
		p.accessToken, p.refreshToken = tokens.GetAccessToken(), tokens.GetRefreshToken()
		if err := h.compare(ctx, p); err != nil {
			return err
		}
		h.people = append(h.people, p)
	}
	h.refreshed = time.Now()
	return nil
}

// compare calls every system and returns an error unless the responses are complete
// and equal.
func (h *stack) compare(ctx context.Context, p *person) error {
	var first *bffv1.GetMeResponse
	for which, s := range h.systems {
		if s.gateway == nil {
			continue
		}
		answer, err := h.me(ctx, which, p)
		if err != nil {
			return fmt.Errorf("GetMe: %w: %s", err, s.gateway.logTail())
		}
		for _, session := range answer.GetSessions() {
			if session.GetCurrent() {
				p.sessionID = session.GetId()
			}
		}
		if len(answer.GetErrors()) > 0 || p.sessionID == "" {
			return fmt.Errorf("a response is incomplete: %v", answer)
		}
		if first == nil {
			first = answer
		}
		if !proto.Equal(first, answer) {
			return fmt.Errorf("the systems return different responses:\n%v\n%v", first, answer)
		}
	}
	return nil
}

// me calls GetMe, and retries while the profile is pending.
func (h *stack) me(ctx context.Context, which int, p *person) (*bffv1.GetMeResponse, error) {
	s := h.systems[which]
	client := bffv1.NewAccountServiceClient(clientOf(s.address, which >= threeOverJSON, p))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		answer, err := client.GetMe(ctx, &bffv1.GetMeRequest{})
		if fault.Reason(err) != "PROFILE_PENDING" {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// tokenRest is how long after a refresh the tokens, which are valid for five minutes,
// last for another turn.
const tokenRest = 2 * time.Minute

// refresh refreshes everybody's tokens if tokenRest has passed.
func (h *stack) refresh(ctx context.Context) error {
	if time.Since(h.refreshed) < tokenRest {
		return nil
	}
	for _, p := range h.people {
		client := bffv1.NewAuthServiceClient(clientOf(h.systems[threeProcesses].address, false, &person{address: p.address}))
		response, err := client.Refresh(ctx, &bffv1.RefreshRequest{RefreshToken: p.refreshToken})
		if err != nil {
			return fmt.Errorf("refresh: %w", err)
		}
		p.accessToken, p.refreshToken = response.GetTokens().GetAccessToken(), response.GetTokens().GetRefreshToken()
	}
	h.refreshed = time.Now()
	return nil
}

// clientOf returns a client of a gateway, with the address and the access token of a
// person, who may not have a token yet.
func clientOf(address string, json bool, p *person) *connect.Client {
	var options []connecthttp.Option
	if json {
		options = append(options, connecthttp.WithProtoJSON())
	}
	return connect.NewClient(connecthttp.NewTransport(http.DefaultClient, "http://"+address, options...), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("X-Forwarded-For", p.address)
			info.RequestHeader().Set("User-Agent", userAgent)
			if p.accessToken != "" {
				for name, value := range p.headers() {
					info.RequestHeader().Set(name, value)
				}
			}
			return next(ctx, spec)
		}
	})
}

// headers are the same for each system, so that each parses the same bytes.
func (p *person) headers() map[string]string {
	return map[string]string{"Authorization": "Bearer " + p.accessToken, accountHeader: p.accountID, sessionHeader: p.sessionID}
}
