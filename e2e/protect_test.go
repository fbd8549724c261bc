package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatehouse/auth/secretkey"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/testneed"
)

// protected is the API of the guide "Protect your own API", in FastAPI.
type protected struct{ url string }

// startProtected starts the API for an issuer. Where its packages are missing and nothing
// says that all tests must run, the test is skipped.
func startProtected(t *testing.T, issuer string) protected {
	t.Helper()
	testneed.Program(t, python)
	if said, err := exec.Command(python, "-c", "import fastapi, uvicorn, jwt, cryptography").CombinedOutput(); err != nil {
		testneed.Lacks(t, "packages of Python are missing ("+strings.TrimSpace(string(said))+")", "install them")
	}
	address := harness.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	p := &harness.Process{Cmd: exec.Command(python, "-m", "uvicorn", "protect:app", "--port", port, "--log-level", "warning"), Ended: make(chan struct{})}
	p.Cmd.Dir = "examples/python"
	p.Cmd.Env = append(os.Environ(), "GATEHOUSE_URL="+issuer, "PYTHONDONTWRITEBYTECODE=1")
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.Ended)
		_ = p.Cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	harness.Eventually(t, time.Minute, "start the API", func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return fmt.Errorf("%w: %s", err, p.Stderr.String())
		}
		return conn.Close()
	})
	return protected{"http://" + address}
}

// orders calls the API. An empty authorization is not sent.
func (p protected) orders(t *testing.T, authorization string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/orders", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	return harness.Do(t, request)
}

