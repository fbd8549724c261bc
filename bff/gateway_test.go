package bff

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/bff/pages"
	authv1 "gatehouse/gen/auth/v1"
	batchv1 "gatehouse/gen/batch/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
	"gatehouse/internal/upstream"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests of real time limits do nothing but wait.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const (
	publicURL = "https://gatehouse.example"
	alice     = "0198c0de-aaaa-7000-8000-00000000a11c"
	bob       = "0198c0de-bbbb-7000-8000-000000000b0b"
	session   = "0198c0de-cccc-7000-8000-000000005e55"
)

var (
	discard    = slog.New(slog.DiscardHandler)
	discardLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
)

var internalKeys = rpc.InternalKeys{bytes.Repeat([]byte{7}, 32)}

// options configures a harness. With the zero value everything runs in one process and
// is called without a network.
type options struct {
	// served serves the gateway on a port; apart serves the services on ports too.
	served, apart bool
	// auth and users replace the clients of the backend.
	auth, users *connect.Client
	origins     []string
	proxies     []netip.Prefix
	pages       pages.Config
	publicURL   string // the default is the constant publicURL
	// policy holds overrides that tighten methods.
	policy string
	// limited enables rate limits and the concurrency limit.
	limited bool
	// redis is the URL of the Redis that holds the shared rate limits.
	redis string
	// telemetry receives the metrics and traces of the gateway and its services.
	telemetry  *telemetry.Telemetry
	cacheBytes int64
	// noRevocations and noKeys start the gateway without a message of the stream of
	// revocations, and without the signing keys.
	noRevocations bool
	noKeys        bool
	// upstreams are the application's own services.
	upstreams *upstream.Set
	// secondFactor requires one of every session, and for the roles.
	secondFactor      bool
	secondFactorRoles []string
}

// harness is a gateway with its backend and clients.
type harness struct {
	*backend
	gateway *Service
	signer  signer
	log     *journal
	http    *http.Client
	url     string

	auth     bffv1.AuthServiceClient
	accounts bffv1.AccountServiceClient
	users    bffv1.UserServiceClient
}

func newHarness(t testing.TB, o options) *harness {
	t.Helper()
	h := &harness{backend: newBackend(), log: &journal{}, url: publicURL}
	h.signer = h.backend.signer
	logger := slog.New(slog.NewJSONHandler(h.log, nil))
	if o.auth == nil {
		o.auth = h.backend.reach(t, "auth", o)
	}
	if o.users == nil {
		o.users = h.backend.reach(t, "users", o)
	}
	var err error
	h.gateway, err = New(Config{
		Backends: backends(o.auth, o.users), PublicURL: cmp.Or(o.publicURL, publicURL), Origins: o.origins, Pages: o.pages, TrustedProxies: o.proxies, Policy: o.policy, Logger: logger,
		Telemetry: o.telemetry, Throttle: o.limited, RedisURL: o.redis, CacheBytes: o.cacheBytes, Upstreams: o.upstreams, Identity: identityIssuer(t),
		SecondFactorRequired: o.secondFactor, SecondFactorRoles: o.secondFactorRoles,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.gateway.verifier.Stop(); h.gateway.cache.Close() })
	if !o.noKeys {
		h.fetchKeys(t)
	}
	if !o.noRevocations {
		h.gateway.revoked.Take(&authv1.WatchRevocationsResponse{Complete: true})
		h.receiveRevocations(time.Now().Add(time.Hour)) // for as long as the test may take
	}
	h.http = &http.Client{Transport: direct{h.gateway}}
	if o.served || o.apart {
		h.url = serveHTTP(t, h.gateway)
		h.http = h2cClient(t)
	}
	client := h.client(connecthttp.WithProtoJSON())
	h.auth, h.accounts, h.users = bffv1.NewAuthServiceClient(client), bffv1.NewAccountServiceClient(client), bffv1.NewUserServiceClient(client)
	return h
}

// backends returns the services behind a gateway.
func backends(auth, users *connect.Client) []Backend {
	return []Backend{
		{Name: authName, Client: auth, Tells: []string{"account", "sessions"}},
		{Name: usersName, Client: users, Tells: []string{"profile"}},
	}
}

