package check

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	accountFeed   = "/service.v1.AccountFeedService/"
	accountSecret = "0123456789abcdef0123456789abcdef"
	bob           = "0198c0de-bbbb-7000-8000-00000000a11c"
)

// accounts is a log of deletions, whose cursors are the number of events before them.
type accounts struct {
	mu      sync.Mutex
	deleted []string
	// expired are the cursors before it that are refused.
	expired int
	// confirmed is the cursor of the latest call.
	confirmed string
	// asked are the accounts of FindMissingAccounts.
	asked []string
	wrong []string // what calls had wrong
}

func (a *accounts) delete(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deleted = append(a.deleted, id)
}

func (a *accounts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Cursor     string
		AccountIDs []string `json:"accountIds"`
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	a.mu.Lock()
	defer a.mu.Unlock()
	if got := r.Header.Get("Authorization"); err != nil || got != "Bearer "+accountSecret {
		a.wrong = append(a.wrong, fmt.Sprintf("%s with %q (%v)", r.URL.Path, got, err))
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.TrimPrefix(r.URL.Path, accountFeed) == "FindMissingAccounts" {
		a.asked = append(a.asked, request.AccountIDs...)
		_ = json.NewEncoder(w).Encode(map[string]any{"accountIds": request.AccountIDs})
		return
	}
	read := 0
	if request.Cursor != "" {
		if _, err := fmt.Sscan(request.Cursor, &read); err != nil {
			a.wrong = append(a.wrong, "the cursor "+request.Cursor)
		}
		if read < a.expired {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"code": "failed_precondition", "message": "The cursor has expired. Read from the beginning."})
			return
		}
	}
	a.confirmed = request.Cursor
	if read == len(a.deleted) { // a call waits for a change, here for a moment
		a.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		a.mu.Lock()
	}
	read = max(read, a.expired)
	events := []map[string]any{}
	for _, id := range a.deleted[read:] {
		events = append(events, map[string]any{"accountId": id, "version": "2", "deleted": true})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"events": events, "cursor": fmt.Sprint(len(a.deleted))})
}

// until waits for something of the log.
func (a *accounts) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		a.mu.Lock()
		done := ok()
		a.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time; confirmed %q, asked for %v", what, a.confirmed, a.asked)
		}
	}
}

// follower is an example that follows accounts: how a user adds something, and how one
// reads what the first user, ada, and the second one, bob, have added.
type follower struct {
	example
	file        string // the setting of its file
	service     protoreflect.FullName
	add, adds   string
	read        string
	reads       map[string]string
	exportsWith protoreflect.FullName // "" if it exports nothing
}

var followers = []follower{
	{
		example: examples[0], file: "SHOP_FILE", service: "shop.v1.ShopService", add: "PlaceOrder", adds: `{"thing":"paper tape"}`,
		read: "ListOrders", reads: map[string]string{ada: `{"userId":"` + ada + `"}`, bob: `{"userId":"` + bob + `"}`},
		exportsWith: "service.v1.PersonService.ExportPerson",
	},
	{
		example: examples[2], file: "QUOTES_FILE", service: "quotes.v1.QuoteService", add: "AddQuote", adds: `{"text":"Plainly."}`,
		read: "GetQuote", reads: map[string]string{ada: `{"number":1}`, bob: `{"number":2}`},
	},
}

// said is the answer to a user's call as JSON, or the error.
func (s *server) said(t *testing.T, g *gateway, user string, method protoreflect.FullName, body string) string {
	t.Helper()
	response, err := s.send(t, g.sign(t, with(g.claims(s.name), "sub", user)), methodOf(t, s.example, method), body)
	if err != nil {
		return err.Error()
	}
	text, err := protojson.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An example erases what it stores about a deleted account, confirms that, and continues
// from its file after it was killed. It finds deletions that it has missed for too long.
func TestExamplesEraseDeletedAccounts(t *testing.T) {
	t.Parallel()
	for _, f := range followers {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			log := &accounts{}
			g, file := newGatewayWith(t, log), f.file+"="+filepath.Join(t.TempDir(), "data.json")
			s := start(t, f.example, g, file)
			add := func(user string) string {
				t.Helper()
				return s.said(t, g, user, f.service+"."+protoreflect.FullName(f.add), f.adds)
			}
			read := func(user string) string {
				t.Helper()
				return s.said(t, g, user, f.service+"."+protoreflect.FullName(f.read), f.reads[user])
			}
			for _, user := range []string{ada, bob} {
				add(user)
				if got := read(user); !strings.Contains(got, user) {
					t.Fatalf("before the deletion: got %s, want what %s added", got, user)
				}
			}
			f.checkExport(t, s, g)

			log.delete(ada)
			log.until(t, "the deletion is confirmed", func() bool { return log.confirmed == "1" })
			if got := read(ada); strings.Contains(got, ada) {
				t.Errorf("after the deletion: got %s, want nothing of the user", got)
			}
			if got := add(ada); !strings.Contains(got, "failed_precondition") {
				t.Errorf("a late call: got %s, want a refusal", got)
			}
			s.stop()
			s = start(t, f.example, g, file)
			if got := add(ada); !strings.Contains(got, "failed_precondition") {
				t.Errorf("a late call after a restart: got %s, want a refusal", got)
			}
			if got := read(bob); !strings.Contains(got, bob) {
				t.Errorf("after a restart: got %s, want what the other user added", got)
			}

			s.stop()
			log.delete(bob)
			log.mu.Lock()
			log.expired = 2 // an event that nobody can read any more
			log.mu.Unlock()
			s = start(t, f.example, g, file)
			log.until(t, "it asks which accounts exist", func() bool { return len(log.asked) > 0 })
			log.until(t, "it has read on", func() bool { return log.confirmed == "2" })
			if got := read(bob); strings.Contains(got, bob) || fmt.Sprint(log.asked) != "["+bob+"]" {
				t.Errorf("after a missed deletion: got %s, asked for %v, want nothing of the user, and %s alone", got, log.asked, bob)
			}
			if len(log.wrong) > 0 {
				t.Errorf("its calls had %q", log.wrong)
			}
		})
	}
}

// checkExport checks that a person is exported for themselves alone.
func (f follower) checkExport(t *testing.T, s *server, g *gateway) {
	t.Helper()
	if f.exportsWith == "" {
		return
	}
	if got := s.said(t, g, ada, f.exportsWith, `{"accountId":"`+ada+`"}`); !strings.Contains(got, "paper tape") {
		t.Errorf("an export of oneself: got %s, want the order", got)
	}
	if got := s.said(t, g, bob, f.exportsWith, `{"accountId":"`+ada+`"}`); !strings.Contains(got, "permission_denied") {
		t.Errorf("an export of another person: got %s, want a refusal", got)
	}
}
