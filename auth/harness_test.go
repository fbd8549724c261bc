package auth_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/rpc"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const password = "correct horse battery"

var (
	internalKeys = rpc.InternalKeys{make([]byte, 32)}
	secretOne    = []byte("secret-key-one-secret-key-one-01")
	secretTwo    = []byte("secret-key-two-secret-key-two-02")
)

// harness is auth on a database of its own, reached as the gateway reaches it.
type harness struct {
	accounts    authv1.AccountServiceClient
	sessions    authv1.SessionServiceClient
	revocations authv1.RevocationServiceClient
	links       authv1.LinkServiceClient
	audit       authv1.AuditServiceClient
	mails       authv1.MailServiceClient
	factors     authv1.FactorServiceClient
	service     *auth.Service
	config      auth.Config
	client      *connect.Client
	server      *rpc.Server
	owner       *pgxpool.Pool // arranges states that the API can't make
}

func newHarness(t testing.TB, change ...func(*auth.Config)) *harness {
	t.Helper()
	return newHarnessOn(t, pgtest.New(t), change...)
}

func newHarnessOn(t testing.TB, database pgtest.Database, change ...func(*auth.Config)) *harness {
	t.Helper()
	config := auth.Config{
		DB: openPool(t, database.Auth), Secrets: [][]byte{secretOne}, Issuer: "http://localhost:8001",
		Registration: auth.RegistrationOpen, AuditLife: 400 * 24 * time.Hour, SessionIdle: 30 * 24 * time.Hour, SessionMax: 365 * 24 * time.Hour,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&config)
	}
	h := &harness{owner: openPool(t, database.Owner)}
	h.open(t, config)
	return h
}

// open starts a service on the same database, as another copy or a later run.
func (h *harness) open(t testing.TB, config auth.Config) {
	t.Helper()
	service, err := auth.New(t.Context(), config)
	if err != nil {
		t.Fatalf("auth.New: %v", err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: slog.New(slog.DiscardHandler), Authorizer: rpc.ServicesOnly(internalKeys, "auth"), IsUnavailable: database.IsUnavailable,
	}, service.Register)
	if err != nil {
		t.Fatalf("rpc.NewServer: %v", err)
	}
	client, err := dial.InProcess(dial.Route{Caller: "bff", Callee: "auth", Keys: internalKeys}, server)
	if err != nil {
		t.Fatalf("rpc.InProcess: %v", err)
	}
	h.service, h.config, h.server = service, config, server
	h.accounts, h.sessions = authv1.NewAccountServiceClient(client), authv1.NewSessionServiceClient(client)
	h.revocations = authv1.NewRevocationServiceClient(client)
	h.links, h.audit, h.client = authv1.NewLinkServiceClient(client), authv1.NewAuditServiceClient(client), client
	h.mails, h.factors = authv1.NewMailServiceClient(client), authv1.NewFactorServiceClient(client)
}

// clientOf returns a client that calls as another service.
func (h *harness) clientOf(t testing.TB, caller string) *connect.Client {
	t.Helper()
	client, err := dial.InProcess(dial.Route{Caller: caller, Callee: "auth", Keys: internalKeys}, h.server)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newID(t testing.TB) string {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// signUp makes an account with a session.
func (h *harness) signUp(t *testing.T, email string, roles ...string) (*authv1.Account, *authv1.Tokens) {
	t.Helper()
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: email, Password: password, Roles: roles, SignIn: true,
		Profile: &authv1.ProfileSeed{FirstName: "Ada", LastName: "Lovelace"},
	})
	if err != nil {
		t.Fatalf("CreateAccount %s: %v", email, err)
	}
	return response.GetAccount(), response.GetTokens()
}

// exec changes rows as no method can.
func (h *harness) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := h.owner.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// count returns the result of a counting query.
func (h *harness) count(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := h.owner.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func wantReason(t *testing.T, err error, code connect.Code, reason string) {
	t.Helper()
	if connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("got %v (reason %q), want %s %s", err, fault.Reason(err), code, reason)
	}
}

// receiver is a users service that records the calls of the relay.
type receiver struct {
	mu          sync.Mutex
	unavailable bool
	// refused counts the calls while the receiver was unavailable.
	refused int
	calls   []*usersv1.ApplyAccountRequest
	arrived chan struct{} // receives a value for each accepted call; the value is dropped when the buffer is full
}

func newReceiver() *receiver { return &receiver{arrived: make(chan struct{}, 1024)} }

func (r *receiver) ApplyAccount(_ context.Context, req *usersv1.ApplyAccountRequest) (*usersv1.ApplyAccountResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unavailable {
		r.refused++
		return nil, fault.Unavailable()
	}
	r.calls = append(r.calls, req)
	select {
	case r.arrived <- struct{}{}:
	default:
	}
	return &usersv1.ApplyAccountResponse{}, nil
}

func (r *receiver) setUnavailable(unavailable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unavailable = unavailable
}

func (r *receiver) rejected() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

func (r *receiver) received() []*usersv1.ApplyAccountRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*usersv1.ApplyAccountRequest(nil), r.calls...)
}

// client reaches the receiver as auth does.
func (r *receiver) client(t *testing.T) usersv1.RelayServiceClient {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: slog.New(slog.DiscardHandler), Authorizer: rpc.ServicesOnly(internalKeys, "users"),
	}, func(s *connect.Server) { usersv1.RegisterRelayServiceHandler(s, r) })
	if err != nil {
		t.Fatalf("rpc.NewServer: %v", err)
	}
	client, err := dial.InProcess(dial.Route{Caller: "auth", Callee: "users", Keys: internalKeys}, server)
	if err != nil {
		t.Fatalf("rpc.InProcess: %v", err)
	}
	return usersv1.NewRelayServiceClient(client)
}
