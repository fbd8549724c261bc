package bff

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"gatehouse/internal/fault"
	"gatehouse/internal/identitytoken"
	"gatehouse/internal/upstream"
	"gatehouse/internal/upstreamtest"
)

func identityIssuer(t testing.TB) *identitytoken.Issuer {
	issuer, err := identitytoken.NewIssuer(publicURL, [][]byte{bytes.Repeat([]byte{9}, 32)})
	wantNoError(t, "make an issuer of identity tokens", err)
	return issuer
}

// withShop returns options with a shop at the URLs. more are lines of its entry.
func withShop(t testing.TB, urls string, more ...string) options {
	t.Helper()
	folder := t.TempDir()
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(upstreamtest.File()))
	lines := append([]string{"upstreams:", "  shop:", "    url: " + urls, "    descriptors: shop.binpb"}, more...)
	path := upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte(strings.Join(lines, "\n")+"\n"))
	set, err := upstream.Load(upstream.Config{Path: path})
	wantNoError(t, "load the upstreams", err)
	return options{served: true, upstreams: set}
}

// restock is a policy in the file, with a time limit.
func restock(limit string) []string {
	return []string{
		"    policy:", "      shop.v1.ShopService/Restock:", "        access: {self: {field: user_id, or_roles: [admin]}}", "        time_limit: " + limit,
		"        rate: {count: 50, period: 1s}", "        criticality: SHEDDABLE",
	}
}

const getThing = "/shop.v1.ShopService/GetThing"

// A method of an upstream is served on every surface, with the policy of its proto or
// of the file, and the upstream gets to know the caller by an identity token alone.
func TestAnUpstreamsMethodIsServedAsOneOfOurs(t *testing.T) {
	t.Parallel()
	for name, entry := range map[string][]string{
		"connect over HTTP/1.1": {"    http: \"1.1\""}, "connect over HTTP/2": {"    http: \"2\""}, "connect": nil, "gRPC": {"    protocol: grpc"},
		"HTTP/1.1 alone": nil, "HTTP/2 alone": nil, "HTTP/2 alone, gRPC": {"    protocol: grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := upstreamtest.NewShop()
			serve := serveHTTP
			if strings.HasSuffix(name, "alone") {
				serve = func(t testing.TB, handler http.Handler) string {
					return serveOnly(t, handler, strings.Contains(name, "HTTP/2"))
				}
			}
			h := newHarness(t, withShop(t, serve(t, shop), append(entry, restock("10s")...)...))
			mine := "Bearer " + h.token(alice)
			thing := `{"userId":"` + alice + `","thingId":"t7"}`
			for _, test := range []struct {
				name, method, path, body string
				authorization            string
				status                   int
				want                     string
			}{
				{"Connect", "POST", getThing, thing, mine, 200, `"id":"t7"`},
				{"Connect GET", "GET", getThing + "?connect=v1&encoding=json&message=" + urlEncode(thing), "", mine, 200, `"id":"t7"`},
				{"REST", "GET", "/api/v1/shop/users/" + alice + "/things/t7", "", mine, 200, `"createTime":"2023-11-14T22:13:20Z"`},
				{"REST of anyone's", "GET", "/api/v1/shop/things", "", "", 200, `"Paper tape"`},
				{"REST that creates", "POST", "/api/v1/shop/orders", `{"thingId":"t1"}`, mine, 201, `"order"`},
				{"an id in upper case", "POST", getThing, `{"userId":"` + strings.ToUpper(alice) + `","thingId":"t7"}`, mine, 200, `"id":"t7"`},
				{"nobody", "POST", getThing, thing, "", 401, "TOKEN_MISSING"},
				{"another's", "POST", getThing, `{"userId":"` + bob + `","thingId":"t7"}`, mine, 403, "PERMISSION_DENIED"},
				{"an administrator", "POST", getThing, thing, "Bearer " + h.token(bob, "admin"), 200, `"id":"t7"`},
				{"an invalid request", "POST", getThing, `{"userId":"` + alice + `"}`, mine, 400, "thing_id"},
				{"a policy of the file", "POST", "/shop.v1.ShopService/Restock", `{"userId":"` + alice + `"}`, mine, 200, `{}`},
				{"a policy of the file, another's", "POST", "/shop.v1.ShopService/Restock", `{"userId":"` + bob + `"}`, mine, 403, "PERMISSION_DENIED"},
				{"no such method", "POST", "/shop.v1.ShopService/Nothing", `{}`, mine, 501, "METHOD_UNKNOWN"},
				{"no policy", "POST", "/shop.v1.ShopService/Audit", `{}`, mine, 501, "METHOD_UNKNOWN"},
				{"no policy in its service", "POST", "/shop.v1.AdminService/Wipe", `{}`, mine, 404, "METHOD_UNKNOWN"},
			} {
				headers := []string{"Content-Type", "application/json"}
				if test.method == http.MethodGet {
					headers = nil
				}
				if test.authorization != "" {
					headers = append(headers, "Authorization", test.authorization)
				}
				response, text := h.fetch(t, test.method, test.path, test.body, headers...)
				if response.StatusCode != test.status || !strings.Contains(text, test.want) {
					t.Errorf("%s: got %d %s, want %d with %s", test.name, response.StatusCode, text, test.status, test.want)
				}
			}
			checkBinary(t, h, shop, h.token(alice))
		})
	}
}

