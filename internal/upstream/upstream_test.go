package upstream_test

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/upstream"
	"gatehouse/internal/upstreamtest"
)

// entry is an upstream's entry with further lines.
func entry(lines ...string) string {
	return "upstreams:\n  shop:\n    url: http://shop:9000\n    descriptors: shop.binpb\n" + strings.Join(lines, "\n") + "\n"
}

// load loads a file with the descriptors of the shop, which edit changes.
func load(t *testing.T, text string, edit func(*descriptorpb.FileDescriptorProto)) (*upstream.Set, error) {
	t.Helper()
	file := upstreamtest.File()
	if edit != nil {
		edit(file)
	}
	return loadSet(t, text, upstreamtest.Encode(file))
}

// encodeAs encodes the shop's file as one of another package.
func encodeAs(t *testing.T, file *descriptorpb.FileDescriptorProto, name string) []byte {
	t.Helper()
	text := strings.ReplaceAll(prototext.Format(file), ".shop.v1.", "."+name+".v1.")
	text = strings.ReplaceAll(text, "/api/v1/shop/", "/api/v1/"+name+"/")
	renamed := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal([]byte(text), renamed); err != nil {
		t.Fatal(err)
	}
	return upstreamtest.Encode(renamed)
}

func loadSet(t *testing.T, text string, set []byte) (*upstream.Set, error) {
	t.Helper()
	folder := t.TempDir()
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), set)
	upstreamtest.Write(t, filepath.Join(folder, "short"), []byte("short"))
	upstreamtest.Write(t, filepath.Join(folder, "secret"), []byte(strings.Repeat("a", 64)))
	upstreamtest.Write(t, filepath.Join(folder, "three"), []byte(strings.Repeat(strings.Repeat("b", 64)+"\n", 3)))
	stall := upstreamtest.File()
	stall.Name, stall.Package, stall.Service = proto.String("stall.proto"), proto.String("stall.v1"), stall.GetService()[1:]
	upstreamtest.Write(t, filepath.Join(folder, "stall.binpb"), encodeAs(t, stall, "stall"))
	return upstream.Load(upstream.Config{Path: upstreamtest.Write(t, filepath.Join(folder, "upstreams.yaml"), []byte(text)), Taken: []string{"auth", "users"}})
}

