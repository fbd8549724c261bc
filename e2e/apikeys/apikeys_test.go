package apikeys

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/apikey"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
)

// created makes a key of a person.
func created(t testing.TB, of *harness.Person, scopes ...string) *bffv1.CreateKeyResponse {
	t.Helper()
	made, err := of.Client().Account.CreateKey(t.Context(), &bffv1.CreateKeyRequest{Name: "Nightly", Scopes: scopes})
	if err != nil {
		t.Fatalf("CreateKey: %v", err)
	}
	return made
}

func getMe(ctx context.Context, gateway *harness.System, key string) error {
	_, err := gateway.Client(key).Account.GetMe(ctx, &bffv1.GetMeRequest{})
	return err
}

// reasonWithin waits until a gateway answers a call by the key with the reason; empty for
// success.
func reasonWithin(t testing.TB, gateway *harness.System, key, reason string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "the key is answered with "+reason, func() error {
		if err := getMe(t.Context(), gateway, key); fault.Reason(err) != reason || reason == "" && err != nil {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

func TestWhatEndsAKeyEndsItOnEveryGateway(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{Gateways: 3, Auths: 2})
	admin := w.Gateways[0].Admin(t)
	owner := pgtest.Pool(t, w.Database.Owner)
	for name, end := range map[string]func(person *harness.Person, key string) error{
		"revoked by its owner": func(person *harness.Person, key string) error {
			_, err := person.Client().Account.RevokeKey(t.Context(), &bffv1.RevokeKeyRequest{KeyId: key})
			return err
		},
		"revoked by an administrator": func(person *harness.Person, key string) error {
			_, err := admin.Client().Users.RevokeUserKey(t.Context(), &bffv1.RevokeUserKeyRequest{UserId: person.ID, KeyId: key})
			return err
		},
		"disabled owner": func(person *harness.Person, _ string) error {
			_, err := admin.Client().Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: person.ID})
			return err
		},
		"deleted owner": func(person *harness.Person, _ string) error {
			_, err := admin.Client().Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: person.ID})
			return err
		},
		"expired": func(_ *harness.Person, key string) error {
			_, err := owner.Exec(t.Context(), `UPDATE auth.api_keys SET expire_time = clock_timestamp() + interval '2 seconds' WHERE id = $1`, key)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			person := w.Gateways[0].SignUp(t, strings.ReplaceAll(name, " ", ".")+"@example.com")
			made := created(t, person, "me:read")
			reason := "KEY_INVALID"
			if name == "expired" { // before a gateway knows it
				if err := end(person, made.GetKey().GetKeyId()); err != nil {
					t.Fatal(err)
				}
				reason = "KEY_EXPIRED"
			}
			for i, gateway := range w.Gateways {
				if err := getMe(t.Context(), gateway, made.GetSecret()); err != nil && reason == "KEY_INVALID" {
					t.Fatalf("gateway %d: %v", i, err)
				}
			}
			if reason == "KEY_INVALID" {
				if err := end(person, made.GetKey().GetKeyId()); err != nil {
					t.Fatal(err)
				}
			}
			for _, gateway := range w.Gateways {
				reasonWithin(t, gateway, made.GetSecret(), reason)
			}
		})
	}
}

// The roles are those of the owner now: nobody refreshes a key.
func TestAKeyHasTheRolesOfItsOwnerNow(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{Gateways: 2})
	admin, ada := w.Gateways[0].Admin(t), w.Gateways[0].SignUp(t, "ada@example.com")
	made := created(t, ada, "users:read")
	list := func(gateway *harness.System) string {
		_, err := gateway.Client(made.GetSecret()).Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{})
		return fault.Reason(err)
	}
	for _, step := range []struct {
		roles []string
		want  string
	}{{nil, "PERMISSION_DENIED"}, {[]string{"admin"}, ""}, {nil, "PERMISSION_DENIED"}} {
		if _, err := admin.Client().Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: ada.ID, Roles: step.roles}); err != nil {
			t.Fatal(err)
		}
		for i, gateway := range w.Gateways {
			harness.Eventually(t, 20*time.Second, "the roles count", func() error {
				if got := list(gateway); got != step.want {
					return fmt.Errorf("gateway %d, with %v: got %q, want %q", i, step.roles, got, step.want)
				}
				return nil
			})
		}
	}
}

// cutOff makes the revocation streams of a stack end and fail while it is set.
type cutOff struct {
	streams, all atomic.Bool
	checks       atomic.Int64
}

