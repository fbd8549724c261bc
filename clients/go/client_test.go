package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

// network is an HTTP client that counts the requests of each procedure and their
// idempotency keys, and can lose or replace their responses.
type network struct {
	mu   sync.Mutex
	keys map[string][]string // of the requests, by procedure
	// fail is asked for each request, once it has its response, for what to do instead
	// of returning that. Its error is that of a broken connection.
	fail func(procedure string, count int) (*http.Response, error)
}

func (n *network) Do(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(request)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keys == nil {
		n.keys = map[string][]string{}
	}
	procedure := request.URL.Path
	n.keys[procedure] = append(n.keys[procedure], request.Header.Get("Idempotency-Key"))
	if err != nil || n.fail == nil {
		return response, err
	}
	other, broken := n.fail(procedure, len(n.keys[procedure]))
	if other == nil && broken == nil {
		return response, nil
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return other, broken
}

func (n *network) keysOf(procedure string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.keys[procedure]...)
}

var errLost = errors.New("connection reset")

// losing returns a fail that loses the first responses of a procedure.
func losing(procedure string, first int) func(string, int) (*http.Response, error) {
	return func(called string, count int) (*http.Response, error) {
		if called == procedure && count <= first {
			return nil, errLost
		}
		return nil, nil
	}
}

var people atomic.Int64

// person is signed up.
type person struct {
	*gatehouse.Client
	network   *network
	store     gatehouse.TokenStore
	email, id string
	signedOut chan string
}

func newClient(t *testing.T, store gatehouse.TokenStore) *person {
	t.Helper()
	p := &person{network: &network{}, store: store, signedOut: make(chan string, 10)}
	var err error
	p.Client, err = gatehouse.New(gatehouse.Config{
		URL: gatewayURL, Store: store, HTTPClient: p.network, OnSignOut: func(reason string) { p.signedOut <- reason },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func signUp(t *testing.T, store gatehouse.TokenStore) *person {
	t.Helper()
	p := newClient(t, store)
	p.email = fmt.Sprintf("person-%d-%d@example.com", people.Add(1), os.Getpid())
	response, err := p.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: p.email, Password: "correct horse battery", FirstName: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	p.id = response.GetSignedIn().GetUser().GetId()
	return p
}

func (p *person) stored(t *testing.T) gatehouse.Session {
	t.Helper()
	session, err := p.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// expire makes the client believe that its access token has expired.
func (p *person) expire(t *testing.T) gatehouse.Session {
	t.Helper()
	session := p.stored(t)
	session.ExpireTime = time.Now().Add(-time.Second)
	if err := p.store.Save(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	return session
}

func (p *person) getMe(t *testing.T) error {
	t.Helper()
	me, err := p.Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
	if err == nil && me.GetUser().GetId() != p.id {
		t.Errorf("GetMe: got user %s, want %s", me.GetUser().GetId(), p.id)
	}
	return err
}

func (p *person) wantSignedOut(t *testing.T, reason string) {
	t.Helper()
	select {
	case got := <-p.signedOut:
		if got != reason {
			t.Errorf("signed out for %q, want %q", got, reason)
		}
	default:
		t.Errorf("OnSignOut was not called, want %q", reason)
	}
	if session := p.stored(t); session.SignedIn() || session.AccessToken != "" || session.DeviceToken == "" {
		t.Errorf("the store has access token %q, refresh token %q, device token %q; want the last one alone", session.AccessToken, session.RefreshToken, session.DeviceToken)
	}
}

func admin(t *testing.T) *gatehouse.Client {
	t.Helper()
	p := newClient(t, gatehouse.NewMemoryStore())
	if _, err := p.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "admin@localhost", Password: adminPassword}); err != nil {
		t.Fatal(err)
	}
	return p.Client
}

const (
	refresh  = bffv1.AuthServiceRefreshProcedure
	register = bffv1.AuthServiceRegisterProcedure
	getMe    = bffv1.AccountServiceGetMeProcedure
)

func TestSignUpBeginsASession(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	if err := p.getMe(t); err != nil {
		t.Fatal(err)
	}
	token, err := p.Token(t.Context())
	if err != nil || token != p.stored(t).AccessToken {
		t.Errorf("Token: got %q, %v; want the stored one", token, err)
	}
	if got := p.network.keysOf(refresh); len(got) != 0 {
		t.Errorf("got %d refreshes of a new token, want none", len(got))
	}
}

func TestConcurrentCallsRefreshOnce(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	before := p.expire(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := p.getMe(t); err != nil {
				t.Errorf("GetMe: %v", err)
			}
		})
	}
	wg.Wait()
	after := p.stored(t)
	if after.RefreshToken == before.RefreshToken || after.ID != before.ID || after.RefreshKey == before.RefreshKey {
		t.Errorf("the tokens were not replaced within the session: %s, then %s", before.ID, after.ID)
	}
	if got := p.network.keysOf(refresh); len(got) != 1 || got[0] != before.RefreshKey {
		t.Errorf("got refreshes with the keys %q, want one with %q", got, before.RefreshKey)
	}
}

// Concurrent calls share an exchange that fails too: the gateway is not asked by each.
func TestConcurrentCallsShareAFailure(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	p.expire(t)
	p.network.fail = losing(refresh, 1000)
	const calls = 40
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if err := p.getMe(t); connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("got %v, want unavailable", err)
			}
		})
	}
	wg.Wait()
	// A call that begins after the failure may try again; without sharing, each does.
	if got := len(p.network.keysOf(refresh)); got < 2 || got > calls {
		t.Errorf("got %d attempts by %d calls, want 2 or a few more", got, calls)
	}
}