// receiveRevocations makes the gateway receive a message of the stream of revocations at
// that time.
func (h *harness) receiveRevocations(at time.Time) {
	h.gateway.revoked.Now = func() time.Time { return at }
	h.gateway.revoked.Take(&authv1.WatchRevocationsResponse{})
	h.gateway.revoked.Now = time.Now
}

// fetchKeys loads the keys that auth publishes into the gateway's verifier.
func (h *harness) fetchKeys(t testing.TB) {
	t.Helper()
	wantNoError(t, "take the keys", h.gateway.verifier.Take(h.published().GetKeys()))
}

func (h *harness) client(options ...connecthttp.Option) *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(h.http, h.url, options...))
}

// token returns an access token like those that auth issues.
func (h *harness) token(user string, roles ...string) string {
	return h.signer.token(func(_, claims map[string]any) { claims["sub"], claims["roles"] = user, roles })
}

// serveHTTP serves a handler on a port until the test ends.
func serveHTTP(t testing.TB, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, listener, handler)
	return "http://" + listener.Addr().String()
}

// serveTLS serves a handler behind TLS, as a proxy does that passes HTTP/2 on, and returns a
// client for it.
func serveTLS(t testing.TB, handler http.Handler) (string, *http.Client) {
	t.Helper()
	certified := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(certified.Close)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, listener, handler)
	client := certified.Client()
	transport, _ := client.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(true)
	return "https://" + listener.Addr().String(), client
}