func (c *cutOff) wrap(_ int, service string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/CheckKey") {
			c.checks.Add(1)
		}
		if service != harness.RoleAuth || !c.all.Load() && !(c.streams.Load() && strings.HasSuffix(r.URL.Path, "/WatchRevocations")) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			if strings.HasSuffix(r.URL.Path, "/WatchRevocations") {
				go func() {
					for ctx.Err() == nil {
						if c.streams.Load() || c.all.Load() {
							cancel()
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			next.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		http.Error(w, "cut off", http.StatusServiceUnavailable)
	})
}

func TestAKnownKeyCostsNoQueryAndWithoutTheFeedOneEach(t *testing.T) {
	t.Parallel()
	cut := &cutOff{}
	w := harness.StartStack(t, harness.StackConfig{Wrap: cut.wrap})
	gateway := w.Gateways[0]
	ada := gateway.SignUp(t, "ada@example.com")
	made, other, known := created(t, ada, "me:read"), created(t, ada, "me:read"), created(t, ada, "me:read")
	for range 20 {
		if err := getMe(t.Context(), gateway, made.GetSecret()); err != nil {
			t.Fatal(err)
		}
	}
	if n := cut.checks.Load(); n != 1 {
		t.Errorf("20 calls asked auth %d times, want once", n)
	}
	if err := getMe(t.Context(), gateway, known.GetSecret()); err != nil {
		t.Fatal(err)
	}
	cut.streams.Store(true)
	harness.Eventually(t, 30*time.Second, "each call asks auth", func() error {
		before := cut.checks.Load()
		if err := getMe(t.Context(), gateway, made.GetSecret()); err != nil || cut.checks.Load() == before {
			return fmt.Errorf("got %v after %d questions", err, cut.checks.Load()-before)
		}
		return nil
	})
	if _, err := ada.Client().Account.RevokeKey(t.Context(), &bffv1.RevokeKeyRequest{KeyId: made.GetKey().GetKeyId()}); err != nil {
		t.Fatal(err)
	}
	if err := getMe(t.Context(), gateway, made.GetSecret()); fault.Reason(err) != "KEY_INVALID" {
		t.Errorf("revoked while cut off: got %v, want KEY_INVALID", err)
	}
	cut.all.Store(true)
	for name, key := range map[string]string{"a key that the gateway has seen": known.GetSecret(), "another key": other.GetSecret()} {
		if err := getMe(t.Context(), gateway, key); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("without auth, %s: got %v, want unavailable", name, err)
		}
	}
}

// publicMethods calls f for each method of the public API and its policy.
func publicMethods(t *testing.T, f func(method protoreflect.MethodDescriptor, policy *policyv1.Method)) {
	t.Helper()
	n := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("bff.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				policy, _ := proto.GetExtension(methods.Get(k).Options(), policyv1.E_Method).(*policyv1.Method)
				f(methods.Get(k), policy)
				n++
			}
		}
		return true
	})
	if n < 50 {
		t.Fatalf("%d methods, want at least 50", n)
	}
}

func TestEveryMethodRefusesAKeyWithoutItsScope(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{})
	admin := w.Gateways[0].Admin(t)
	scopes := map[string]bool{}
	publicMethods(t, func(_ protoreflect.MethodDescriptor, policy *policyv1.Method) {
		for _, scope := range policy.GetScopes() {
			scopes[scope] = true
		}
	})
	post := func(method protoreflect.MethodDescriptor, key string) (int, http.Header, string) {
		return w.Gateways[0].Post(t, fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()), key, exampleOf(t, method))
	}
	var closed, open, streams int
	every := slices.Collect(maps.Keys(scopes))
	everything := created(t, admin, every...)
	without := map[string]*bffv1.CreateKeyResponse{}
	for _, scope := range every {
		without[scope] = created(t, admin, slices.DeleteFunc(slices.Clone(every), func(one string) bool { return one == scope })...)
	}
	publicMethods(t, func(method protoreflect.MethodDescriptor, policy *policyv1.Method) {
		if policy.GetAccess().GetAnyone() != nil {
			return
		}
		key := everything
		if len(policy.GetScopes()) > 0 {
			key = without[policy.GetScopes()[0]]
			open++
		} else {
			closed++
		}
		if method.IsStreamingServer() {
			streams++
			if body := firstFrame(t, w.Gateways[0].URL, method, key.GetSecret()); !strings.Contains(body, "SCOPE_REQUIRED") {
				t.Errorf("%s: got %q, want SCOPE_REQUIRED", method.FullName(), body)
			}
			return
		}
		status, header, body := post(method, key.GetSecret())
		if status != http.StatusForbidden || !strings.Contains(body, "SCOPE_REQUIRED") || !strings.Contains(header.Get("Www-Authenticate"), `error="insufficient_scope"`) {
			t.Errorf("%s: got %d %s %q, want SCOPE_REQUIRED", method.FullName(), status, body, header.Get("Www-Authenticate"))
		}
		if len(policy.GetScopes()) > 0 {
			if status, _, body := post(method, everything.GetSecret()); strings.Contains(body, "SCOPE_REQUIRED") || strings.Contains(body, "KEY_") || status == http.StatusInternalServerError {
				t.Errorf("%s with its scope: got %d %s", method.FullName(), status, body)
			}
		}
	})
	if streams < 4 {
		t.Errorf("%d streams were opened, want at least 4", streams)
	}
	for _, path := range []string{"/api/v1/me:watch", "/api/v1/users:watch"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Gateways[0].URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+everything.GetSecret())
		if status, _, body := harness.Do(t, request); status != http.StatusForbidden || !strings.Contains(body, "SCOPE_REQUIRED") {
			t.Errorf("%s: got %d %s, want SCOPE_REQUIRED", path, status, body)
		}
	}
	if closed < 20 || open < 10 {
		t.Errorf("%d methods without scopes and %d with were called, want at least 20 and 10", closed, open)
	}
}

