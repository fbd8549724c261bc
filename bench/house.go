package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/postgres"
	"gatehouse/internal/rpc"
	"gatehouse/internal/schema"
)

// system is one way to have GetMe answered.
type system struct {
	address string
	gateway *process
	servers []*process // the gateway and what is behind it
}

// The systems, in the table's order.
const (
	oneProcess = iota
	threeProcesses
	bare
	systemCount
)

// house is every system on one Postgres.
type house struct {
	systems   [systemCount]system
	processes []*process
	database  *postgres.Server
	close     func() error
	// dir holds logs, environment the settings of each command.
	dir         string
	environment map[string][]string
	registered  int
	// peers are the settings that say where auth and users are.
	peers []string
}

// databaseName also begins the names of the services' roles.
const databaseName = "gatehouse"

// open starts Postgres and, on it, all systems.
func open(ctx context.Context, binary, dir string) (_ *house, err error) {
	h := &house{dir: dir}
	// Postgres outlives the interrupt that ends its clients.
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
	h.environment, err = h.prepare(ctx, binary, dir)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	begin := func(name, program, command string, env ...string) (*process, string, error) {
		return h.begin(ctx, name, program, command, env...)
	}
	users, usersAt, err := begin("users", binary, "users")
	if err != nil {
		return nil, err
	}
	toUsers := "USERS_URL=http://" + usersAt
	auth, authAt, err := begin("auth", binary, "auth", toUsers)
	if err != nil {
		return nil, err
	}
	toAuth := "AUTH_URL=http://" + authAt
	h.peers = []string{toUsers, toAuth}
	bff, bffAt, err := begin("bff", binary, "bff", toUsers, toAuth)
	if err != nil {
		return nil, err
	}
	hand, handAt, err := begin("bare", self, bareCommand, toUsers, toAuth)
	if err != nil {
		return nil, err
	}
	serve, serveAt, err := begin("serve", binary, "serve")
	if err != nil {
		return nil, err
	}
	h.systems = [systemCount]system{
		oneProcess:     {address: serveAt, gateway: serve, servers: []*process{serve}},
		threeProcesses: {address: bffAt, gateway: bff, servers: []*process{bff, auth, users}},
		bare:           {address: handAt, gateway: hand, servers: []*process{hand, auth, users}},
	}
	return h, nil
}

// begin starts a process of the house and returns when it is ready.
func (h *house) begin(ctx context.Context, name, program, command string, env ...string) (*process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	env = slices.Concat(h.environment[command], env, []string{"GATEHOUSE_LISTEN=" + address})
	p, err := start(ctx, program, []string{command}, env, nil, filepath.Join(h.dir, name+".log"))
	if err != nil {
		return nil, "", err
	}
	h.processes = append(h.processes, p)
	return p, address, p.answers(ctx, address)
}