func serveOn(t testing.TB, listener net.Listener, handler http.Handler) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve.Run(ctx, listener, handler, discard) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func h2cClient(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// timed sends a deadline that the caller does not enforce itself, so that the error
// shows which side enforced it.
type timed struct {
	next          http.RoundTripper
	header, value string
}

func (c timed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(c.header, c.value)
	return c.next.RoundTrip(r)
}

// setDeadline adds a deadline header to all later calls of the harness.
func (h *harness) setDeadline(header, value string) {
	h.http.Transport = timed{next: h.http.Transport, header: header, value: value}
}

// direct calls a handler without a network, which testing/synctest needs.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	given := r.Clone(r.Context())
	given.RemoteAddr, given.Proto, given.ProtoMajor, given.ProtoMinor = "192.0.2.1:4711", "HTTP/2.0", 2, 0
	if given.Body == nil {
		given.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	d.handler.ServeHTTP(recorder, given)
	response := recorder.Result()
	response.Request = r
	return response, nil
}

// reply holds a call's status, metadata and error.
type reply struct {
	status  int
	header  *connect.Header
	trailer *connect.Header
	err     error
}

// ask calls a method, with a token unless it is empty and with headers given in
// pairs.
func ask[Req, Res any](t testing.TB, method func(context.Context, *Req) (*Res, error), req *Req, token string, headers ...string) (*Res, reply) {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	if token != "" {
		info.RequestHeader().Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		info.RequestHeader().Add(headers[i], headers[i+1])
	}
	res, err := method(ctx, req)
	over := reply{header: info.ResponseHeader(), trailer: info.ResponseTrailer(), err: err}
	if info, ok := connecthttp.ClientInfoForContext(ctx); ok {
		over.status = info.ResponseStatus()
	}
	return res, over
}

// getMe asks who the token's holder is.
func (h *harness) getMe(t testing.TB, token string, headers ...string) (*bffv1.GetMeResponse, reply) {
	t.Helper()
	return ask(t, h.accounts.GetMe, &bffv1.GetMeRequest{}, token, headers...)
}

// get fetches a page.
func (h *harness) get(t testing.TB, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	return h.fetch(t, http.MethodGet, path, "", headers...)
}

// send posts JSON.
func (h *harness) send(t testing.TB, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	return h.fetch(t, http.MethodPost, path, body, append(headers, "Content-Type", "application/json")...)
}

func (h *harness) fetch(t testing.TB, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, h.url+path, strings.NewReader(body))
	wantNoError(t, method+" "+path, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := h.http.Do(request)
	wantNoError(t, method+" "+path, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	wantNoError(t, method+" "+path, err)
	return response, string(text)
}

// wantError checks an error that came over Connect: status, code and reason.
func wantError(t testing.TB, what string, got reply, status int, code connect.Code, reason string) {
	t.Helper()
	if got.err == nil {
		t.Errorf("%s: got no error, want %s %s", what, code, reason)
		return
	}
	if got.status != status || connect.CodeOf(got.err) != code || fault.Reason(got.err) != reason {
		t.Errorf("%s: got %d %v (%s), want %d %s %s", what, got.status, got.err, fault.Reason(got.err), status, code, reason)
	}
}

// wantUnavailable checks that an answer says when to come again, too.
func wantUnavailable(t testing.TB, what string, got reply, reason string) {
	t.Helper()
	wantError(t, what, got, http.StatusServiceUnavailable, connect.CodeUnavailable, reason)
	if after, ok := fault.RetryDelay(got.err); !ok || after != time.Second {
		t.Errorf("%s: got RetryInfo %v, %v, want 1s", what, after, ok)
	}
	if after := got.header.Get("Retry-After"); after != "1" {
		t.Errorf("%s: got Retry-After %q, want 1", what, after)
	}
}

func wantNoError(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// wantMissing checks the optional parts that an answer lacks.
func wantMissing(t testing.TB, what string, got []*bffv1.PartError, want ...*bffv1.PartError) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got errors %v, want %v", what, got, want)
		return
	}
	for i := range want {
		if got[i].String() != want[i].String() {
			t.Errorf("%s: got errors[%d] %v, want %v", what, i, got[i], want[i])
		}
	}
}

// away is the entry of a part whose service gives no answer.
func away(part string) *bffv1.PartError {
	return &bffv1.PartError{Part: part, Code: "unavailable", Reason: fault.ReasonUnavailable, Retryable: true}
}

// backend stands where auth and users do: real servers, reached over a real
// wire, whose methods a test replaces to make them fail. Left alone they know
// everybody.
type backend struct {
	signer signer

	mu      sync.Mutex
	answers map[string]func(context.Context, connect.ServerStream) error
	calls   map[string]int
	batches atomic.Int64 // requests with several calls; none within a process
	// onRequest looks at the headers of each call, if it is set.
	onRequest func(*connect.Header)
	keys      []*authv1.SigningKey

	revoked chan *authv1.WatchRevocationsResponse
}

func newBackend() *backend {
	b := &backend{signer: newSigner(1), answers: map[string]func(context.Context, connect.ServerStream) error{}, calls: map[string]int{}, revoked: make(chan *authv1.WatchRevocationsResponse)}
	b.publish(b.signer)
	answer(b, authv1.RevocationServiceCheckAccessProcedure, func(context.Context, *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
		return &authv1.CheckAccessResponse{}, nil
	})
	b.answers[authv1.RevocationServiceWatchRevocationsProcedure] = b.watchRevocations
	answer(b, authv1.AccountServiceGetAccountProcedure, func(_ context.Context, req *authv1.GetAccountRequest) (*authv1.GetAccountResponse, error) {
		return &authv1.GetAccountResponse{Account: accountOf(req.GetAccountId()), Security: &authv1.SecurityFacts{ActiveSessions: 1}}, nil
	})
	answer(b, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
		return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
	})
	answer(b, authv1.SessionServiceLoginProcedure, func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
	})
	answer(b, authv1.SessionServiceRefreshProcedure, func(context.Context, *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		return &authv1.RefreshResponse{Tokens: someTokens()}, nil
	})
	answer(b, authv1.SessionServiceListSessionsProcedure, func(context.Context, *authv1.ListSessionsRequest) (*authv1.ListSessionsResponse, error) {
		return &authv1.ListSessionsResponse{Sessions: []*authv1.Session{{Id: session}}}, nil
	})
	answer(b, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return &usersv1.GetProfileResponse{Profile: profileOf(req.GetProfileId())}, nil
	})
	answer(b, usersv1.ProfileServiceUpdateProfileProcedure, func(_ context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
		return &usersv1.UpdateProfileResponse{Profile: req.GetProfile()}, nil
	})
	return b
}