// firstFrame opens a stream, and returns its first message or its end as Connect frames it.
func firstFrame(t *testing.T, address string, method protoreflect.MethodDescriptor, key string) string {
	t.Helper()
	message := exampleOf(t, method)
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("%s/%s/%s", address, method.Parent().FullName(), method.Name()), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/connect+json")
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	head := make([]byte, 5)
	if _, err := io.ReadFull(response.Body, head); err != nil {
		return fmt.Sprintf("%d: %v", response.StatusCode, err)
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(response.Body, rest)
	return fmt.Sprintf("%d %s %v", head[0], rest, err)
}

// exampleOf returns an empty request: the scope is checked before the message.
func exampleOf(t *testing.T, method protoreflect.MethodDescriptor) string {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(kind.New().Interface())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lockedLog collects a log.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestAKeyInAWrongPlaceIsRefusedAndNeverStored(t *testing.T) {
	t.Parallel()
	log := &lockedLog{}
	w := harness.StartStack(t, harness.StackConfig{Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	gateway := w.Gateways[0]
	key := created(t, gateway.SignUp(t, "ada@example.com"), "me:read").GetSecret()
	for name, change := range map[string]func(r *http.Request){
		"in the query":         func(r *http.Request) { r.URL.RawQuery = url.Values{"access_token": {key}}.Encode() },
		"in a cookie":          func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "gatehouse-access", Value: key}) },
		"in the refresh one":   func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "gatehouse-refresh", Value: key}) },
		"twice":                func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + key, "Bearer " + key} },
		"twice in one":         func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key+" "+key) },
		"in upper case":        func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.ToUpper(key)) },
		"with a typing error":  func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key[:30]+"x"+key[31:]) },
		"as a user name":       func(r *http.Request) { r.SetBasicAuth(key, "") },
		"in a header of ours":  func(r *http.Request) { r.Header.Set("X-Api-Key", key) },
		"with a trailing word": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key+"=") },
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway.URL+"/api/v1/me", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		change(request)
		if status, _, body := harness.Do(t, request); status < 400 || status >= 500 {
			t.Errorf("%s: got %d %s, want a refusal", name, status, body)
		}
	}
	if status, _, _ := gateway.Post(t, "/bff.v1.AuthService/Refresh", "", `{"refreshToken":"`+key+`"}`); status < 400 || status >= 500 {
		t.Errorf("in a body: got %d, want a refusal", status)
	}
	for name, value := range map[string]string{"with a folded line": key + "\r\n x", "with a bare newline": key + "\nX-Other: x", "with a carriage return": key + "\rx"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(gateway.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(conn, "GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+value+"\r\nConnection: close\r\n\r\n")
		text, _ := io.ReadAll(conn)
		_ = conn.Close()
		// A bare newline ends a line (RFC 9112, 2.2), so that the key stands alone before it.
		if refused := strings.HasPrefix(string(text), "HTTP/1.1 4"); refused == (name == "with a bare newline") {
			t.Errorf("%s: got %.80q", name, text)
		}
	}
	// With a key, the session mode of browsers is ignored.
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway.URL+"/api/v1/me", http.NoBody)
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("X-Gatehouse-Session", "cookie")
	if status, header, body := harness.Do(t, request); status != http.StatusOK || header.Get("Set-Cookie") != "" {
		t.Errorf("in cookie mode: got %d %s with the cookies %q, want 200 without cookies", status, body, header.Get("Set-Cookie"))
	}
	if text := log.String(); strings.Contains(text, "ghk_") || strings.Contains(text, "GHK_") || len(text) < 100 {
		t.Errorf("the log has a key, or nothing:\n%s", text)
	}
	harness.WantInNoTable(t, pgtest.Pool(t, w.Database.Owner), key[28:60])
}

