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

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/upstreamtest"
)

// peopleShop is a shop that keeps data about people, and the list of upstreams with it.
type peopleShop struct {
	address, list, secret, path string
}

func newPeopleShop(t *testing.T, lines ...string) peopleShop {
	t.Helper()
	folder := t.TempDir()
	p := peopleShop{address: harness.FreeAddress(t), secret: strings.Repeat("shop-secret-", 4), path: filepath.Join(folder, "people.json")}
	upstreamtest.Write(t, filepath.Join(folder, "shop.secret"), []byte(p.secret+"\n"))
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(append(upstreamtest.ContractFiles(), upstreamtest.File())...))
	entry := append([]string{"upstreams:", "  shop:", "    url: http://" + p.address, "    descriptors: shop.binpb", "    person: true", "    credential_file: shop.secret"}, lines...)
	p.list = upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte(strings.Join(entry, "\n")+"\n"))
	return p
}

func (p peopleShop) start(t *testing.T, s *harness.System) *harness.Process {
	t.Helper()
	return harness.StartShop(t, p.address, harness.ShopPeople+"="+p.path, harness.ShopGateway+"="+s.URL, harness.ShopSecret+"="+p.secret)
}

// stored is what the shop's file holds.
func (p peopleShop) stored(t *testing.T) (text string, state struct {
	Orders map[string][]string
	Events map[string]map[string]any
}) {
	t.Helper()
	read, err := os.ReadFile(p.path)
	if err == nil {
		err = json.Unmarshal(read, &state)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(read), state
}

// erasures returns which services have confirmed a deletion.
func erasures(t *testing.T, admin harness.Client, id string) (confirmed map[string]bool, complete bool, err error) {
	t.Helper()
	response, err := admin.Users.GetErasure(t.Context(), &bffv1.GetErasureRequest{UserId: id})
	confirmed = map[string]bool{}
	for _, service := range response.GetServices() {
		confirmed[service.GetService()] = service.GetConfirmed()
	}
	return confirmed, response.GetComplete(), err
}

// What a service in another process, known only by its descriptors, stores about a person
// is exported with them, and erased with their account: while it does not run the deletion
// counts as not confirmed, and it catches up when it runs again.
func TestAnUpstreamsDataLivesAndEndsWithThePerson(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newPeopleShop(t, "    lifecycle: all", "    lifecycle_fields: [email]")
			s := harness.Start(t, shape, harness.WithOps(), harness.WithSettings("GATEHOUSE_UPSTREAMS="+p.list, "GATEHOUSE_IDENTITY_KEY="+identityKey))
			admin := s.Admin(t).Client()
			early := s.SignUp(t, "early@example.com")
			if _, err := early.Client().Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
				t.Fatalf("DeleteMe: %v", err)
			}
			harness.Eventually(t, time.Minute, "a shop that has never read is expected to", func() error {
				confirmed, complete, err := erasures(t, admin, early.ID)
				if shop, known := confirmed["shop"]; err == nil && (!known || shop || complete) {
					err = fmt.Errorf("confirmed by %v, complete %v", confirmed, complete)
				}
				return err
			})
			shop := p.start(t, s)
			alice, bob := s.SignUp(t, "alice@example.com"), s.SignUp(t, "bob@example.com")
			for _, person := range []*harness.Person{alice, bob} {
				if status, _, text := s.Post(t, "/shop.v1.ShopService/CreateOrder", person.Access, `{"thingId":"t1"}`); status != http.StatusOK {
					t.Fatalf("CreateOrder: got %d %s", status, text)
				}
			}
			export, err := alice.Client().Account.ExportMe(t.Context(), &bffv1.ExportMeRequest{})
			if orders := export.GetServices().GetFields()["shop"].GetStructValue().GetFields()["orders"].GetListValue().GetValues(); err != nil || len(orders) != 1 {
				t.Errorf("ExportMe: got %v (%v), want one order under shop", export.GetServices(), err)
			}
			harness.Eventually(t, time.Minute, "the shop has followed", func() error {
				_, state := p.stored(t)
				if event := state.Events[bob.ID]; event["email"] != "bob@example.com" || event["status"] != "ACCOUNT_STATUS_ACTIVE" || event["createTime"] != nil {
					return fmt.Errorf("the event of bob is %v, want email and status alone", event)
				}
				return nil
			})
			shop.Kill()
			if _, err := alice.Client().Account.ExportMe(t.Context(), &bffv1.ExportMeRequest{}); err == nil {
				t.Error("an export without the shop's part looks complete")
			}
			if _, err := alice.Client().Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
				t.Fatalf("DeleteMe without the shop: %v", err)
			}
			if confirmed, complete, err := erasures(t, admin, alice.ID); err != nil || confirmed["shop"] || complete {
				t.Errorf("without the shop: confirmed by %v, complete %v (%v)", confirmed, complete, err)
			}
			wantShopLags(t, s, shape)
			p.start(t, s)
			harness.Eventually(t, time.Minute, "the shop confirms the deletion", func() error {
				confirmed, complete, err := erasures(t, admin, alice.ID)
				if err == nil && (!confirmed["shop"] || !complete) {
					err = fmt.Errorf("confirmed by %v, complete %v", confirmed, complete)
				}
				return err
			})
			text, state := p.stored(t)
			if len(state.Orders[alice.ID]) > 0 || strings.Contains(text, "alice@") || len(state.Orders[bob.ID]) != 1 {
				t.Errorf("after alice's deletion the shop has %s", text)
			}
		})
	}
}

// wantShopLags waits until the metric says that the shop lacks changes.
func wantShopLags(t *testing.T, s *harness.System, shape harness.Shape) {
	t.Helper()
	harness.Eventually(t, time.Minute, "the lag of the shop is measured", func() error {
		_, text := harness.Get(t, s.Ops()[shape.Role(harness.RoleAuth)]+"/metrics")
		lines := strings.Split(text, "\n")
		if !slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, "gatehouse_auth_lifecycle_lag_seconds{") && strings.Contains(line, `service="shop"`) && !strings.HasSuffix(line, " 0")
		}) {
			return fmt.Errorf("no lag of shop")
		}
		return nil
	})
}