// prepare makes the database and returns each command's settings, as
// compose.yaml gives them. All systems share them, so that one token opens each.
func (h *house) prepare(ctx context.Context, binary, dir string) (map[string][]string, error) {
	owner := h.database.URL(databaseName)
	if err := execute(ctx, h.database.URL("postgres"), "CREATE DATABASE "+databaseName); err != nil {
		return nil, err
	}
	authURL, err := schema.ServiceURL(owner, schema.RoleName(databaseName, schema.Auth), rand.Text())
	if err != nil {
		return nil, err
	}
	usersURL, err := schema.ServiceURL(owner, schema.RoleName(databaseName, schema.Users), rand.Text())
	if err != nil {
		return nil, err
	}
	// The load says of itself that it comes from many addresses. Neither its
	// failures nor how much it asks for are to be held against it.
	internal := []string{"GATEHOUSE_INTERNAL_KEY=" + newKey(), "GATEHOUSE_PUBLIC_URL=http://localhost", "GATEHOUSE_TRUSTED_PROXIES=127.0.0.1", "GATEHOUSE_THROTTLE=off"}
	usersEnv := append([]string{"USERS_DATABASE_URL=" + usersURL}, internal...)
	authEnv := append([]string{"AUTH_DATABASE_URL=" + authURL, "GATEHOUSE_SECRET_KEY=" + newKey(), "GATEHOUSE_REGISTRATION=open"}, internal...)
	all := slices.Concat(authEnv, usersEnv[:1])

	apply, err := start(ctx, binary, []string{"schema", "apply"}, append(all, "DATABASE_URL="+owner), nil, filepath.Join(dir, "schema.log"))
	if err != nil {
		return nil, err
	}
	<-apply.ended
	if !apply.cmd.ProcessState.Success() {
		return nil, fmt.Errorf("apply the schema: %s", apply.lastWords())
	}
	apply.stop()
	return map[string][]string{
		"auth": authEnv, "users": usersEnv, "bff": internal, bareCommand: internal, "serve": all,
	}, nil
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

// person is signed in, for one connection.
type person struct {
	accountID, sessionID      string
	accessToken, refreshToken string
}

// register makes people, and sees to it that all systems answer them the same.
func (h *house) register(ctx context.Context, count int) ([]*person, error) {
	client := bffv1.NewAuthServiceClient(h.client(oneProcess, nil))
	var people []*person
	for range count {
		h.registered++
		response, err := client.Register(ctx, &bffv1.RegisterRequest{
			Email: email(h.registered - 1), Password: password, FirstName: "Ada", LastName: "Lovelace",
		})
		if err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
		tokens := response.GetSignedIn().GetTokens()
		p := &person{
			accountID:   response.GetSignedIn().GetUser().GetId(),
			accessToken: tokens.GetAccessToken(), refreshToken: tokens.GetRefreshToken(),
		}
		if err := h.compare(ctx, p); err != nil {
			return nil, err
		}
		people = append(people, p)
	}
	return people, nil
}

// compare asks every system and returns an error unless the answers are
// complete and equal.
func (h *house) compare(ctx context.Context, p *person) error {
	var first *bffv1.GetMeResponse
	for which := range systemCount {
		answer, err := h.me(ctx, which, p)
		if err != nil {
			return fmt.Errorf("GetMe: %w: %s", err, h.systems[which].gateway.lastWords())
		}
		for _, session := range answer.GetSessions() {
			if session.GetCurrent() {
				p.sessionID = session.GetId()
			}
		}
		if len(answer.GetErrors()) > 0 || p.sessionID == "" {
			return fmt.Errorf("an answer is not complete: %v", answer)
		}
		if first == nil {
			first = answer
		}
		if !proto.Equal(first, answer) {
			return fmt.Errorf("the systems answer differently:\n%v\n%v", first, answer)
		}
	}
	return nil
}

// me calls GetMe, again while the profile is on its way.
func (h *house) me(ctx context.Context, which int, p *person) (*bffv1.GetMeResponse, error) {
	client := bffv1.NewAccountServiceClient(h.client(which, p))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		answer, err := client.GetMe(ctx, &bffv1.GetMeRequest{})
		if rpc.Reason(err) != "PROFILE_PENDING" {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// refresh renews everybody's tokens, which live for five minutes.
func (h *house) refresh(ctx context.Context, people []*person) error {
	client := bffv1.NewAuthServiceClient(h.client(oneProcess, nil))
	for _, p := range people {
		response, err := client.Refresh(ctx, &bffv1.RefreshRequest{RefreshToken: p.refreshToken})
		if err != nil {
			return fmt.Errorf("refresh: %w", err)
		}
		p.accessToken, p.refreshToken = response.GetTokens().GetAccessToken(), response.GetTokens().GetRefreshToken()
	}
	return nil
}

// client calls a system, perhaps as somebody.
func (h *house) client(which int, p *person) *connect.Client {
	url := "http://" + h.systems[which].address
	return connect.NewClient(connecthttp.NewTransport(http.DefaultClient, url), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if p != nil {
				info, _ := connect.CallInfoForClientContext(ctx)
				for name, value := range p.headers() {
					info.RequestHeader().Set(name, value)
				}
			}
			return next(ctx, spec)
		}
	})
}

// headers are the same for each system, so that each has the same to read.
func (p *person) headers() map[string]string {
	return map[string]string{"Authorization": "Bearer " + p.accessToken, accountHeader: p.accountID, sessionHeader: p.sessionID}
}
