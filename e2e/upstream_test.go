package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/descriptorpb"

	"gatehouse/e2e/harness"
	"gatehouse/internal/identitytoken"
	"gatehouse/internal/upstreamtest"
)

const (
	getThing    = "/shop.v1.ShopService/GetThing"
	identityKey = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

// listShop writes a list of upstreams with the shop, whose descriptors are pinned.
func listShop(t *testing.T, address string) string {
	t.Helper()
	folder := t.TempDir()
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(upstreamtest.File()))
	return upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte("upstreams:\n  shop:\n    url: http://"+address+"\n    descriptors: shop.binpb\n"))
}

// A service in a process of its own stands behind the gateway in each shape. While it is
// unreachable its methods are, and nothing else is.
func TestAServiceOfTheApplicationStandsBehindTheGateway(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			address := harness.FreeAddress(t)
			shop := harness.StartShop(t, address)
			s := harness.Start(t, shape, harness.WithOps(), harness.WithSettings("GATEHOUSE_UPSTREAMS="+listShop(t, address), "GATEHOUSE_IDENTITY_KEY="+identityKey))
			alice := s.SignUp(t, "alice@example.com")
			id := s.IdOf(t, "alice@example.com")
			body := fmt.Sprintf(`{"userId":%q,"thingId":"t1"}`, id)
			status, _, text := s.Post(t, getThing, alice.Access, body)
			if status != http.StatusOK || !strings.Contains(text, `"Paper tape"`) || strings.Contains(text, alice.Access) {
				t.Fatalf("got %d %s, want a thing without the caller's token", status, text)
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/v1/shop/users/"+id+"/things/t1", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Authorization", "Bearer "+alice.Access)
			if status, _, text := harness.Do(t, request); status != http.StatusOK {
				t.Errorf("by REST: got %d %s, want 200", status, text)
			}
			checkIdentityKeys(t, s, shape)
			shop.Kill()
			if status, header, text := s.Post(t, getThing, alice.Access, body); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
				t.Errorf("without the shop: got %d %s, want 503 with Retry-After", status, text)
			}
			if status, _, text := s.Post(t, "/bff.v1.AccountService/GetMe", alice.Access, "{}"); status != http.StatusOK {
				t.Errorf("GetMe without the shop: got %d %s, want 200", status, text)
			}
			harness.StartShop(t, address)
			harness.Eventually(t, 30*time.Second, "reach the shop again", func() error {
				if status, _, text := s.Post(t, getThing, alice.Access, body); status != http.StatusOK {
					return fmt.Errorf("got %d %s", status, text)
				}
				return nil
			})
		})
	}
}

// checkIdentityKeys checks that the gateway and its operators' listener publish the same
// keys.
func checkIdentityKeys(t *testing.T, s *harness.System, shape harness.Shape) {
	t.Helper()
	_, public := harness.Get(t, s.URL+identitytoken.JWKSPath)
	_, private := harness.Get(t, s.Ops()[shape.Role(harness.RoleBff)]+identitytoken.JWKSPath)
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(public), &set); err != nil || len(set.Keys) != 1 || public != private {
		t.Errorf("the keys: got %s and for operators %s, want the same one", public, private)
	}
}

// checkDrift pins other descriptors than the shop serves.
func checkDrift(t *testing.T, env []string, folder string) {
	t.Helper()
	file := upstreamtest.File()
	file.MessageType[1].Field[2].Type = descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum()
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(file))
	const drift = "shop.v1.Thing.quantity is now of the type optional int32, and was optional int64"
	if status, text := harness.RunCommand(t, env, "upstream", "check"); status != 1 || !strings.Contains(text, drift) {
		t.Errorf("gatehouse upstream check: got %d %s, want 1 with %q", status, text, drift)
	}
	if _, text := harness.RunCommand(t, append(env, "GATEHOUSE_IDENTITY_KEY="+identityKey), "doctor", "bff"); !strings.Contains(text, "BAD  upstream shop: "+drift) {
		t.Errorf("gatehouse doctor bff: got %s, want %q", text, drift)
	}
}

// add keeps a list that was written by hand readable, and refuses a name that cannot be
// in one.
func addToHandWritten(t *testing.T, env []string, list, address string) {
	t.Helper()
	upstreamtest.Write(t, list, []byte("upstreams:\n  shop:\n    descriptors: shop.binpb\n    url: http://"+address)) // no newline
	add := func(name string, status int) string {
		t.Helper()
		got, text := harness.RunCommand(t, env, "upstream", "add", name, "--url", "http://"+address, "--reflection")
		if got != status {
			t.Errorf("add %s: got %d %s, want %d", name, got, text, status)
		}
		return text
	}
	add("store", 0)
	if _, text := harness.RunCommand(t, env, "policy"); !strings.Contains(text, "upstreams shop and store both publish shop.v1.ShopService") {
		t.Errorf("after add, policy says %s, want that both publish the service", text)
	}
	if text := add("../Shop", harness.ExitUsage); !strings.Contains(text, `NAME: "../Shop" can't be the name of an upstream`) {
		t.Errorf("add ../Shop says %s", text)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(list)), "Shop.binpb")); err == nil {
		t.Error("add wrote a file outside the folder of the list")
	}
}

// up publishes a service that describes itself, with one flag; the commands pin its
// descriptors and tell how they differ.
func TestAServiceDescribesItselfToUp(t *testing.T) {
	t.Parallel()
	address := harness.FreeAddress(t)
	harness.StartShop(t, address)
	s := harness.NewEmbedded(t)
	p := harness.StartProcess(t, s.Env, "up", "--upstream", "shop=http://"+address)
	s.AwaitBanner(t, p)
	if status, _, text := s.Post(t, "/shop.v1.ShopService/ListThings", "", "{}"); status != http.StatusOK || !strings.Contains(text, "Paper tape") {
		t.Errorf("got %d %s, want the list of things", status, text)
	}
	list := filepath.Join(t.TempDir(), "upstreams.yaml")
	env := []string{"GATEHOUSE_UPSTREAMS=" + list}
	for _, step := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{"upstream", "add", "shop", "--url", "http://" + address, "--reflection"}, 0, []string{"Wrote ", "shop.binpb", "Added shop to "}},
		{[]string{"upstream", "check"}, 0, []string{"shop: 4 methods published, 3 not published", "its pinned descriptors match those that it serves"}},
		{[]string{"policy"}, 0, []string{"/shop.v1.ShopService/GetThing", "oneself or admin", "NOT PUBLISHED", "/shop.v1.ShopService/Audit"}},
		{[]string{"upstream", "add", "shop", "--url", "http://" + address, "--reflection"}, 0, []string{"lists shop already"}},
		{[]string{"bff"}, harness.ExitUsage, []string{"GATEHOUSE_IDENTITY_KEY: is not set"}},
	} {
		status, text := harness.RunCommand(t, env, step.args...)
		missing := slices.DeleteFunc(step.want, func(want string) bool { return strings.Contains(text, want) })
		if status != step.status || len(missing) > 0 {
			t.Errorf("gatehouse %s: got %d %s, want %d with %q", strings.Join(step.args, " "), status, text, step.status, missing)
		}
	}
	checkDrift(t, env, filepath.Dir(list))
	addToHandWritten(t, env, list, address)
	text := "upstreams:\n  shop:\n    url: http://" + address + "\n    descriptors: reflection\n"
	upstreamtest.Write(t, list, []byte(text))
	if status, text := harness.RunCommand(t, env, "upstream", "check"); status != harness.ExitUsage || !strings.Contains(text, "could widen its own policy") {
		t.Errorf("with descriptors by reflection: got %d %s", status, text)
	}
}