// serveOnly serves one version of HTTP in clear.
func serveOnly(t testing.TB, handler http.Handler, two bool) string {
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(!two)
	server.Config.Protocols.SetUnencryptedHTTP2(two)
	server.Config.ErrorLog = discardLog
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

func base64Of(data []byte) string { return base64.RawStdEncoding.EncodeToString(data) }

func urlEncode(text string) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", ":", "%3A", ",", "%2C").Replace(text)
}

// checkBinary calls in binary, over each protocol, and streams.
func checkBinary(t *testing.T, h *harness, _ *upstreamtest.Shop, token string) {
	t.Helper()
	for protocol, clientOptions := range map[string][]connecthttp.Option{"connect": nil, "gRPC": {connecthttp.WithGRPC()}, "gRPC-Web": {connecthttp.WithGRPCWeb()}} {
		client := h.client(clientOptions...)
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", "Bearer "+token)
		method := shopMethod(t, h, "GetThing")
		request, response := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
		setText(request, "user_id", alice)
		setText(request, "thing_id", "t9")
		err := client.CallUnary(ctx, connect.Spec{Procedure: getThing, Schema: method, IdempotencyLevel: connect.IdempotencyNoSideEffects}, request, response)
		thing := response.Get(method.Output().Fields().ByName("thing")).Message()
		if err != nil || thing.Get(thing.Descriptor().Fields().ByName("id")).String() != "t9" {
			t.Errorf("%s: got %v, %v, want the thing t9", protocol, response, err)
		}
		watch := shopMethod(t, h, "WatchThings")
		ctx, info = connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", "Bearer "+token)
		stream, err := client.CallServerStream(ctx, connect.Spec{Procedure: "/shop.v1.ShopService/WatchThings", Schema: watch, StreamType: connect.StreamTypeServer}, dynamicpb.NewMessage(watch.Input()))
		wantNoError(t, "open a stream", err)
		received := 0
		for {
			if err = stream.Receive(dynamicpb.NewMessage(watch.Output())); err != nil {
				break
			}
			received++
		}
		if received != 3 || connect.CodeOf(err) != connect.CodeUnknown { // io.EOF
			t.Errorf("%s: got %d messages, then %v; want 3, then the end", protocol, received, err)
		}
		wantNoError(t, "close a stream", stream.Close())
	}
}

func shopMethod(t testing.TB, h *harness, name string) protoreflect.MethodDescriptor {
	t.Helper()
	for _, p := range h.gateway.rpc.Methods() {
		if p.Procedure == "/shop.v1.ShopService/"+name {
			return p.Descriptor
		}
	}
	t.Fatalf("%s is not published", name)
	return nil
}

func setText(message protoreflect.Message, name protoreflect.Name, text string) {
	message.Set(message.Descriptor().Fields().ByName(name), protoreflect.ValueOfString(text))
}

