package openapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/anypb" // an import of the shop's
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"

	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// merged is where scripts/openapi.sh wants the document of the public API with that of
// the shop.
var merged = flag.String("merged", "", "write the merged document to this file")

// shopFiles are the descriptors in testdata, which make gen writes from the protos
// there.
func shopFiles(t testing.TB, edits ...func(*descriptorpb.FileDescriptorSet)) *protoregistry.Files {
	t.Helper()
	encoded, err := os.ReadFile("testdata/shop.binpb")
	wantNoError(t, err)
	var set descriptorpb.FileDescriptorSet
	wantNoError(t, proto.Unmarshal(encoded, &set))
	for _, edit := range edits {
		edit(&set)
	}
	files := new(protoregistry.Files)
	for _, file := range set.GetFile() {
		built, err := protodesc.NewFile(file, resolver{files})
		wantNoError(t, err)
		wantNoError(t, files.RegisterFile(built))
	}
	return files
}

// resolver finds files of a set first, then those that are linked in.
type resolver struct{ *protoregistry.Files }

func (r resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := r.Files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (r resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := r.Files.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// shopMethods are the shop's methods. One of its reasons may reach callers.
func shopMethods(t testing.TB, edits ...func(*descriptorpb.FileDescriptorSet)) []Method {
	t.Helper()
	found, err := shopFiles(t, edits...).FindDescriptorByName("shop.v1.ShopService")
	wantNoError(t, err)
	service := found.(protoreflect.ServiceDescriptor)
	var specs []connect.Spec
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		spec := connect.Spec{Procedure: "/shop.v1.ShopService/" + string(method.Name()), Schema: method}
		spec.IdempotencyLevel = connect.IdempotencyLevel(method.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel())
		if method.IsStreamingServer() {
			spec.StreamType = connect.StreamTypeServer
		}
		specs = append(specs, spec)
	}
	compiled, err := policy.Compile(specs, rpc.DefaultLimit, "")
	wantNoError(t, err)
	var methods []Method
	for _, one := range compiled {
		methods = append(methods, Method{Policy: one, Reasons: []string{"OUT_OF_STOCK", "ITEM_UNKNOWN"}})
	}
	return methods
}

func publicErrors(t testing.TB) []Error {
	t.Helper()
	list, err := os.ReadFile("../../gen/reasons.json")
	wantNoError(t, err)
	declared, err := ReadErrors(list)
	wantNoError(t, err)
	return declared
}

func shopDocument(t testing.TB) []byte {
	t.Helper()
	document, err := Document(Config{Methods: shopMethods(t), Errors: publicErrors(t), Lenient: true})
	wantNoError(t, err)
	return document
}

func wantNoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// at returns what stands at a place in a document, following references on the way.
func at(t testing.TB, document []byte, place ...string) any {
	t.Helper()
	var all any
	wantNoError(t, json.Unmarshal(document, &all))
	value := all
	for i := range place {
		whole, _ := value.(map[string]any)
		if ref, referred := whole["$ref"].(string); referred {
			return at(t, document, append(strings.Split(ref, "/")[1:], place[i:]...)...)
		}
		var ok bool
		if value, ok = whole[place[i]]; !ok {
			t.Fatalf("got nothing at %s", strings.Join(place[:i+1], " "))
		}
	}
	return value
}

// wantAt wants a value, in JSON with sorted keys, at a place.
func wantAt(t testing.TB, document []byte, want string, place ...string) {
	t.Helper()
	got, err := encode(at(t, document, place...))
	wantNoError(t, err)
	if string(got) != want {
		t.Errorf("%s: got %s, want %s", strings.Join(place, " "), got, want)
	}
}

func TestMergedDocumentHasBoth(t *testing.T) {
	t.Parallel()
	base, err := os.ReadFile("../../web/openapi.json")
	wantNoError(t, err)
	whole, err := Merge(base, shopDocument(t))
	wantNoError(t, err)
	for _, id := range []string{"getMe", "connectGetMe", "shop.v1.ShopService.GetItem", "connect.shop.v1.ShopService.Ping"} {
		if !strings.Contains(string(whole), `"operationId":"`+id+`"`) {
			t.Errorf("got no operation %s", id)
		}
	}
	paths := len(at(t, base, "paths").(map[string]any)) + len(at(t, shopDocument(t), "paths").(map[string]any))
	if got := len(at(t, whole, "paths").(map[string]any)); got != paths {
		t.Errorf("got %d paths, want %d", got, paths)
	}
	if *merged != "" {
		wantNoError(t, os.WriteFile(*merged, whole, 0o600))
	}
}

func TestDocumentDescribesTypes(t *testing.T) {
	t.Parallel()
	d := shopDocument(t)
	for property, want := range map[string]string{
		"id":         `{"description":"The item's id. Set by the server.","examples":["id"],"readOnly":true,"type":"string"}`,
		"title":      `{"description":"Its title.\n\nFurther rules: ` + "`max_bytes 100`" + `.","examples":["title"],"maxLength":80,"minLength":3,"type":"string"}`,
		"sku":        `{"description":"Its stock keeping unit.","examples":["SKU-0042"],"pattern":"^SKU-[0-9]{4}$","type":"string"}`,
		"cents":      `{"description":"The price in cents.\n\nFurther rules: ` + "`gte 0`" + `.","examples":["1"],"pattern":"^-?[0-9]+$","type":"string"}`,
		"stars":      `{"description":"Stars.","examples":[1],"format":"double","maximum":5,"minimum":1,"type":"number"}`,
		"kind":       `{"$ref":"#/components/schemas/shop.v1.Kind"}`,
		"picture":    `{"contentEncoding":"base64","description":"A picture.","examples":["YWFh"],"type":"string"}`,
		"names":      `{"additionalProperties":{"maxLength":80,"type":"string"},"description":"Names by language.","maxProperties":20,"propertyNames":{"minLength":2,"type":"string"},"type":"object"}`,
		"parts":      `{"description":"Parts, which are items themselves.","items":{"$ref":"#/components/schemas/shop.v1.Item"},"type":"array"}`,
		"place":      `{"$ref":"#/components/schemas/depot.v1.Item","description":"Where it lies."}`,
		"places":     `{"additionalProperties":{"$ref":"#/components/schemas/depot.v1.Item"},"type":"object"}`,
		"invoice":    `{"$ref":"#/components/schemas/shop.v1.Item.Invoice","description":"By invoice."}`,
		"createTime": `{"examples":["2026-03-01T09:30:00Z"],"format":"date-time","type":"string"}`,
		"life":       `{"examples":["30s"],"pattern":"^-?[0-9]+(\\.[0-9]{1,9})?s$","type":"string"}`,
		"attributes": `{"additionalProperties":true,"type":"object"}`,
		"value":      `{}`,
		"list":       `{"items":{},"type":"array"}`,
		"nickname":   `{"examples":["nickname"],"maxLength":9,"type":"string"}`,
		"number":     `{"examples":["1"],"pattern":"^-?[0-9]+$","type":"string"}`,
		"shelf":      `{"examples":[1],"exclusiveMaximum":100,"exclusiveMinimum":0,"format":"int32","type":"integer"}`,
		"weight":     `{"examples":[1],"format":"int64","minimum":0,"type":"integer"}`,
		"nothing":    `{"type":"null"}`,
	} {
		wantAt(t, d, want, "components", "schemas", "shop.v1.Item", "properties", property)
	}
	wantAt(t, d, `"Item is one thing to buy.\n\nFurther rules: what is sold has a price."`, "components", "schemas", "shop.v1.Item", "description")
	wantAt(t, d, `["title","sku","stars"]`, "components", "schemas", "shop.v1.Item", "required")
	wantAt(t, d, `{"required":["card","invoice"]}`, "components", "schemas", "shop.v1.Item", "not")
	wantAt(t, d, `[{"anyOf":[{"required":["card"]},{"required":["invoice"]}]}]`, "components", "schemas", "shop.v1.Item", "allOf")
	wantAt(t, d, `["KIND_BOOK","KIND_FOOD"]`, "components", "schemas", "shop.v1.Kind", "enum")
	wantAt(t, d, `["SMALL","LARGE"]`, "components", "schemas", "shop.v1.Size", "enum")
}

func TestDocumentDescribesOperations(t *testing.T) {
	t.Parallel()
	d := shopDocument(t)
	get := []string{"paths", "/api/v1/shop/items/{id}", "get"}
	wantAt(t, d, `"GetItem returns an item.\n\n**Who may call:** anyone.\n**Time limit:** 0.5 s."`, append(get, "description")...)
	var names []string
	for _, parameter := range at(t, d, append(get, "parameters")...).([]any) {
		if name, ok := parameter.(map[string]any)["name"].(string); ok {
			names = append(names, name)
		}
	}
	if want := []string{"id", "language", "kinds", "fields"}; !slices.Equal(names, want) {
		t.Errorf("got the parameters %v, want %v", names, want)
	}
	post := []string{"paths", "/api/v1/shop/items", "post"}
	wantAt(t, d, `["CROSS_ORIGIN","KEY_NETWORK","PERMISSION_DENIED","SCOPE_REQUIRED"]`, append(slices.Clone(post), "responses", "403", "x-gatehouse-reasons")...)
	wantAt(t, d, `{"burst":5,"count":5,"periodSeconds":90}`, append(slices.Clone(post), "x-gatehouse-policy", "rate")...)
	at(t, d, append(slices.Clone(post), "responses", "201", "headers", "Location")...)
	move := []string{"paths", "/api/v1/shop/shelves/{name}/items/{name_2}:move", "post"}
	wantAt(t, d, `{"to":"shelves/3"}`, append(slices.Clone(move), "requestBody", "content", "application/json", "example")...)
	wantAt(t, d, `"Move item.\n\n**Who may call:** anyone who is signed in.\n**Time limit:** 10 s."`, append(slices.Clone(move), "description")...)
	stream := []string{"paths", "/shop.v1.ShopService/WatchItems", "post"}
	wantAt(t, d, `{"$ref":"#/components/schemas/shop.v1.Item"}`, append(slices.Clone(stream), "responses", "200", "content", "application/connect+json", "schema")...)
	if reasons := at(t, d, append(slices.Clone(stream), "responses", "200", "x-gatehouse-reasons")...).([]any); !slices.Contains(reasons, any("TOKEN_EXPIRED")) {
		t.Errorf("a stream ends for %v, want TOKEN_EXPIRED among them", reasons)
	}
	if example := at(t, d, "paths", "/shop.v1.ShopService/GetItem", "get", "responses", "200", "content", "application/json", "example").(map[string]any); example["parts"] != nil || example["place"] == nil {
		t.Errorf("got the example %v, want the place and no items within the item", example)
	}
	if paths := at(t, d, "paths").(map[string]any); len(paths) != 8 {
		t.Errorf("got %d paths, want the 3 of REST and the 5 of Connect", len(paths))
	}
}

// A reason of an upstream is described if it may reach callers.
func TestReasonsAreThoseThatReachCallers(t *testing.T) {
	t.Parallel()
	d := shopDocument(t)
	get := []string{"paths", "/shop.v1.ShopService/GetItem", "get", "responses"}
	wantAt(t, d, `["ITEM_UNKNOWN"]`, append(slices.Clone(get), "404", "x-gatehouse-reasons")...)
	if reasons := at(t, d, append(slices.Clone(get), "400", "x-gatehouse-reasons")...).([]any); !slices.Contains(reasons, any("OUT_OF_STOCK")) {
		t.Errorf("got the reasons %v, want OUT_OF_STOCK among them", reasons)
	}
	if strings.Contains(string(d), "ITEM_SECRET") {
		t.Error("got ITEM_SECRET, which does not reach callers")
	}
}

// Without Lenient, what can't be described is an error.
func TestDocumentIsStrict(t *testing.T) {
	t.Parallel()
	_, err := Document(Config{Methods: shopMethods(t), Errors: publicErrors(t), Package: "shop.v1"})
	for _, want := range []string{
		"GetItem: its comment: ITEM_UNKNOWN isn't declared", "CreateItem: shop.v1.Item: shop.v1.Item.title: the rule `max_bytes 100` can't be described", "WatchItems: a stream has to be server-sent events",
		"Ping: its google.api.http has to give one path",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// Every example matches its schema, and every example request its rules.
func TestExamplesAreValid(t *testing.T) {
	t.Parallel()
	document := shopDocument(t)
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	wantNoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	wantNoError(t, compiler.AddResource("https://shop.example/openapi.json", whole))
	var checked int
	for path, operations := range at(t, document, "paths").(map[string]any) {
		for verb, operation := range operations.(map[string]any) {
			for place, content := range contents(operation) {
				example, ok := content["example"]
				if !ok {
					continue
				}
				pointer := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace
				schema, err := compiler.Compile("https://shop.example/openapi.json#/paths/" + pointer(path) + "/" + verb + place + "/schema")
				wantNoError(t, err)
				if err := schema.Validate(example); err != nil {
					t.Errorf("%s %s: %s: %v", verb, path, place, err)
				}
				checked++
			}
		}
	}
	if checked < 16 {
		t.Errorf("got %d examples, want at least one of each request and response", checked)
	}
	for _, method := range shopMethods(t) {
		path := "/" + string(method.Policy.Descriptor.Parent().FullName()) + "/" + string(method.Policy.Descriptor.Name())
		for _, content := range at(t, document, "paths", path, "post", "requestBody", "content").(map[string]any) {
			example, err := encode(content.(map[string]any)["example"])
			wantNoError(t, err)
			if err := method.Policy.CheckExample(example); err != nil {
				t.Errorf("%s: the example %s is refused: %v", path, example, err)
			}
		}
	}
}

// contents returns the media of an operation's request and successes, by JSON pointer.
func contents(operation any) map[string]map[string]any {
	found := map[string]map[string]any{}
	whole, _ := operation.(map[string]any)
	add := func(at string, body any) {
		described, _ := body.(map[string]any)
		content, _ := described["content"].(map[string]any)
		for kind, one := range content {
			found[at+"/content/"+strings.ReplaceAll(kind, "/", "~1")], _ = one.(map[string]any)
		}
	}
	add("/requestBody", whole["requestBody"])
	responses, _ := whole["responses"].(map[string]any)
	for _, status := range []string{"200", "201"} {
		add("/responses/"+status, responses[status])
	}
	return found
}

// Two upstreams may have different messages of one name.
func TestEqualNamesStayApart(t *testing.T) {
	t.Parallel()
	document, err := Document(Config{Methods: append(shopMethods(t)[1:2], shopMethods(t)[0]), Errors: publicErrors(t), Lenient: true})
	wantNoError(t, err)
	wantAt(t, document, `{"$ref":"#/components/schemas/shop.v1.Item"}`, "paths", "/api/v1/shop/items", "post", "responses", "201", "content", "application/json", "schema")
	wantAt(t, document, `{"$ref":"#/components/schemas/shop.v1.Item-2"}`, "paths", "/api/v1/shop/items/{id}", "get", "responses", "200", "content", "application/json", "schema")
	wantAt(t, document, `{"$ref":"#/components/schemas/depot.v1.Item-2","description":"Where it lies."}`, "components", "schemas", "shop.v1.Item-2", "properties", "place")
}

func TestMergeRefusesWhatIsTaken(t *testing.T) {
	t.Parallel()
	shop := shopDocument(t)
	for what, c := range map[string]struct{ base, want string }{
		"an operation": {`{"tags":[],"paths":{"/api/v1/shop/items/{id}":{"get":{}}}}`, "both have GET /api/v1/shop/items/{id}"},
		"a tag":        {`{"tags":[{"name":"shop.v1.ShopService"}]}`, "both have the tag shop.v1.ShopService"},
		"a schema":     {`{"components":{"schemas":{"shop.v1.Item":{}}}}`, "components: schemas: both have shop.v1.Item, and it differs"},
		"a reason":     {`{"x-gatehouse-reasons":{"OUT_OF_STOCK":{"code":"aborted"}}}`, "reasons: both have OUT_OF_STOCK, and it differs"},
	} {
		if _, err := Merge([]byte(c.base), shop); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
	}
	base := `{"tags":[],"paths":{"/api/v1/shop/items/{id}":{"delete":{"operationId":"other"}}}}`
	whole, err := Merge([]byte(base), shop)
	wantNoError(t, err)
	wantAt(t, whole, `"other"`, "paths", "/api/v1/shop/items/{id}", "delete", "operationId")
	wantAt(t, whole, `"shop.v1.ShopService.GetItem"`, "paths", "/api/v1/shop/items/{id}", "get", "operationId")
}

// A parameter that a query needs has an example, from its type and rules if its proto
// gives none: the proto may belong to another team.
func TestANeededQueryParameterHasAnExample(t *testing.T) {
	t.Parallel()
	methods := shopMethods(t, func(set *descriptorpb.FileDescriptorSet) {
		for _, file := range set.GetFile() {
			for _, service := range file.GetService() {
				for _, method := range service.GetMethod() {
					if method.GetName() == "GetItem" {
						rule := &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/api/v1/shop/items"}}
						proto.SetExtension(method.GetOptions(), annotations.E_Http, rule)
					}
				}
			}
		}
	})
	text, err := Document(Config{Methods: methods, Errors: publicErrors(t), Lenient: true})
	wantNoError(t, err)
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name, In string
				Required bool
				Example  string
			}
		}
	}
	wantNoError(t, json.Unmarshal(text, &document))
	for _, parameter := range document.Paths["/api/v1/shop/items"]["get"].Parameters {
		if parameter.Name == "id" {
			if parameter.In != "query" || !parameter.Required || parameter.Example == "" {
				t.Errorf("got %+v, want a parameter that the query needs, with an example", parameter)
			}
			return
		}
	}
	t.Errorf("got %+v, want the parameter id", document.Paths["/api/v1/shop/items"])
}