// answer replaces a method of the backend's.
func answer[Req, Res any](b *backend, procedure string, with func(context.Context, *Req) (*Res, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[procedure] = func(ctx context.Context, stream connect.ServerStream) error {
		req := new(Req)
		if err := stream.Receive(req); err != nil {
			return err
		}
		res, err := with(ctx, req)
		if err != nil {
			return err
		}
		return stream.Send(res)
	}
}

// fail makes a method of the backend's return err.
func (b *backend) fail(procedure string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[procedure] = func(context.Context, connect.ServerStream) error { return err }
}

// hang makes a method of the backend's wait until nobody wants the answer any
// more. It returns a channel that tells when it was asked, and one of how the
// wait ended.
func (b *backend) hang(procedure string) (asked chan struct{}, ended chan error) {
	asked, ended = make(chan struct{}, 100), make(chan error, 100)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[procedure] = func(ctx context.Context, stream connect.ServerStream) error {
		// As every method does: over HTTP/1.1 nobody learns before that when a
		// caller leaves.
		if info, _ := connect.CallInfoForServerContext(ctx); info.Protocol != "" {
			_ = stream.Receive(&emptypb.Empty{})
		}
		asked <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	return asked, ended
}

// called returns how often a method was called, or with "" all of them.
func (b *backend) called(procedure string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if procedure != "" {
		return b.calls[procedure]
	}
	all := 0
	for _, calls := range b.calls {
		all += calls
	}
	return all
}

// reach returns the gateway's client of one service.
func (b *backend) reach(t testing.TB, service string, o options) *connect.Client {
	t.Helper()
	route := dial.Route{Caller: "bff", Callee: service, Keys: internalKeys, Telemetry: o.telemetry}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: discard, Authorizer: rpc.ServicesOnly(internalKeys, service), Telemetry: o.telemetry, Internal: true,
	}, func(server *connect.Server) { b.register(server, service) })
	if err != nil {
		t.Fatal(err)
	}
	var client *connect.Client
	if o.apart {
		client, err = dial.Dial(route, serveHTTP(t, b.countBatches(server.Mux(func() error { return nil }))))
	} else {
		client, err = dial.InProcess(route, server)
	}
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (b *backend) countBatches(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == batchv1.BatchServiceCallProcedure {
			b.batches.Add(1)
		}
		next.ServeHTTP(w, r)
	})
}

// publish makes auth publish the keys of these signers.
func (b *backend) publish(signers ...signer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = nil
	for _, signer := range signers {
		b.keys = append(b.keys, signer.published())
	}
}

func (b *backend) published() *authv1.SigningKeys {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &authv1.SigningKeys{Keys: b.keys}
}

// watchRevocations tells of nothing, four times a second, and then of whatever
// the test revokes.
func (b *backend) watchRevocations(ctx context.Context, stream connect.ServerStream) error {
	if err := stream.Receive(&authv1.WatchRevocationsRequest{}); err != nil {
		return err
	}
	message := &authv1.WatchRevocationsResponse{Complete: true, SigningKeys: b.published()}
	for {
		if err := stream.Send(message); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case message = <-b.revoked:
		case <-time.After(250 * time.Millisecond):
			message = &authv1.WatchRevocationsResponse{}
		}
	}
}

func (b *backend) register(server *connect.Server, service string) {
	survey := connect.NewServer()
	if service == "auth" {
		authv1.RegisterAccountFeedServiceHandler(survey, authv1.UnimplementedAccountFeedServiceHandler{})
		authv1.RegisterAPIKeyServiceHandler(survey, authv1.UnimplementedAPIKeyServiceHandler{})
		authv1.RegisterAccountServiceHandler(survey, authv1.UnimplementedAccountServiceHandler{})
		authv1.RegisterSessionServiceHandler(survey, authv1.UnimplementedSessionServiceHandler{})
		authv1.RegisterKeyServiceHandler(survey, authv1.UnimplementedKeyServiceHandler{})
		authv1.RegisterRevocationServiceHandler(survey, authv1.UnimplementedRevocationServiceHandler{})
		authv1.RegisterLinkServiceHandler(survey, authv1.UnimplementedLinkServiceHandler{})
		authv1.RegisterFactorServiceHandler(survey, authv1.UnimplementedFactorServiceHandler{})
		authv1.RegisterFederationServiceHandler(survey, authv1.UnimplementedFederationServiceHandler{})
	} else {
		usersv1.RegisterProfileServiceHandler(survey, usersv1.UnimplementedProfileServiceHandler{})
	}
	for spec := range survey.Specs() {
		server.Register(connect.Method{Spec: spec, Handler: b.handle})
	}
}

