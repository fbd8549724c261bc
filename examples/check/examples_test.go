// Package check tests the examples as the gateway calls them, with tokens that it signs
// itself. scripts/examples.sh builds the examples, runs these tests, and then calls the
// examples through a gateway.
package check

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// example is one of them: how it is started, how it is called, and a call of a method
// that needs a signed-in caller.
type example struct {
	folder, name, descriptors string
	command                   []string
	options                   []connecthttp.Option
	method                    protoreflect.FullName
	request, response         string // JSON
	roles                     []string
}

var examples = []example{
	{
		folder: "typescript", name: "shop", descriptors: "shop.binpb", command: []string{"node", "dist/main.js"},
		method: "shop.v1.ShopService.ListOrders", request: `{"userId":"` + ada + `"}`, response: `{}`,
	},
	{
		folder: "go", name: "stock", descriptors: "stock.binpb", command: []string{"./stock"}, roles: []string{"admin"},
		method: "stock.v1.StockService.SetStock", request: `{"thing":"ribbon","quantity":2}`, response: `{"stock":{"thing":"ribbon","quantity":2,"setBy":"` + ada + `"}}`,
	},
	{
		// Debian's own Python, which has Debian's packages.
		folder: "python", name: "quotes", descriptors: "quotes.binpb", command: []string{"/usr/bin/python3", "main.py"}, options: []connecthttp.Option{connecthttp.WithGRPC()},
		method: "quotes.v1.QuoteService.AddQuote", request: `{"text":"Plainly."}`, response: `{"number":1}`,
	},
}

// server is a running example.
type server struct {
	example
	client *connect.Client
	method protoreflect.MethodDescriptor // of the call
	stop   func()
}

// start runs an example that verifies the tokens of a gateway, and waits until it
// accepts connections. It stores what it has to in a folder of its own, unless the
// environment says where.
func start(t *testing.T, e example, g *gateway, env ...string) *server {
	t.Helper()
	folder := t.TempDir()
	secret := filepath.Join(folder, "secret")
	if err := os.WriteFile(secret, []byte(accountSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.Addr().String()
	free.Close()
	cmd := exec.Command(e.command[0], e.command[1:]...)
	cmd.Dir = filepath.Join("..", e.folder)
	cmd.Env = append(os.Environ(), "LISTEN="+listen, "GATEHOUSE_URL="+g.URL)
	for _, name := range []string{"SHOP", "QUOTES"} {
		cmd.Env = append(cmd.Env, name+"_FILE="+filepath.Join(folder, "data.json"), name+"_SECRET_FILE="+secret)
	}
	cmd.Env = append(cmd.Env, env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v: build it with scripts/examples.sh", e.name, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if connection, err := net.Dial("tcp", listen); err == nil {
			connection.Close()
			break
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", e.name, output.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen on %s", e.name, listen)
		}
	}
	client := http.DefaultClient
	if e.options != nil { // gRPC
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		client = &http.Client{Transport: transport}
	}
	return &server{
		example: e, method: methodOf(t, e, e.method), stop: stop,
		client: connect.NewClient(connecthttp.NewTransport(client, "http://"+listen, e.options...)),
	}
}

func methodOf(t *testing.T, e example, name protoreflect.FullName) protoreflect.MethodDescriptor {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", e.folder, e.descriptors))
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(text, set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	found, err := files.FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return found.(protoreflect.MethodDescriptor)
}

// call makes the example's call with a token, or without if it is empty.
func (s *server) call(t *testing.T, token string) (proto.Message, error) {
	t.Helper()
	return s.send(t, token, s.method, s.request)
}

// send calls a method with a token, or without if it is empty.
func (s *server) send(t *testing.T, token string, method protoreflect.MethodDescriptor, body string) (proto.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ctx, info := connect.NewClientContext(ctx)
	if token != "" {
		info.RequestHeader().Set("Authorization", "Bearer "+token)
	}
	request, response := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(body), request); err != nil {
		t.Fatal(err)
	}
	procedure := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	err := s.client.CallUnary(ctx, connect.Spec{StreamType: connect.StreamTypeUnary, Schema: method, Procedure: procedure}, request, response)
	return response, err
}

func forEach(t *testing.T, test func(t *testing.T, e example)) {
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

func TestExamplesKnowWhoCalls(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, e example) {
		g := newGateway(t)
		s := start(t, e, g)
		got, err := s.call(t, g.sign(t, g.claims(e.name, e.roles...)))
		if err != nil {
			t.Fatal(err)
		}
		want := dynamicpb.NewMessage(s.method.Output())
		if err := protojson.Unmarshal([]byte(e.response), want); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// Each token differs from a valid one in one thing, and every example refuses it.
func TestExamplesRefuseOtherTokens(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, e example) {
		g := newGateway(t)
		s := start(t, e, g)
		for name, token := range invalidTokens(t, g, e.name, e.roles...) {
			if _, err := s.call(t, token); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s: got %v, want unauthenticated", name, err)
			}
		}
		if _, err := s.call(t, g.sign(t, g.claims(e.name, e.roles...))); err != nil {
			t.Errorf("a valid one, after the others: %v", err)
		}
	})
}

// An example starts without the gateway, and recovers.
func TestExamplesWaitForTheKeys(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, e example) {
		g := newGateway(t)
		g.down.Store(true)
		s := start(t, e, g)
		token := func() string { return g.sign(t, g.claims(e.name, e.roles...)) }
		if _, err := s.call(t, token()); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("without keys: got %v, want unavailable", err)
		}
		g.down.Store(false)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			_, err := s.call(t, token())
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("with keys: %v", err)
			}
		}
	})
}