// racingStore calls race before the Load that comes second.
type racingStore struct {
	gatehouse.TokenStore
	loads atomic.Int32
	race  func()
}

func (s *racingStore) Load(ctx context.Context) (gatehouse.Session, error) {
	if s.loads.Add(1) == 2 {
		s.race()
	}
	return s.TokenStore.Load(ctx)
}

// A client that was about to exchange the token uses what another one, which shares the
// store, has stored in the meantime.
func TestTheTokensOfAnotherClientAreUsed(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	p.expire(t)
	other := newClient(t, &racingStore{TokenStore: p.store, race: func() {
		if err := p.getMe(t); err != nil {
			t.Error(err)
		}
	}})
	other.id = p.id
	if err := other.getMe(t); err != nil {
		t.Error(err)
	}
	if first, second := len(p.network.keysOf(refresh)), len(other.network.keysOf(refresh)); first != 1 || second != 0 {
		t.Errorf("got %d and %d refreshes, want 1 and 0", first, second)
	}
}

// Every attempt to exchange a token has the same key, also that of another process after
// a crash, so that lost answers do no harm.
func TestLostAnswersDoNotEndTheSession(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	before := p.expire(t)
	p.network.fail = losing(refresh, 2) // the call and its retry
	if err := p.getMe(t); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	if after := p.stored(t); after != before {
		t.Fatalf("the store changed: got %+v, want %+v", after, before)
	}
	restarted := newClient(t, p.store)
	restarted.id, restarted.network.fail = p.id, losing(refresh, 1)
	if err := restarted.getMe(t); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	for _, key := range append(p.network.keysOf(refresh), restarted.network.keysOf(refresh)...) {
		if key != before.RefreshKey {
			t.Errorf("an attempt had the key %q, want %q", key, before.RefreshKey)
		}
	}
	if got := len(p.network.keysOf(refresh)) + len(restarted.network.keysOf(refresh)); got != 4 {
		t.Errorf("got %d attempts, want 4", got)
	}
}

// A gateway that cannot be reached for a refresh does no harm while the token is valid.
func TestAValidTokenIsUsedWhileARefreshFails(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	session := p.stored(t)
	session.ExpireTime = time.Now().Add(20 * time.Second) // soon, so that the client refreshes
	if err := p.store.Save(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	p.network.fail = losing(refresh, 2)
	if err := p.getMe(t); err != nil {
		t.Error(err)
	}
	if got := len(p.network.keysOf(refresh)); got != 2 {
		t.Errorf("got %d attempts to refresh, want 2", got)
	}
}

// A 401 of something in between is not the gateway's refusal.
func TestAProxysRefusalKeepsTheSession(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	before := p.expire(t)
	p.network.fail = func(procedure string, _ int) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Header: http.Header{"Content-Type": {"text/html"}}, Body: io.NopCloser(strings.NewReader("<h1>Sign in to the Wi-Fi</h1>"))}, nil
	}
	if err := p.getMe(t); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("got %v, want unauthenticated", err)
	}
	if after := p.stored(t); after != before {
		t.Errorf("the store changed: got %+v, want %+v", after, before)
	}
	p.network.fail = nil
	if err := p.getMe(t); err != nil {
		t.Errorf("without the proxy: %v", err)
	}
}

// After a change of roles the gateway refuses the older tokens; the client replaces its
// own and repeats the call.
func TestAStaleTokenIsReplaced(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	if _, err := admin(t).Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: p.id, Roles: []string{"user", "admin"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		if err := p.getMe(t); err != nil {
			t.Fatal(err)
		}
		return len(p.network.keysOf(refresh)) == 1
	})
}

func TestAnEndedSessionSignsOut(t *testing.T) {
	t.Parallel()
	for name, expired := range map[string]bool{"by the access token": false, "by the refresh token": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := signUp(t, gatehouse.NewMemoryStore())
			if _, err := admin(t).Users.RevokeUserSessions(t.Context(), &bffv1.RevokeUserSessionsRequest{UserId: p.id}); err != nil {
				t.Fatal(err)
			}
			if expired {
				p.expire(t)
			}
			var err error
			eventually(t, func() bool {
				err = p.getMe(t)
				return err != nil
			})
			if connect.CodeOf(err) != connect.CodeUnauthenticated || gatehouse.Reason(err) != "SESSION_ENDED" {
				t.Errorf("got %v (%s), want unauthenticated SESSION_ENDED", err, gatehouse.Reason(err))
			}
			p.wantSignedOut(t, "SESSION_ENDED")
			attempts := len(p.network.keysOf(refresh))
			if want := map[bool]int{false: 0, true: 1}[expired]; attempts != want {
				t.Errorf("got %d attempts to refresh, want %d", attempts, want)
			}
			if err := p.getMe(t); gatehouse.Reason(err) != "TOKEN_MISSING" {
				t.Errorf("the next call: got %v (%s), want TOKEN_MISSING", err, gatehouse.Reason(err))
			}
			if got := len(p.network.keysOf(refresh)); got != attempts {
				t.Errorf("the client refreshed an ended session: %d attempts, then %d", attempts, got)
			}
			if _, err := p.Token(t.Context()); !errors.Is(err, gatehouse.ErrSignedOut) {
				t.Errorf("Token: got %v, want ErrSignedOut", err)
			}
		})
	}
}

