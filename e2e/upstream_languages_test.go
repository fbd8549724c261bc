package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/emptypb"

	"gatehouse/e2e/harness"
	"gatehouse/internal/testneed"
	"gatehouse/internal/upstreamtest"
)

const (
	placeOrder = "/shop.v1.ShopService/PlaceOrder"
	listOrders = "/shop.v1.ShopService/ListOrders"
	addQuote   = "/quotes.v1.QuoteService/AddQuote"
	getQuote   = "/quotes.v1.QuoteService/GetQuote"
	// python is Debian's, which has Debian's packages.
	python = "/usr/bin/python3"
)

// buildExamples builds the example in TypeScript. Where its packages are missing and
// nothing says that all tests must run, the test is skipped.
func buildExamples(t *testing.T) {
	t.Helper()
	testneed.Program(t, "node")
	testneed.Program(t, "npm")
	testneed.Program(t, python)
	_, err := os.Stat("examples/typescript/node_modules")
	if err == nil {
		err = exec.Command(python, "-c", "import grpc, google.protobuf, jwt, cryptography").Run()
	}
	if err != nil && os.Getenv("GATEHOUSE_TEST_REQUIRE") == "" {
		t.Skipf("the packages of the examples are missing (%v): run scripts/examples.sh once", err)
	}
	if said, err := exec.Command("scripts/examples-build.sh").CombinedOutput(); err != nil {
		t.Fatalf("build the examples: %v\n%s", err, said)
	}
}

// languages are the services of examples/ in TypeScript, by Connect, and in Python, by
// gRPC, and a third one of the test's, which keeps the tokens that it gets.
type languages struct {
	folder, gateway string
	shop, quotes    string // addresses
	spy             *spy
}

func newLanguages(t *testing.T) *languages {
	t.Helper()
	l := &languages{folder: t.TempDir(), shop: harness.FreeAddress(t), quotes: harness.FreeAddress(t), spy: newSpy(t)}
	list := "upstreams:\n  spy:\n    url: " + l.spy.URL + "\n    descriptors: spy.binpb\n"
	upstreamtest.Write(t, filepath.Join(l.folder, "spy.binpb"), upstreamtest.Encode(upstreamtest.FileOf("spy")))
	for name, example := range map[string]struct{ folder, url, address string }{
		"shop": {"typescript", "http://localhost:9101", l.shop}, "quotes": {"python", "http://localhost:9103", l.quotes},
	} {
		entry, err := os.ReadFile(filepath.Join("examples", example.folder, "upstreams.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		descriptors, err := filepath.Abs(filepath.Join("examples", example.folder, name+".binpb"))
		if err != nil {
			t.Fatal(err)
		}
		_, entries, found := strings.Cut(string(entry), "upstreams:\n")
		if !found || !strings.Contains(entries, example.url) {
			t.Fatalf("%s has no entry with %s", example.folder, example.url)
		}
		list += strings.NewReplacer(example.url, "http://"+example.address, name+".binpb", descriptors).Replace(entries)
		upstreamtest.Write(t, filepath.Join(l.folder, name+".secret"), []byte(strings.Repeat(name, 10)+"\n"))
	}
	upstreamtest.Write(t, filepath.Join(l.folder, "upstreams.yaml"), []byte(list))
	return l
}

// start starts one of the examples, and waits until it accepts connections.
func (l *languages) start(t *testing.T, name, address, folder string, command ...string) *harness.Process {
	t.Helper()
	upper := strings.ToUpper(name)
	p := &harness.Process{Cmd: exec.Command(command[0], command[1:]...), Ended: make(chan struct{})}
	p.Cmd.Dir = filepath.Join("examples", folder)
	p.Cmd.Env = append(os.Environ(), "LISTEN="+address, "GATEHOUSE_URL="+l.gateway,
		upper+"_FILE="+filepath.Join(l.folder, name+".json"), upper+"_SECRET_FILE="+filepath.Join(l.folder, name+".secret"))
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.Cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.Ended)
		_ = p.Cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	harness.Eventually(t, time.Minute, "start "+name, func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return fmt.Errorf("%w: %s", err, p.Stderr.String())
		}
		return conn.Close()
	})
	return p
}

func (l *languages) startShop(t *testing.T) *harness.Process {
	t.Helper()
	return l.start(t, "shop", l.shop, "typescript", "node", "dist/main.js")
}

func (l *languages) startQuotes(t *testing.T) *harness.Process {
	t.Helper()
	return l.start(t, "quotes", l.quotes, "python", python, "main.py")
}

// spy is an upstream that keeps what authorizes the calls to it.
type spy struct {
	*httptest.Server
	mu    sync.Mutex
	token string
}

func newSpy(t *testing.T) *spy {
	t.Helper()
	s := &spy{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.token = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		w.Header().Set("Content-Type", "application/proto")
	}))
	t.Cleanup(s.Close)
	return s
}