func TestNetworksRestrictAKey(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}})
	gateway := w.Gateways[0]
	ada := gateway.SignUp(t, "ada@example.com")
	made, err := ada.Client().Account.CreateKey(t.Context(), &bffv1.CreateKeyRequest{Name: "Office", Scopes: []string{"me:read"}, Networks: []string{"203.0.113.0/24", "2001:db8::/32"}})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]int{"203.0.113.7": 200, "::ffff:203.0.113.7": 200, "2001:db8::7": 200, "198.51.100.7": 403, "2001:db9::7": 403} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway.URL+"/api/v1/me", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+made.GetSecret())
		request.Header.Set("X-Forwarded-For", address)
		if status, _, body := harness.Do(t, request); status != want || want == 403 && !strings.Contains(body, "KEY_NETWORK") {
			t.Errorf("from %s: got %d %s, want %d", address, status, body, want)
		}
	}
	_, err = ada.Client().Account.CreateKey(t.Context(), &bffv1.CreateKeyRequest{Name: "x", Scopes: []string{"me:read"}, Networks: []string{"203.0.113.0"}})
	harness.WantReason(t, err, connect.CodeInvalidArgument, "NETWORK_INVALID")
	_, err = ada.Client().Account.CreateKey(t.Context(), &bffv1.CreateKeyRequest{Name: "x", Scopes: []string{"me:everything"}})
	harness.WantReason(t, err, connect.CodeInvalidArgument, "SCOPE_UNKNOWN")
}

// Random keys reach auth no faster than the rate of their address, and those with a wrong
// checksum never.
func TestRandomKeysCostAuthAtMostTheRateOfTheirAddress(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	random := func() string {
		var secret [32]byte
		_, _ = rand.Read(secret[:])
		return apikey.Format(uuid.New(), secret)
	}
	calls := setting("GATEHOUSE_TEST_KEYS", 3000)
	start := time.Now()
	var refused, limited atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range calls / 8 {
				switch err := getMe(t.Context(), s, random()); fault.Reason(err) {
				case "KEY_INVALID":
					refused.Add(1)
				case "TOO_MANY_REQUESTS":
					limited.Add(1)
				}
			}
		})
	}
	group.Wait()
	t.Logf("of %d keys in %s %d reached auth, and %d were refused before", calls, time.Since(start).Round(time.Millisecond), refused.Load(), limited.Load())
	most := int64(500 + 50*(time.Since(start).Seconds()+1)) // the burst and the rate of an address
	if refused.Load() > most || limited.Load() == 0 || refused.Load() == 0 {
		t.Errorf("of %d calls in %s %d reached auth and %d were refused before, want at most %d", calls, time.Since(start), refused.Load(), limited.Load(), most)
	}
	wrong := random()
	last := "0"
	if strings.HasSuffix(wrong, last) {
		last = "1"
	}
	wrong = wrong[:len(wrong)-1] + last
	if err := getMe(t.Context(), s, wrong); fault.Reason(err) != "KEY_INVALID" {
		t.Errorf("with a wrong checksum beyond the rate: got %v, want KEY_INVALID without a question", err)
	}
}

func TestAFoundKeyCanBeRevoked(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{})
	gateway := w.Gateways[0]
	made := created(t, gateway.SignUp(t, "ada@example.com"), "me:read")
	post := func(body, media string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gateway.URL+"/oauth/revoke", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", media)
		status, _, text := harness.Do(t, request)
		return status, text
	}
	const form = "application/x-www-form-urlencoded"
	for name, test := range map[string]struct {
		body, media string
		status      int
		code        string
	}{
		"no token":         {"", form, 400, "invalid_request"},
		"two tokens":       {"token=a&token=b", form, 400, "invalid_request"},
		"JSON":             {`{"token":"` + made.GetSecret() + `"}`, "application/json", 400, "invalid_request"},
		"an access token":  {"token=eyJ", form, 400, "unsupported_token_type"},
		"a malformed key":  {"token=ghk_x", form, 200, ""},
		"a large body":     {"token=" + strings.Repeat("a", 1<<16), form, 400, "invalid_request"},
		"an unknown token": {"token=" + apikey.Format(uuid.New(), [32]byte{}), form, 200, ""},
	} {
		if status, text := post(test.body, test.media); status != test.status || !strings.Contains(text, test.code) {
			t.Errorf("%s: got %d %s, want %d %s", name, status, text, test.status, test.code)
		}
	}
	if err := getMe(t.Context(), gateway, made.GetSecret()); err != nil {
		t.Fatalf("before: %v", err)
	}
	for range 2 {
		if status, text := post(url.Values{"token": {made.GetSecret()}, "token_type_hint": {"api_key"}}.Encode(), form); status != 200 || text != "" {
			t.Errorf("got %d %s, want an empty 200", status, text)
		}
	}
	reasonWithin(t, gateway, made.GetSecret(), "KEY_INVALID")
}