// The upstream gets an identity token and the request id, and nothing that the caller
// sent besides the message.
func TestNothingOfTheCallersPassesToAnUpstream(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withShop(t, serveHTTP(t, upstreamtest.NewShop())))
	token := h.token(alice, "editor")
	forged := []string{
		"X-User-Id", bob, "X-Forwarded-User", bob, "X-Identity", "admin", "X-Gatehouse-User", bob, "Cookie", "a=b", "Forwarded", "for=203.0.113.9",
		"X-Forwarded-For", "203.0.113.9", "Idempotency-Key", "k1", "Proxy-Authorization", "Basic eDp5", "X-Request-Id", "req-1", "Grpc-Metadata-Role", "admin", "Tracestate", "a=b",
	}
	response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, append(forged, "Authorization", "Bearer "+token)...)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("got %d %s, want 200", response.StatusCode, text)
	}
	var got struct{ Headers map[string]string }
	wantNoError(t, "read the answer", json.Unmarshal([]byte(text), &got))
	allowed := map[string]bool{
		"Authorization": true, "X-Request-Id": true, "Content-Type": true, "Content-Length": true, "User-Agent": true, "Connect-Protocol-Version": true,
		"Connect-Timeout-Ms": true, "Accept-Encoding": true, "Traceparent": true, "Host": true,
	}
	for name, value := range got.Headers {
		if !allowed[http.CanonicalHeaderKey(name)] {
			t.Errorf("the upstream got the header %s: %s", name, value)
		}
		if strings.Contains(value, token) || strings.Contains(value, "203.0.113.9") {
			t.Errorf("the upstream got %s: %s, which holds something of the caller's", name, value)
		}
	}
	if id := got.Headers["X-Request-Id"]; id != "[req-1]" {
		t.Errorf("got the request id %s, want [req-1]", id)
	}
	claims := h.verifyIdentity(t, strings.TrimSuffix(strings.TrimPrefix(got.Headers["Authorization"], "[Bearer "), "]"))
	for name, want := range map[string]any{"iss": publicURL, "aud": "shop", "sub": alice, "sid": session, "client_id": "gatehouse"} {
		if claims[name] != want {
			t.Errorf("the identity token says %s %v, want %v", name, claims[name], want)
		}
	}
	if roles, _ := claims["roles"].([]any); len(roles) != 1 || roles[0] != "editor" {
		t.Errorf("the identity token says roles %v, want [editor]", claims["roles"])
	}
}

// verifyIdentity verifies an identity token by the published keys, as an upstream does.
func (h *harness) verifyIdentity(t testing.TB, token string) jwt.MapClaims {
	t.Helper()
	_, text := h.get(t, identitytoken.JWKSPath)
	var set struct {
		Keys []struct{ Kid, X, Alg string }
	}
	wantNoError(t, "read the keys", json.Unmarshal([]byte(text), &set))
	parsed, err := jwt.Parse(token, func(token *jwt.Token) (any, error) {
		for _, key := range set.Keys {
			if key.Kid == token.Header["kid"] {
				public, err := base64.RawURLEncoding.DecodeString(key.X)
				return ed25519.PublicKey(public), err
			}
		}
		return nil, jwt.ErrTokenUnverifiable
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithAudience("shop"), jwt.WithIssuer(publicURL), jwt.WithExpirationRequired())
	if err != nil {
		t.Fatalf("verify the identity token %q: %v", token, err)
	}
	if parsed.Header["typ"] != identitytoken.MediaType {
		t.Errorf("its type is %v, want %s", parsed.Header["typ"], identitytoken.MediaType)
	}
	claims, _ := parsed.Claims.(jwt.MapClaims)
	return claims
}

// An upstream that is unreachable takes nothing else with it: 503 with Retry-After, and the
// log names it.
func TestAnUnreachableUpstream(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	h := newHarness(t, withShop(t, gone.URL))
	for range 3 {
		response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice))
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "1" || !strings.Contains(text, fault.ReasonUnavailable) {
			t.Errorf("got %d %s, Retry-After %q; want 503 %s with 1", response.StatusCode, text, response.Header.Get("Retry-After"), fault.ReasonUnavailable)
		}
	}
	if log := h.log.String(); !strings.Contains(log, "upstream shop at "+gone.URL) {
		t.Errorf("the log does not name the upstream:\n%s", log)
	}
	if _, got := h.getMe(t, h.token(alice)); got.err != nil {
		t.Errorf("another method: got %v, want an answer", got.err)
	}
}