func (b *backend) handle(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
	b.mu.Lock()
	b.calls[spec.Procedure]++
	answer := b.answers[spec.Procedure]
	if info, ok := connect.CallInfoForServerContext(ctx); ok && b.onRequest != nil {
		b.onRequest(info.RequestHeader())
	}
	b.mu.Unlock()
	if answer == nil {
		return errors.New("the test gave no answer to " + spec.Procedure)
	}
	return answer(ctx, stream)
}

// deadEnd returns the gateway's client of an address that isn't one of ours.
func deadEnd(t testing.TB, service, url string) *connect.Client {
	t.Helper()
	client, err := dial.Dial(dial.Route{Caller: "bff", Callee: service, Keys: internalKeys}, url)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func accountOf(id string) *authv1.Account {
	return &authv1.Account{
		Id: id, Email: id[9:13] + "@example.com", EmailVerified: true, Status: authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE,
		Roles: []string{"user"}, CreateTime: timestamppb.New(time.Unix(1, 0)), UpdateTime: timestamppb.New(time.Unix(2, 0)),
	}
}

func profileOf(id string) *usersv1.Profile {
	return &usersv1.Profile{Id: id, FirstName: "Ada", LastName: "Lovelace", Locale: "en", Etag: "v1", UpdateTime: timestamppb.New(time.Unix(3, 0))}
}

func someTokens() *authv1.Tokens {
	return &authv1.Tokens{AccessToken: "access", RefreshToken: "refresh", ExpiresIn: 300, RefreshExpiresIn: 3600}
}

var (
	errNoUser    = fault.New(connect.CodeNotFound, "USER_NOT_FOUND", "There is no such user.")
	errNoProfile = fault.New(connect.CodeNotFound, "PROFILE_NOT_FOUND", "There is no such profile.")
)

// signer makes access tokens, good ones and others.
type signer struct {
	kid     string
	private ed25519.PrivateKey
}

func newSigner(seed byte) signer {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return signer{kid: "key-" + string('0'+rune(seed)), private: private}
}

func (s signer) public() ed25519.PublicKey { return s.private.Public().(ed25519.PublicKey) }

func (s signer) published() *authv1.SigningKey {
	return &authv1.SigningKey{Kid: s.kid, PublicKey: s.public()}
}

// token signs a token of alice's that change makes different.
func (s signer) token(change func(header, claims map[string]any)) string {
	now := time.Now().Unix()
	header := map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": s.kid}
	claims := map[string]any{
		"iss": publicURL, "aud": []string{"gatehouse"}, "client_id": "gatehouse", "sub": alice, "sid": session,
		"roles": []string{"user"}, "ver": 1, "iat": now, "exp": now + 300, "jti": "1",
	}
	change(header, claims)
	return s.sign(encode(header), encode(claims))
}

// sign signs a header and claims as they are.
func (s signer) sign(header, claims string) string {
	text := base64url(header) + "." + base64url(claims)
	return text + "." + base64url(string(ed25519.Sign(s.private, []byte(text))))
}

func encode(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func base64url(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// journal keeps a log.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// lines returns the log's lines whose message is the given one.
func (j *journal) lines(t testing.TB, message string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for decoder := json.NewDecoder(strings.NewReader(j.String())); ; {
		var line map[string]any
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) {
			return lines
		} else if err != nil {
			t.Fatal(err)
		}
		if line["msg"] == message {
			lines = append(lines, line)
		}
	}
}
