package bff

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/apikey"
	"gatehouse/internal/upstream"
	"gatehouse/internal/upstreamtest"
)

// withScopes is withShop with scopes of GetThing.
func withScopes(t testing.TB, urls string, scopes ...string) options {
	t.Helper()
	folder, file := t.TempDir(), upstreamtest.File()
	for _, method := range file.GetService()[1].GetMethod() {
		if method.GetName() == "GetThing" {
			policy, _ := proto.GetExtension(method.GetOptions(), policyv1.E_Method).(*policyv1.Method)
			policy.Scopes = scopes
		}
	}
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(file))
	list := "upstreams:\n  shop:\n    url: " + urls + "\n    descriptors: shop.binpb\n"
	set, err := upstream.Load(upstream.Config{Path: upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte(list))})
	wantNoError(t, "load the upstreams", err)
	return options{served: true, upstreams: set}
}

// A call by an API key reaches an upstream only with a scope of the method, and then says
// whose key it is and everything that the key may do.
func TestAnUpstreamLearnsWhatAnAPIKeyMayDo(t *testing.T) {
	t.Parallel()
	shop := upstreamtest.NewShop()
	h := newHarness(t, withScopes(t, serveHTTP(t, shop), "shop:read"))
	ids := map[string]string{}
	keys := map[string][]string{} // scopes by id
	for name, scopes := range map[string][]string{"reads": {"shop:read", "shop:write"}, "writes": {"shop:write"}} {
		id := uuid.New()
		ids[name], keys[id.String()] = id.String(), scopes
	}
	answer(h.backend, authv1.APIKeyServiceCheckKeyProcedure, func(_ context.Context, req *authv1.CheckKeyRequest) (*authv1.CheckKeyResponse, error) {
		return &authv1.CheckKeyResponse{AccountId: alice, Scopes: keys[req.GetKeyId()], Roles: []string{"editor"}, Level: 1, ExpiresIn: 3600}, nil
	})
	call := func(name string) (int, string) {
		key := apikey.Format(uuid.MustParse(ids[name]), [32]byte{1})
		response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+key)
		if strings.Contains(text, key) {
			t.Errorf("%s: the upstream got the key: %s", name, text)
		}
		return response.StatusCode, text
	}
	if status, text := call("writes"); status != http.StatusForbidden || shop.Calls.Load() != 0 {
		t.Errorf("a key without the scope: got %d %s after %d calls of the shop, want 403 and none", status, text, shop.Calls.Load())
	}
	status, text := call("reads")
	if status != http.StatusOK {
		t.Fatalf("a key with the scope: got %d %s, want 200", status, text)
	}
	_, token, _ := strings.Cut(text, "[Bearer ")
	token, _, _ = strings.Cut(token, "]")
	claims := h.verifyIdentity(t, token)
	for name, want := range map[string]any{"sub": alice, "sid": ids["reads"], "scope": "shop:read shop:write", "acr": "aal1", "amr": nil, "auth_time": nil} {
		if claims[name] != want {
			t.Errorf("the identity token says %s %v, want %v", name, claims[name], want)
		}
	}
}

// A policy's rate holds for an upstream's method, and what exceeds it does not reach the
// upstream.
func TestAnUpstreamsMethodHasItsRate(t *testing.T) {
	t.Parallel()
	shop := upstreamtest.NewShop()
	policy := restock("10s")
	for i, line := range policy {
		policy[i] = strings.Replace(line, "rate: {count: 50, period: 1s}", "rate: {count: 2, period: 60s}", 1)
	}
	o := withShop(t, serveHTTP(t, shop), policy...)
	o.limited = true
	h := newHarness(t, o)
	call := func(user string) (*http.Response, string) {
		return h.send(t, "/shop.v1.ShopService/Restock", `{"userId":"`+user+`"}`, "Authorization", "Bearer "+h.token(user))
	}
	for range 2 {
		if response, text := call(alice); response.StatusCode != http.StatusOK {
			t.Fatalf("within the rate: got %d %s, want 200", response.StatusCode, text)
		}
	}
	response, text := call(alice)
	if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" || shop.Calls.Load() != 2 {
		t.Errorf("over the rate: got %d %s after %d calls of the shop, want 429 with Retry-After, and 2", response.StatusCode, text, shop.Calls.Load())
	}
	if response, text := call(bob); response.StatusCode != http.StatusOK {
		t.Errorf("another caller: got %d %s, want 200", response.StatusCode, text)
	}
}

// A call that an upstream did not answer is retried if its policy says so and a second
// one does no harm.
func TestACallOfAnUpstreamIsRetriedWhereThatIsSafe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		path, body string
		headers    []string
		status     int
		calls      int64
	}{
		"it reads":                {getThing, `{"userId":"` + alice + `","thingId":"t1"}`, nil, http.StatusOK, 2},
		"it writes, with a key":   {"/shop.v1.ShopService/CreateOrder", `{"thingId":"t1"}`, []string{"Idempotency-Key", "k1"}, http.StatusOK, 2},
		"it writes without a key": {"/shop.v1.ShopService/CreateOrder", `{"thingId":"t1"}`, nil, http.StatusServiceUnavailable, 1},
		"it has no retry":         {"/shop.v1.ShopService/Restock", `{"userId":"` + alice + `"}`, nil, http.StatusServiceUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := upstreamtest.NewShop()
			var failing atomic.Bool
			shop.Fail = func(context.Context, string) error {
				if failing.CompareAndSwap(true, false) {
					panic(http.ErrAbortHandler) // closes the connection
				}
				return nil
			}
			h := newHarness(t, withShop(t, serveHTTP(t, shop), restock("10s")...))
			for range 20 { // calls that succeed earn the retry
				h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice))
			}
			shop.Calls.Store(0)
			failing.Store(true)
			response, text := h.send(t, test.path, test.body, append(test.headers, "Authorization", "Bearer "+h.token(alice))...)
			if got := fmt.Sprint(response.StatusCode, " ", shop.Calls.Load()); got != fmt.Sprint(test.status, " ", test.calls) {
				t.Errorf("got the status and calls %s (%s), want %d %d", got, text, test.status, test.calls)
			}
		})
	}
}

// The log lists which methods of an upstream nobody can call.
func TestTheLogListsWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withShop(t, "http://127.0.0.1:1"))
	for line := range strings.Lines(h.log.String()) {
		if strings.Contains(line, `"upstream published"`) {
			if !strings.Contains(line, `"upstream":"shop"`) || !strings.Contains(line, "/shop.v1.ShopService/Audit") || strings.Contains(line, "GetThing") {
				t.Errorf("the log has %s, want the methods without a policy", line)
			}
			return
		}
	}
	t.Errorf("the log does not say what is published:\n%s", h.log)
}
