package bff

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/emptypb" // imports of the shop's
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"

	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/web"
)

// shopMethods are the methods of a service of another package, with their policies.
func shopMethods(t testing.TB) []*policy.Method {
	t.Helper()
	encoded, err := os.ReadFile("../internal/openapi/testdata/shop.binpb")
	wantNoError(t, "read the descriptors", err)
	var set descriptorpb.FileDescriptorSet
	wantNoError(t, "read the descriptors", proto.Unmarshal(encoded, &set))
	own := new(protoregistry.Files)
	var specs []connect.Spec
	for _, file := range set.GetFile() {
		built, err := protodesc.NewFile(file, ownOrLinked{own})
		wantNoError(t, "link the descriptors", err)
		wantNoError(t, "link the descriptors", own.RegisterFile(built))
		for i := range built.Services().Len() {
			methods := built.Services().Get(i).Methods()
			for j := range methods.Len() {
				spec := connect.Spec{Procedure: "/shop.v1.ShopService/" + string(methods.Get(j).Name()), Schema: methods.Get(j)}
				spec.IdempotencyLevel = connect.IdempotencyLevel(methods.Get(j).Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel())
				if methods.Get(j).IsStreamingServer() {
					spec.StreamType = connect.StreamTypeServer
				}
				specs = append(specs, spec)
			}
		}
	}
	methods, err := policy.Compile(specs, rpc.DefaultLimit, "")
	wantNoError(t, "compile the policies", err)
	return methods
}

type ownOrLinked struct{ *protoregistry.Files }

func (r ownOrLinked) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := r.Files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (r ownOrLinked) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := r.Files.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

func TestDocumentsHaveTheMethodsOfUpstreams(t *testing.T) {
	t.Parallel()
	methods := append(newHarness(t, options{}).gateway.rpc.Methods(), shopMethods(t)...)
	whole, err := newDocuments(methods, func(*policy.Method) ([]string, bool) { return []string{"OUT_OF_STOCK"}, true })
	wantNoError(t, "make the documents", err)
	site := httptest.NewServer(web.NewHandler(web.Config{PublicURL: publicURL, AcceptsGzip: rpc.AcceptsGzip, OpenAPI: whole.openAPI, Postman: whole.postman}))
	t.Cleanup(site.Close)
	for path, wants := range map[string][]string{
		"/openapi.json": {`"/api/v1/shop/items/{id}"`, `"/shop.v1.ShopService/Ping"`, `"OUT_OF_STOCK":{`, `"UPSTREAM_NOT_FOUND":{`, `"UPSTREAM_RESOURCE_EXHAUSTED":{`, `"/api/v1/me"`, `"servers":[{"url":"` + publicURL},
		"/postman.json": {`{{baseUrl}}/api/v1/shop/items/{{shop_v1_ShopService_GetItem_id}}`, `{"key":"shop_v1_ShopService_GetItem_id","value":"0195`, `{{baseUrl}}/shop.v1.ShopService/Ping`, `{{baseUrl}}/api/v1/me"`, `"value":"` + publicURL},
	} {
		response, err := http.Get(site.URL + path)
		wantNoError(t, path, err)
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		wantNoError(t, path, err)
		if response.StatusCode != http.StatusOK || !json.Valid(body) {
			t.Errorf("GET %s: got %d and %d bytes, want JSON", path, response.StatusCode, len(body))
		}
		for _, want := range wants {
			if !strings.Contains(string(body), want) {
				t.Errorf("GET %s: got no %s", path, want)
			}
		}
	}
}

// A gateway without upstreams serves the embedded documents and builds none.
func TestDocumentsAreEmbeddedWithoutUpstreams(t *testing.T) {
	t.Parallel()
	whole, err := newDocuments(newHarness(t, options{}).gateway.rpc.Methods(), nil)
	wantNoError(t, "make the documents", err)
	if whole.openAPI != nil || whole.postman != nil {
		t.Errorf("got %d and %d bytes, want none", len(whole.openAPI), len(whole.postman))
	}
}

func BenchmarkDocuments(b *testing.B) {
	methods := shopMethods(b)
	for b.Loop() {
		if _, err := newDocuments(methods, nil); err != nil {
			b.Fatal(err)
		}
	}
}