// A person who signs out is signed out here, also if the gateway cannot be reached.
func TestLogoutForgetsTheSession(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"with the gateway": false, "without the gateway": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := signUp(t, gatehouse.NewMemoryStore())
			device := p.stored(t).DeviceToken
			if broken {
				p.network.fail = losing(bffv1.AuthServiceLogoutProcedure, 2)
			}
			if _, err := p.Auth.Logout(t.Context(), &bffv1.LogoutRequest{}); (err != nil) != broken {
				t.Errorf("got %v, want an error: %t", err, broken)
			}
			if session := p.stored(t); session != (gatehouse.Session{DeviceToken: device}) || device == "" {
				t.Errorf("the store has %+v, want the device token alone", session)
			}
			if signedIn, err := p.SignedIn(t.Context()); signedIn || err != nil {
				t.Errorf("SignedIn: got %t, %v", signedIn, err)
			}
		})
	}
}

func TestDeletingOneselfForgetsTheSession(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	if _, err := p.Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
		t.Fatal(err)
	}
	if p.stored(t).SignedIn() {
		t.Error("the store still has the session")
	}
}

// A registration whose answer is lost is repeated with its key, and makes one account.
func TestALostRegistrationIsRepeated(t *testing.T) {
	t.Parallel()
	p := newClient(t, gatehouse.NewMemoryStore())
	p.network.fail = losing(register, 1)
	ctx, info := connect.NewClientContext(t.Context())
	response, err := p.Auth.Register(ctx, &bffv1.RegisterRequest{Email: fmt.Sprintf("lost-%d@example.com", people.Add(1)), Password: "correct horse battery"})
	if err != nil {
		t.Fatal(err)
	}
	p.id = response.GetSignedIn().GetUser().GetId()
	if err := p.getMe(t); err != nil {
		t.Error(err)
	}
	if keys := p.network.keysOf(register); len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] {
		t.Errorf("got the keys %q, want one of them twice", keys)
	}
	if key := info.RequestHeader().Get("Idempotency-Key"); key != "" {
		t.Errorf("the context keeps the key %q, which would merge the next call with this one", key)
	}
}

// A sign-in whose answer is lost is not repeated: it would be a second session.
func TestALostSignInIsNotRepeated(t *testing.T) {
	t.Parallel()
	p := signUp(t, gatehouse.NewMemoryStore())
	p.network.fail = losing(bffv1.AuthServiceLoginProcedure, 1)
	_, err := p.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: p.email, Password: "correct horse battery"})
	if connect.CodeOf(err) != connect.CodeUnavailable || len(p.network.keysOf(bffv1.AuthServiceLoginProcedure)) != 1 {
		t.Errorf("got %v after %d attempts, want unavailable after 1", err, len(p.network.keysOf(bffv1.AuthServiceLoginProcedure)))
	}
}

// A session in a file outlives the client. Only the owner may read the file.
func TestAFileStoreOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "session.json")
	p := signUp(t, gatehouse.NewFileStore(path))
	p.expire(t)
	later := newClient(t, gatehouse.NewFileStore(path))
	later.id = p.id
	if err := later.getMe(t); err != nil {
		t.Fatal(err)
	}
	// The first client finds the tokens that the second one got.
	if err := p.getMe(t); err != nil || len(p.network.keysOf(refresh)) != 0 {
		t.Errorf("got %v after %d refreshes, want none", err, len(p.network.keysOf(refresh)))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v), want 0600", info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("the folder has %d files, want 1", len(files))
	}
}

func TestErrorsSayWhy(t *testing.T) {
	t.Parallel()
	p := newClient(t, gatehouse.NewMemoryStore())
	_, err := p.Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: "ada", Password: "correct horse battery"})
	violations := gatehouse.FieldViolations(err)
	if connect.CodeOf(err) != connect.CodeInvalidArgument || gatehouse.Reason(err) != "INVALID_ARGUMENT" || len(violations) == 0 || violations[0].Field != "email" || violations[0].Description == "" {
		t.Errorf("got %v, reason %q, fields %+v", err, gatehouse.Reason(err), violations)
	}
	if reason := gatehouse.Reason(errLost); reason != "" {
		t.Errorf("another error: got reason %q, want none", reason)
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 30 s")
		}
	}
}