func TestTheFileSaysWhatIsPublished(t *testing.T) {
	t.Parallel()
	set, err := load(t, entry(
		"    protocol: grpc", "    reasons: [OUT_OF_STOCK]", "    lifecycle: all", "    lifecycle_fields: [email]", "    credential_file: secret",
		"    policy:", "      shop.v1.ShopService/Restock:", "        access: {signed_in: {}}", "        time_limit: 500ms", "        rate: {count: 50, period: 1s, burst: 5}",
		"        criticality: SHEDDABLE", "        purges: [things]", "        idempotency_level: IDEMPOTENT", "        http: {post: \"/api/v1/shop/things/{thing_id}:restock\", body: \"*\"}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	u := set.Upstreams[0]
	var published []string
	for _, m := range u.Methods {
		published = append(published, string(m.Descriptor.Name()))
	}
	if got, want := strings.Join(published, " "), "GetThing ListThings CreateOrder WatchThings Restock"; got != want {
		t.Errorf("published: got %s, want %s", got, want)
	}
	if got, want := strings.Join(u.Unpublished, " "), "/shop.v1.AdminService/Wipe /shop.v1.ShopService/Audit"; got != want {
		t.Errorf("not published: got %s, want %s", got, want)
	}
	policy, _ := proto.GetExtension(u.Methods[4].Descriptor.Options(), policyv1.E_Method).(*policyv1.Method)
	want := &policyv1.Method{
		Access: &policyv1.Access{Who: &policyv1.Access_SignedIn{SignedIn: &policyv1.SignedIn{}}}, TimeLimit: durationpb.New(500e6),
		Rate: &policyv1.Rate{Count: proto.Int32(50), Period: durationpb.New(1e9), Burst: proto.Int32(5)}, Criticality: policyv1.Criticality_CRITICALITY_SHEDDABLE.Enum(), Purges: []string{"things"},
	}
	if !proto.Equal(policy, want) {
		t.Errorf("the policy of the file: got %v, want %v", policy, want)
	}
	if got := u.Methods[0].Descriptor.ParentFile().SourceLocations().ByDescriptor(u.Methods[0].Descriptor).LeadingComments; !strings.Contains(got, "GetThing returns a thing") {
		t.Errorf("the comment of GetThing: got %q", got)
	}
	rule, _ := proto.GetExtension(u.Methods[4].Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule.GetPost() != "/api/v1/shop/things/{thing_id}:restock" || u.Methods[4].Spec.IdempotencyLevel != connect.IdempotencyIdempotent {
		t.Errorf("the options of the file: got %v and %v", rule, u.Methods[4].Spec.IdempotencyLevel)
	}
	if u.Lifecycle != "all" || u.Protocol != upstream.GRPC || u.Reasons[0] != "OUT_OF_STOCK" {
		t.Errorf("got %+v", u)
	}
}

func methodNamed(file *descriptorpb.FileDescriptorProto, name string) *descriptorpb.MethodDescriptorProto {
	for _, service := range file.GetService() {
		for _, method := range service.GetMethod() {
			if method.GetName() == name {
				return method
			}
		}
	}
	return nil
}

func policyOf(file *descriptorpb.FileDescriptorProto, name string) *policyv1.Method {
	policy, _ := proto.GetExtension(methodNamed(file, name).GetOptions(), policyv1.E_Method).(*policyv1.Method)
	return policy
}

// Each mistake stops the start, with its line and the fix. A pattern for each line of
// the error.
func TestAMistakeOfTheFileStopsTheStart(t *testing.T) {
	t.Parallel()
	policy := func(lines ...string) string {
		return entry(append([]string{"    policy:", "      shop.v1.ShopService/Restock:"}, lines...)...)
	}
	for name, test := range map[string]struct {
		text string
		edit func(*descriptorpb.FileDescriptorProto)
		want []string
	}{
		"no YAML":                   {"upstreams: [", nil, []string{`is not YAML: line 1`}},
		"nothing":                   {"", nil, []string{`is empty: write upstreams:`}},
		"a list":                    {"- a\n", nil, []string{`^line 1: the file is not a mapping`}},
		"two documents":             {"upstreams: {}\n---\nupstreams: {}\n", nil, []string{`more than one document`}},
		"an unknown key":            {"upstream: {}\n", nil, []string{`^line 1: the file has no key "upstream": the keys are upstreams`}},
		"an unknown key of one":     {entry("    retries: 3"), nil, []string{`^line 5: upstream shop has no key "retries": the keys are url, protocol`}},
		"a key twice":               {entry("    url: http://b"), nil, []string{`^line 5: upstream shop has "url" twice, first in line 3`}},
		"an alias":                  {"a: &x {}\nupstreams: *x\n", nil, []string{`the file has no key "a"`, `alias`}},
		"the name of a service":     {"upstreams:\n  auth: {url: http://a, descriptors: shop.binpb}\n", nil, []string{`^line 2: auth is the name of a service of Gatehouse: choose another`}},
		"a name in capitals":        {"upstreams:\n  Shop: {url: http://a, descriptors: shop.binpb}\n", nil, []string{`^line 2: "Shop" can't be the name`}},
		"no url":                    {"upstreams:\n  shop: {descriptors: shop.binpb}\n", nil, []string{`has no url: add url`}},
		"a url without a scheme":    {"upstreams:\n  shop:\n    url: shop:9000\n    descriptors: shop.binpb\n", nil, []string{`^line 3: "shop:9000" is not the URL of a server`}},
		"a url with a password":     {"upstreams:\n  shop:\n    url: http://u:p@shop\n    descriptors: shop.binpb\n", nil, []string{`^line 3: the url of shop has a user`}},
		"urls that differ":          {"upstreams:\n  shop:\n    url: http://a/x,http://b/y\n    descriptors: shop.binpb\n", nil, []string{`differ in more than the host`}},
		"no descriptors":            {"upstreams:\n  shop: {url: http://a}\n", nil, []string{`has no descriptors: add descriptors: shop.binpb`}},
		"descriptors by reflection": {"upstreams:\n  shop: {url: http://a, descriptors: reflection}\n", nil, []string{`could widen its own policy: pin them in a file: gatehouse upstream add shop`}},
		"descriptors elsewhere":     {"upstreams:\n  shop: {url: http://a, descriptors: nope.binpb}\n", nil, []string{`nope.binpb, can't be read: no such file`}},
		"another protocol":          {entry("    protocol: soap"), nil, []string{`^line 5: protocol is "soap": write connect or grpc`}},
		"another HTTP":              {entry("    http: 3"), nil, []string{`^line 5: http is "3": write auto or 1.1 or 2`}},
		"gRPC over HTTP/1.1":        {entry("    protocol: grpc", `    http: "1.1"`), nil, []string{`needs HTTP/2, over HTTP/1.1`}},
		"reasons in small letters":  {entry("    reasons: [out_of_stock]"), nil, []string{`"out_of_stock" is no reason`}},
		"a reason of ours":          {entry("    reasons: [TOKEN_EXPIRED]"), nil, []string{`TOKEN_EXPIRED is a reason of Gatehouse's own`}},
		"reasons that are no list":  {entry("    reasons: OUT_OF_STOCK"), nil, []string{`reasons is not a list`}},
		"events without credential": {entry("    lifecycle: deletions"), nil, []string{`no credential to read them with: add credential_file`}},
		"a short credential":        {entry("    lifecycle: all", "    credential_file: short"), nil, []string{`less than 32 characters`}},
		"a credential elsewhere":    {entry("    credential_file: nope"), nil, []string{`credential_file of shop can't be read`}},
		"fields without events":     {entry("    lifecycle_fields: [email]"), nil, []string{`does not get events of changes`}},
		"people and no service":     {entry("    person: true", "    lifecycle: deletions", "    credential_file: secret"), nil, []string{`no service.v1.PersonService to export and erase them`}},
		"people who stay for ever":  {entry("    person: true"), nil, []string{`does not follow the deletions of accounts, by which they are erased: set lifecycle: deletions`, `no service.v1.PersonService`}},
		"a field of no event":       {entry("    lifecycle: all", "    lifecycle_fields: [password]", "    credential_file: secret"), nil, []string{`lists the field "password" in lifecycle_fields: the fields are email and create_time`}},
		"three secrets":             {entry("    credential_file: three"), nil, []string{`credential_file of shop holds 3 secrets: write one`}},
		"a shared credential":       {entry("    credential_file: secret") + "  stall: {url: http://stall, descriptors: stall.binpb, credential_file: secret}\n", nil, []string{`upstreams shop and stall have the same credential: write one for each`}},
		"person in words":           {entry("    person: maybe"), nil, []string{`person is "maybe"`}},

		"a level that is none":        {policy("        access: {signed_in: {}}", "        idempotency_level: SAFE"), nil, []string{`^line 8: idempotency_level .* "SAFE": write NO_SIDE_EFFECTS or IDEMPOTENT`}},
		"a REST path that is none":    {policy("        access: {signed_in: {}}", "        http: {fetch: /api/x}"), nil, []string{`^line 8: .* has no key "fetch" here: the keys are selector, get`}},
		"a policy of no method":       {entry("    policy:", "      shop.v1.ShopService/Nope:", "        access: {anyone: {}}"), nil, []string{`^line 6: upstream shop has no method shop.v1.ShopService/Nope: write one of shop.v1.ShopService/Audit, `}},
		"a policy in both":            {entry("    policy:", "      shop.v1.ShopService/GetThing:", "        access: {anyone: {}}"), nil, []string{`^line 6: .*GetThing has a policy in its proto and in the file`}},
		"no access":                   {policy("        time_limit: 5s"), nil, []string{`^line 6: .*doesn't say who may call it: add access`}},
		"two accesses":                {policy("        access: {anyone: {}, signed_in: {}}"), nil, []string{`can't be read: .*oneof`}},
		"an unknown key of a policy":  {policy("        access: {anyone: {}}", "        timeout: 5s"), nil, []string{`^line 8: .* has no key "timeout" here: the keys are access, recent_sign_in, time_limit`}},
		"a time that is none":         {policy("        access: {anyone: {}}", "        time_limit: fast"), nil, []string{`^line 8: time_limit .* "fast", which is no time`}},
		"a time that is too long":     {policy("        access: {anyone: {}}", "        time_limit: 60s"), nil, []string{`^line 6: .*the maximum is 25s`}},
		"a field that there is not":   {policy("        access: {self: {field: owner}}"), nil, []string{`^line 6: .*admits the account in a field that is not usable`}},
		"services of ours, by a file": {policy("        access: {upstreams: {}}"), nil, []string{`says? anyone, signed_in, self or roles`}},
		"services of ours":            {policy("        access: {services: {any_of: [bff]}}"), nil, []string{`says? anyone, signed_in, self or roles`}},
		"a recent sign-in":            {policy("        access: {signed_in: {}}", "        recent_sign_in: true"), nil, []string{`wants a recent sign-in, which auth decides`}},
		"a cache of a write":          {policy("        access: {signed_in: {}}", "        cache: {ttl: 1s, scope: PRIVATE}"), nil, []string{`^line 6: .*side effects: declare NO_SIDE_EFFECTS`}},
		"a purge of nothing":          {policy("        access: {signed_in: {}}", "        purges: [nothings]"), nil, []string{`^line 6: .*purges "nothings", a tag that no method's`}},
		"a rate of nothing":           {policy("        access: {signed_in: {}}", "        rate: {count: 0, period: 1s}"), nil, []string{`has a rate that admits no call`}},
		"a criticality that is none":  {policy("        access: {signed_in: {}}", "        criticality: HIGH"), nil, []string{`"HIGH": write CRITICAL or SHEDDABLE`}},
		"a count that is no number":   {policy("        access: {signed_in: {}}", "        rate: {count: many, period: 1s}"), nil, []string{`count .* is "many": write a int32`}},
		"several mistakes, each once": {entry("    http: 9", "    reasons: [x]", "    bad: 1"), nil, []string{`http is "9"`, `"x" is no reason`, `no key "bad"`}},

		"a contradiction in the proto": {entry(), func(f *descriptorpb.FileDescriptorProto) { policyOf(f, "GetThing").Created = proto.String("/api/v1/x") }, []string{`GetThing: its policy declares a created resource, but the method has no side effects`}},
		"a policy of a client's stream": {entry(), func(f *descriptorpb.FileDescriptorProto) {
			methodNamed(f, "WatchThings").ClientStreaming = proto.Bool(true)
		}, []string{`takes a stream of requests: leave its policy out`}},
		"nothing that is published": {entry(), func(f *descriptorpb.FileDescriptorProto) { f.Service = f.GetService()[:1] }, []string{`publishes no method, since nothing says who may call one: add a policy for each method that callers may use, in its proto or in the file: shop.v1.AdminService/`}},
		"a cache that no feed invalidates": {entry(), func(f *descriptorpb.FileDescriptorProto) {
			policyOf(f, "ListThings").Cache.Tags, policyOf(f, "CreateOrder").Purges = nil, nil
			policyOf(f, "ListThings").Cache.Ttl = durationpb.New(5e9)
		}, []string{`ListThings: its policy caches answers for 5s`}},
		"a policy of a newer version": {entry(), func(f *descriptorpb.FileDescriptorProto) {
			policyOf(f, "GetThing").ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		}, []string{`the policy of shop.v1.ShopService.GetThing says what this version does not know: use the proto files`}},
		"a field's policy of a newer version": {entry(), func(f *descriptorpb.FileDescriptorProto) {
			said := &policyv1.Field{}
			said.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
			f.MessageType[1].Field[0].Options = &descriptorpb.FieldOptions{}
			proto.SetExtension(f.MessageType[1].Field[0].Options, policyv1.E_Field, said)
		}, []string{`the policy of shop.v1.Thing.id says what this version does not know`}},
		"a rule of a newer version": {entry(), func(f *descriptorpb.FileDescriptorProto) {
			rules := &validate.FieldRules{}
			rules.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1))
			proto.SetExtension(f.MessageType[2].Field[1].Options, validate.E_Field, rules)
		}, []string{`the rule of shop.v1.GetThingRequest.thing_id says what this version does not know`}},
		"another option with our number": {entry(), func(f *descriptorpb.FileDescriptorProto) {
			f.Dependency = append(f.GetDependency(), "google/protobuf/descriptor.proto")
			f.Extension = append(f.Extension, &descriptorpb.FieldDescriptorProto{Name: proto.String("mine"), Number: proto.Int32(50801), Extendee: proto.String(".google.protobuf.MethodOptions"), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()})
		}, []string{`declares the option shop.v1.mine with the number 50801, which is policy.v1.method's`}},
		"an import that is missing":    {entry(), func(f *descriptorpb.FileDescriptorProto) { f.Dependency = append(f.GetDependency(), "money.proto") }, []string{`imports money.proto, which they lack: write them again with their imports`}},
		"a message that is missing":    {entry(), func(f *descriptorpb.FileDescriptorProto) { f.MessageType = f.GetMessageType()[1:] }, []string{`incomplete or contradict each other: .*shop.v1.Secret`}},
		"a package of another":         {entry(), func(f *descriptorpb.FileDescriptorProto) { f.Package = proto.String("google.protobuf") }, []string{`declares the package google.protobuf, which is not its own`}},
		"a field number that is a lie": {entry(), func(f *descriptorpb.FileDescriptorProto) { f.MessageType[1].Field[1].Number = proto.Int32(1) }, []string{`incomplete or contradict each other`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, test.text, test.edit)
			problems, ok := errors.AsType[upstream.Problems](err)
			if !ok || len(problems) != len(test.want) {
				t.Fatalf("got %d problems:\n%v\nwant %d", len(problems), err, len(test.want))
			}
			for i, want := range test.want {
				if !regexp.MustCompile(want).MatchString(problems[i].Error()) {
					t.Errorf("problem %d: got %q, want %q", i+1, problems[i].Error(), want)
				}
			}
		})
	}
}