// tokenOf returns the identity token of a person that the gateway made for the spy.
func (s *spy) tokenOf(t *testing.T, system *harness.System, person *harness.Person) string {
	t.Helper()
	if status, _, text := system.Post(t, "/spy.v1.ShopService/GetThing", person.Access, fmt.Sprintf(`{"userId":%q,"thingId":"t1"}`, person.ID)); status != http.StatusOK {
		t.Fatalf("call the spy: got %d %s", status, text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// Services that are not written in Go, and know nothing of each other, stand behind the
// gateway: one in TypeScript by Connect, and one in Python by gRPC whose proto says
// nothing of policies. Killed, each takes its own methods with it and nothing else.
func TestServicesInOtherLanguagesStandBehindTheGateway(t *testing.T) {
	buildExamples(t)
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			l := newLanguages(t)
			s := harness.Start(t, shape, harness.WithSettings("GATEHOUSE_UPSTREAMS="+filepath.Join(l.folder, "upstreams.yaml"), "GATEHOUSE_IDENTITY_KEY="+identityKey))
			l.gateway = s.URL
			shop, quotes := l.startShop(t), l.startQuotes(t)
			alice := s.SignUp(t, "alice@example.com")
			post := func(procedure, body string) error {
				status, header, text := s.Post(t, procedure, alice.Access, body)
				if status == http.StatusOK {
					return nil
				}
				return fmt.Errorf("got %d %s, Retry-After %q", status, text, header.Get("Retry-After"))
			}
			must := func(procedure, body string) {
				t.Helper()
				if err := post(procedure, body); err != nil {
					t.Fatalf("%s: %v", procedure, err)
				}
			}
			must(placeOrder, `{"thing":"paper tape"}`)
			must(addQuote, `{"text":"Plainly."}`)
			for procedure, body := range map[string]string{listOrders: fmt.Sprintf(`{"userId":%q}`, alice.ID), getQuote: `{"number":1}`} {
				if status, _, text := s.Post(t, procedure, alice.Access, body); status != http.StatusOK || !strings.Contains(text, alice.ID) || strings.Contains(text, alice.Access) {
					t.Errorf("%s: got %d %s, want what alice added", procedure, status, text)
				}
			}
			if status, _, text := s.Post(t, "/quotes.v1.QuoteService/DropQuotes", s.Admin(t).Access, "{}"); status != http.StatusNotImplemented {
				t.Errorf("a method without a policy: got %d %s, want 501", status, text)
			}
			l.refuseTokenOfAnother(t, s, alice)

			for name, killed := range map[string]struct {
				process         *harness.Process
				restart         func(*testing.T) *harness.Process
				procedure, body string
				others          string
			}{
				"shop":   {shop, l.startShop, placeOrder, `{"thing":"ribbon"}`, getQuote},
				"quotes": {quotes, l.startQuotes, getQuote, "{}", placeOrder},
			} {
				killed.process.Kill()
				if err := post(killed.procedure, killed.body); err == nil || !strings.Contains(err.Error(), "got 503") || strings.Contains(err.Error(), `Retry-After ""`) {
					t.Errorf("without %s: %v, want 503 with Retry-After", name, err)
				}
				must(killed.others, `{}`)
				must("/bff.v1.AccountService/GetMe", "{}")
				killed.restart(t)
				harness.Eventually(t, time.Minute, "reach "+name+" again", func() error { return post(killed.procedure, killed.body) })
			}
		})
	}
}

// refuseTokenOfAnother checks that the token which one upstream gets opens no other one,
// nor the gateway: an upstream cannot act for its callers elsewhere.
func (l *languages) refuseTokenOfAnother(t *testing.T, s *harness.System, person *harness.Person) {
	t.Helper()
	stolen := l.spy.tokenOf(t, s, person)
	if strings.Count(stolen, ".") != 2 || stolen == person.Access {
		t.Fatalf("the spy got %q, want an identity token", stolen)
	}
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2c.CloseIdleConnections)
	for name, refused := range map[string]struct {
		transport connect.Transport
		procedure string
	}{
		"the service in TypeScript": {connecthttp.NewTransport(http.DefaultClient, "http://"+l.shop), listOrders},
		"the service in Python":     {connecthttp.NewTransport(&http.Client{Transport: h2c}, "http://"+l.quotes, connecthttp.WithGRPC()), getQuote},
		"the gateway":               {connecthttp.NewTransport(http.DefaultClient, s.URL), "/bff.v1.AccountService/GetMe"},
		"the account events":        {connecthttp.NewTransport(http.DefaultClient, s.URL), "/service.v1.AccountFeedService/WatchAccounts"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		ctx, info := connect.NewClientContext(ctx)
		info.RequestHeader().Set("Authorization", "Bearer "+stolen)
		err := connect.NewClient(refused.transport).CallUnary(ctx, connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: refused.procedure}, &emptypb.Empty{}, &emptypb.Empty{})
		cancel()
		if failure, ok := errors.AsType[*connect.Error](err); !ok || failure.Code() != connect.CodeUnauthenticated {
			t.Errorf("%s, with the token of another service: got %v, want unauthenticated", name, err)
		}
	}
}