// signingKey returns the key that a system signs access tokens with.
func signingKey(t *testing.T, s *harness.System) (kid string, private ed25519.PrivateKey) {
	t.Helper()
	secret, err := hex.DecodeString(harness.SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	if err := s.Owner.QueryRow(t.Context(), "SELECT kid, sealed_private_key FROM auth.signing_keys ORDER BY sign_time LIMIT 1").Scan(&kid, &sealed); err != nil {
		t.Fatal(err)
	}
	seed, err := secretkey.Open([][]byte{secret}, "signing key v1", kid, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return kid, ed25519.NewKeyFromSeed(seed)
}

// changing returns a function that signs the claims of a token, changed, for a key. A claim
// that is nil is left out.
func changing(t *testing.T, token, kid string) func(method jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	var genuine jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &genuine); err != nil {
		t.Fatal(err)
	}
	return func(method jwt.SigningMethod, key any, header, claims map[string]any) string {
		changed := maps.Clone(genuine)
		maps.Copy(changed, claims)
		maps.DeleteFunc(changed, func(_ string, value any) bool { return value == nil })
		token := jwt.NewWithClaims(method, changed)
		token.Header["typ"], token.Header["kid"] = "at+jwt", kid
		maps.Copy(token.Header, header)
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

const (
	missingToken = `{"detail":"Access token is missing. Sign in, and send it as \"Authorization: Bearer …\"."}`
	invalidToken = `{"detail":"Access token is not valid. Refresh it, or sign in again."}`
)

// TestAnAPIInFastAPITakesAccessTokens runs the code of the guide against three processes.
func TestAnAPIInFastAPITakesAccessTokens(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	api := startProtected(t, s.URL)
	ada := s.SignUp(t, "ada@example.com")
	kid, private := signingKey(t, s)

	made := changing(t, ada.Access, kid)
	signed := func(claims map[string]any) string { return made(jwt.SigningMethodEdDSA, private, nil, claims) }
	now, day := time.Now().Unix(), int64(24*60*60)
	_, strange, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	segments := strings.Split(ada.Access, ".")
	nested := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":` + strings.Repeat("[", 5_000)))
	public := private.Public().(ed25519.PublicKey)
	owner := fmt.Sprintf(`{"owner":%q,"all":false}`, ada.ID)
	for name, c := range map[string]struct {
		authorization string
		status        int
		body          string
	}{
		"valid":                                {"Bearer " + ada.Access, 200, owner},
		"made as the gateway makes it":         {"Bearer " + signed(nil), 200, owner},
		"of an administrator":                  {"Bearer " + signed(map[string]any{"roles": []string{"admin"}}), 200, fmt.Sprintf(`{"owner":%q,"all":true}`, ada.ID)},
		"from a clock that is a little ahead":  {"Bearer " + signed(map[string]any{"iat": now + 10}), 200, owner},
		"missing":                              {"", 401, missingToken},
		"of another scheme":                    {"Basic " + ada.Access, 401, missingToken},
		"garbage":                              {"Bearer garbage", 401, invalidToken},
		"expired":                              {"Bearer " + signed(map[string]any{"iat": now - day, "exp": now - 60}), 401, invalidToken},
		"of tomorrow by nbf":                   {"Bearer " + signed(map[string]any{"nbf": now + day}), 401, invalidToken},
		"of tomorrow by iat":                   {"Bearer " + signed(map[string]any{"iat": now + day, "exp": now + 2*day}), 401, invalidToken},
		"without an end":                       {"Bearer " + signed(map[string]any{"exp": nil}), 401, invalidToken},
		"without a subject":                    {"Bearer " + signed(map[string]any{"sub": nil}), 401, invalidToken},
		"for another audience":                 {"Bearer " + signed(map[string]any{"aud": "shop"}), 401, invalidToken},
		"without an audience":                  {"Bearer " + signed(map[string]any{"aud": nil}), 401, invalidToken},
		"of another issuer":                    {"Bearer " + signed(map[string]any{"iss": "https://evil.example"}), 401, invalidToken},
		"of another type":                      {"Bearer " + made(jwt.SigningMethodEdDSA, private, map[string]any{"typ": "JWT"}, nil), 401, invalidToken},
		"an identity token by its type":        {"Bearer " + made(jwt.SigningMethodEdDSA, private, map[string]any{"typ": "identity+jwt"}, nil), 401, invalidToken},
		"without a signature":                  {"Bearer " + segments[0] + "." + segments[1] + ".", 401, invalidToken},
		"of the algorithm none":                {"Bearer " + made(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil), 401, invalidToken},
		"of HS256 with the public key":         {"Bearer " + made(jwt.SigningMethodHS256, []byte(public), nil, nil), 401, invalidToken},
		"of HS256 with the public key as text": {"Bearer " + made(jwt.SigningMethodHS256, []byte(base64.RawURLEncoding.EncodeToString(public)), nil, nil), 401, invalidToken},
		"signed by a stranger":                 {"Bearer " + made(jwt.SigningMethodEdDSA, strange, nil, nil), 401, invalidToken},
		"of an unknown key":                    {"Bearer " + made(jwt.SigningMethodEdDSA, strange, map[string]any{"kid": "unknown"}, nil), 401, invalidToken},
		"of a key without a name":              {"Bearer " + made(jwt.SigningMethodEdDSA, private, map[string]any{"kid": nil}, nil), 401, invalidToken},
		"of a key that is a number":            {"Bearer " + made(jwt.SigningMethodEdDSA, private, map[string]any{"kid": 7}, nil), 401, invalidToken},
		"nested without end":                   {"Bearer " + nested + "." + segments[1] + "." + segments[2], 401, invalidToken},
	} {
		status, header, body := api.orders(t, c.authorization)
		if status != c.status || body != c.body {
			t.Errorf("a token that is %s: got %d %s, want %d %s", name, status, body, c.status, c.body)
		}
		if challenge := header.Get("WWW-Authenticate"); (status == 401) != (challenge == "Bearer") {
			t.Errorf("a token that is %s: %d has WWW-Authenticate %q", name, status, challenge)
		}
	}

	// As the guide says, the API learns of a sign-out only by the end of the token.
	if _, err := ada.Client().Auth.Logout(t.Context(), &bffv1.LogoutRequest{RefreshToken: ada.Refresh}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 10*time.Second, "be refused by the gateway", func() error {
		if _, err := ada.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err == nil {
			return fmt.Errorf("the token is still good")
		}
		return nil
	})
	if status, _, body := api.orders(t, "Bearer "+ada.Access); status != 200 {
		t.Errorf("after the sign-out: got %d %s", status, body)
	}

	// The keys are remembered, so the API needs the gateway for no call.
	s.Processes[harness.RoleBff].Kill()
	if status, _, body := api.orders(t, "Bearer "+ada.Access); status != 200 {
		t.Errorf("without the gateway: got %d %s", status, body)
	}
}

func TestAnAPIInFastAPIIsUnavailableWithoutKeys(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	s.Processes[harness.RoleBff].Kill()
	api := startProtected(t, s.URL)
	status, header, body := api.orders(t, "Bearer "+ada.Access)
	if status != 503 || header.Get("Retry-After") != "1" || !strings.Contains(body, "Try again") {
		t.Errorf("without keys: got %d %v %s", status, header, body)
	}
	if status, _, body := api.orders(t, "Bearer garbage"); status != 401 {
		t.Errorf("garbage without keys: got %d %s", status, body)
	}
	s.Start(t, harness.RoleBff)
	harness.Eventually(t, 30*time.Second, "fetch the keys", func() error {
		if status, _, body := api.orders(t, "Bearer "+ada.Access); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// An issuer accepts calls and never answers. The API waits for nothing but the first fetch:
// with keys, only one call at a time waits for another fetch.
func TestAnAPIInFastAPIKeepsItsKeysWhileTheIssuerHangs(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	kid, private := signingKey(t, s)
	var answers, asked atomic.Int32
	hang := make(chan struct{})
	keys := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, kid, base64.RawURLEncoding.EncodeToString(private.Public().(ed25519.PublicKey)))
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		switch answers.Load() {
		case 0:
			_, _ = w.Write([]byte(`{"keys":[]}`))
		case 1:
			_, _ = w.Write([]byte(keys))
		default:
			<-hang
		}
	}))
	t.Cleanup(issuer.Close)
	t.Cleanup(sync.OnceFunc(func() { close(hang) }))
	api := startProtected(t, issuer.URL)
	made := changing(t, ada.Access, kid)
	token := "Bearer " + made(jwt.SigningMethodEdDSA, private, nil, map[string]any{"iss": issuer.URL})
	if status, _, body := api.orders(t, token); status != 503 {
		t.Errorf("with an empty set of keys: got %d %s, want 503", status, body)
	}
	answers.Store(1)
	harness.Eventually(t, 30*time.Second, "fetch the keys", func() error {
		if status, _, body := api.orders(t, token); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	answers.Store(2)
	before := asked.Load()
	unknown := "Bearer " + made(jwt.SigningMethodEdDSA, private, map[string]any{"kid": "unknown"}, map[string]any{"iss": issuer.URL})
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		for asked.Load() == before { // the keys are fetched once in 10 s
			time.Sleep(50 * time.Millisecond)
			api.orders(t, unknown)
		}
	}()
	harness.Eventually(t, time.Minute, "begin a fetch that hangs", func() error {
		if asked.Load() == before {
			return fmt.Errorf("the issuer is not asked")
		}
		return nil
	})
	for range 30 {
		if status, _, body := api.orders(t, unknown); status != 401 {
			t.Errorf("an unknown key while the issuer hangs: got %d %s", status, body)
		}
		if status, _, body := api.orders(t, token); status != 200 {
			t.Errorf("while the issuer hangs: got %d %s", status, body)
		}
	}
	select {
	case <-waited:
		t.Error("the calls waited for the fetch that hangs")
	default:
	}
	<-waited
}