// Bytes that are no descriptor set are refused.
func TestDescriptorsThatAreNone(t *testing.T) {
	t.Parallel()
	whole := upstreamtest.Encode(upstreamtest.File())
	twice := upstreamtest.Encode(upstreamtest.File(), upstreamtest.File())
	for name, test := range map[string]struct {
		set  []byte
		want string
	}{
		"nothing": {nil, "they hold no file"}, "half": {whole[:len(whole)/2], "they are no descriptor set"}, "JSON": {[]byte(`{"file":[]}`), "they are no descriptor set"},
		"a file twice": {twice, "is there twice"}, "17 MiB": {make([]byte, 17<<20), "more than 16777216"},
	} {
		if _, err := loadSet(t, entry(), test.set); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestTwoUpstreamsPublishOneService(t *testing.T) {
	t.Parallel()
	text := entry() + "  shop-2:\n    url: http://b\n    descriptors: shop.binpb\n"
	if _, err := load(t, text, nil); err == nil || !strings.Contains(err.Error(), "upstreams shop and shop-2 both publish shop.v1.ShopService") {
		t.Errorf("got %v, want that both publish it", err)
	}
}

// Drift tells how what is served differs from what is pinned.
func TestDriftIsReported(t *testing.T) {
	t.Parallel()
	set, err := load(t, entry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		edit func(*descriptorpb.FileDescriptorProto)
		want string
	}{
		"none": {func(*descriptorpb.FileDescriptorProto) {}, ""},
		"a method gone": {func(f *descriptorpb.FileDescriptorProto) {
			methodNamed(f, "GetThing").Name = proto.String("FetchThing")
		}, "shop.v1.ShopService.GetThing is published, and the upstream no longer has it|new: /shop.v1.ShopService/FetchThing is not pinned, so nobody can call it"},
		"a stream": {func(f *descriptorpb.FileDescriptorProto) { methodNamed(f, "WatchThings").ServerStreaming = nil }, "shop.v1.ShopService.WatchThings streams otherwise than its pinned descriptor says"},
		"a field's type": {func(f *descriptorpb.FileDescriptorProto) {
			f.MessageType[1].Field[2].Type = descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
		}, "shop.v1.Thing.quantity is now of the type optional string, and was optional int32"},
		"a field gone": {func(f *descriptorpb.FileDescriptorProto) { f.MessageType[1].Field = f.MessageType[1].GetField()[:4] }, "shop.v1.Thing.create_time is gone"},
		"a wider policy": {func(f *descriptorpb.FileDescriptorProto) {
			policyOf(f, "GetThing").Access = &policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}}
		}, "shop.v1.ShopService.GetThing has another policy than the pinned one, which counts"},
		"an added method": {func(f *descriptorpb.FileDescriptorProto) {
			f.Service[0].Method = append(f.Service[0].Method, &descriptorpb.MethodDescriptorProto{Name: proto.String("New"), InputType: proto.String(".shop.v1.WipeRequest"), OutputType: proto.String(".shop.v1.WipeResponse")})
		}, "new: /shop.v1.AdminService/New is not pinned, so nobody can call it"},
	} {
		file := upstreamtest.File()
		test.edit(file)
		got, err := set.Upstreams[0].Drift(upstreamtest.Encode(file))
		if err != nil || strings.Join(got, "|") != test.want {
			t.Errorf("%s: got %q, %v, want %q", name, strings.Join(got, "|"), err, test.want)
		}
	}
}