// An idempotency key passes, of methods that take one.
func TestAnIdempotencyKeyReachesTheUpstream(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withShop(t, serveHTTP(t, upstreamtest.NewShop())))
	var texts []string
	for range 2 {
		response, text := h.send(t, "/shop.v1.ShopService/CreateOrder", `{"thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice), "Idempotency-Key", "k-1")
		if response.StatusCode != http.StatusOK {
			t.Fatalf("got %d %s, want 200", response.StatusCode, text)
		}
		texts = append(texts, text)
	}
	if texts[0] != texts[1] || !strings.Contains(texts[0], `"k-1"`) {
		t.Errorf("got %q, want the same order twice, made with the key k-1", texts)
	}
}

// Published answers are cached by their policy, and a success of a method that purges
// makes them stale.
func TestAnUpstreamsAnswersAreCached(t *testing.T) {
	t.Parallel()
	shop := upstreamtest.NewShop()
	h := newHarness(t, withShop(t, serveHTTP(t, shop)))
	list := func() {
		t.Helper()
		if response, text := h.send(t, "/shop.v1.ShopService/ListThings", `{}`); response.StatusCode != http.StatusOK || !strings.Contains(text, "Paper tape") {
			t.Fatalf("got %d %s, want 200", response.StatusCode, text)
		}
	}
	list()
	list()
	before := shop.Calls.Load()
	h.send(t, "/shop.v1.ShopService/CreateOrder", `{"thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice))
	list()
	if after := shop.Calls.Load(); after != before+2 {
		t.Errorf("after an order the list took %d calls, want 1", after-before-1)
	}
	if before > 2 { // two, if a second passed in between
		t.Errorf("two lists took %d calls, want 1", before)
	}
}

// Reflection describes the published methods, and nothing of the others.
func TestReflectionHidesWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withShop(t, serveHTTP(t, upstreamtest.NewShop())))
	data, err := upstream.Fetch(context.Background(), h.url, "2")
	wantNoError(t, "fetch the descriptors", err)
	for text, want := range map[string]bool{"GetThing": true, "What people call it": true, "Audit is not": false, "AdminService": false, "\n\x06Secret": false, "Wipe": false, "Restock": false} {
		if got := bytes.Contains(data, []byte(text)); got != want {
			t.Errorf("the descriptors hold %q: %v, want %v", text, got, want)
		}
	}
}

// Calls go to the copies that answer.
func TestACallFindsTheCopyThatAnswers(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	shop := upstreamtest.NewShop()
	h := newHarness(t, withShop(t, gone.URL+","+serveHTTP(t, shop)))
	for range 20 {
		if response, text := h.send(t, getThing, `{"userId":"`+alice+`","thingId":"t1"}`, "Authorization", "Bearer "+h.token(alice)); response.StatusCode != http.StatusOK {
			t.Fatalf("got %d %s, want 200", response.StatusCode, text)
		}
	}
	if calls := shop.Calls.Load(); calls != 20 {
		t.Errorf("the copy that answers got %d calls, want 20", calls)
	}
}

// A stream ends at the upstream when its caller leaves.
func TestAStreamEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	shop := upstreamtest.NewShop()
	shop.Things = -1
	h := newHarness(t, withShop(t, serveHTTP(t, shop)))
	ctx, leave := context.WithCancel(t.Context())
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Authorization", "Bearer "+h.token(alice))
	watch := shopMethod(t, h, "WatchThings")
	stream, err := h.client().CallServerStream(ctx, connect.Spec{Procedure: "/shop.v1.ShopService/WatchThings", Schema: watch, StreamType: connect.StreamTypeServer}, dynamicpb.NewMessage(watch.Input()))
	wantNoError(t, "open a stream", err)
	wantNoError(t, "receive", stream.Receive(dynamicpb.NewMessage(watch.Output())))
	leave()
	_ = stream.Close()
	deadline := time.Now().Add(30 * time.Second)
	for shop.Watching.Load() > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if open := shop.Watching.Load(); open != 0 {
		t.Errorf("%d streams are open at the upstream, want none", open)
	}
}