// What a service answers to the gateway alone is not published, whatever it says of it
// itself, and the file cannot publish it.
func TestWhatTheGatewayAsksForIsNotPublished(t *testing.T) {
	t.Parallel()
	person, change := upstreamtest.ContractFiles()[0], upstreamtest.ContractFiles()[1]
	everybody := &policyv1.Method{Access: &policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}}}
	proto.SetExtension(person.GetService()[0].GetMethod()[0].GetOptions(), policyv1.E_Method, everybody)
	proto.ClearExtension(change.GetService()[0].GetMethod()[0].GetOptions(), policyv1.E_Method)
	set := upstreamtest.Encode(upstreamtest.File(), person, change)
	const watch = "service.v1.ChangeService/WatchChanges"
	loaded, err := loadSet(t, entry(), set)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range loaded.Upstreams[0].Methods {
		if strings.HasPrefix(m.Spec.Procedure, "/service.v1.") {
			t.Errorf("%s is published", m.Spec.Procedure)
		}
	}
	if got := strings.Join(loaded.Upstreams[0].Unpublished, " "); !strings.Contains(got, "/service.v1.PersonService/ExportPerson") || !strings.Contains(got, "/"+watch) {
		t.Errorf("not published: got %s, want ExportPerson and WatchChanges among them", got)
	}
	_, err = loadSet(t, entry("    policy:", "      "+watch+":", "        access: {anyone: {}}"), set)
	if err == nil || !strings.Contains(err.Error(), watch+" is for the gateway alone: leave its policy out") {
		t.Errorf("with a policy in the file: got %v, want a refusal", err)
	}
}

// A service whose proto says nothing of policies may have many methods: the problem names
// each, because the file needs their names.
func TestEveryMethodWithoutAPolicyIsNamed(t *testing.T) {
	t.Parallel()
	var names []string
	_, err := load(t, entry(), func(f *descriptorpb.FileDescriptorProto) {
		for _, service := range f.GetService() {
			for _, method := range service.GetMethod() {
				method.Options = nil
				names = append(names, "shop.v1."+service.GetName()+"/"+method.GetName())
			}
		}
	})
	for _, name := range names {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	text := entry("    policy:", "      shop.v1.ShopService/GetThings:", "        access: {anyone: {}}")
	if _, err := load(t, text, nil); err == nil || !strings.Contains(err.Error(), "shop.v1.ShopService/GetThing,") || strings.Contains(err.Error(), "AdminService") {
		t.Errorf("a misspelt method: got %v, want those of its service", err)
	}
}
