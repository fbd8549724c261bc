package bff

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/upstream"
	"gatehouse/internal/upstreamtest"
)

// withoutPackage makes the file one without a package, with one method.
func withoutPackage(service, method string) func(*descriptorpb.FileDescriptorProto) {
	return func(file *descriptorpb.FileDescriptorProto) {
		options := &descriptorpb.MethodOptions{}
		proto.SetExtension(options, policyv1.E_Method, &policyv1.Method{Access: &policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}}})
		file.Package, file.SourceCodeInfo, file.EnumType = nil, nil, nil
		file.MessageType = []*descriptorpb.DescriptorProto{{Name: proto.String("M")}}
		file.Service = []*descriptorpb.ServiceDescriptorProto{{Name: proto.String(service), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String(method), InputType: proto.String(".M"), OutputType: proto.String(".M"), Options: options},
		}}}
	}
}

// loadEdited loads the shop with a change of its descriptors.
func loadEdited(t *testing.T, edit func(*descriptorpb.FileDescriptorProto)) *upstream.Set {
	t.Helper()
	file, folder := upstreamtest.File(), t.TempDir()
	edit(file)
	upstreamtest.Write(t, filepath.Join(folder, "shop.binpb"), upstreamtest.Encode(file))
	set, err := upstream.Load(upstream.Config{Path: upstreamtest.Write(t, filepath.Join(folder, "u.yaml"), []byte("upstreams:\n  shop: {url: \"http://a\", descriptors: shop.binpb}\n"))})
	wantNoError(t, "load", err)
	return set
}

// No service of an upstream can stand at the path of a page.
func TestThePathsOfPagesAreReserved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	identifier := regexp.MustCompile(`^[A-Za-z_]\w*$`)
	for _, page := range h.gateway.mux(Config{PublicURL: publicURL}).Pages() {
		_, path, _ := strings.Cut(page.Pattern, "/")
		folder, below, _ := strings.Cut(path, "/")
		if below == "" && !strings.HasSuffix(path, "/") || !identifier.MatchString(folder) {
			continue // no procedure has this path
		}
		if err := CheckUpstreams(loadEdited(t, withoutPackage(folder, "Do")), backends(nil, nil)...); err == nil {
			t.Errorf("a service named %s may take the place of the page %s", folder, page.Pattern)
		}
	}
}

// A name or a path that is in use or cannot be served stops the start.
func TestNamesAndPathsInUseStopTheStart(t *testing.T) {
	t.Parallel()
	path := func(rule *annotations.HttpRule) func(*descriptorpb.FileDescriptorProto) {
		return func(file *descriptorpb.FileDescriptorProto) {
			proto.SetExtension(file.GetService()[1].GetMethod()[1].GetOptions(), annotations.E_Http, rule)
		}
	}
	get := func(template string) func(*descriptorpb.FileDescriptorProto) {
		return path(&annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: template}})
	}
	for name, test := range map[string]struct {
		edit func(*descriptorpb.FileDescriptorProto)
		want string
	}{
		"none":                              {func(*descriptorpb.FileDescriptorProto) {}, ""},
		"a path of the gateway":             {get("/api/v1/users/{user_id}"), "has the REST path GET /api/v1/users/{user_id}, and the gateway serves /api/v1/users/{user_id} there"},
		"a path that hides one":             {get("/api/v1/users/someone"), "and the gateway serves /api/v1/users/{user_id} there"},
		"a path that covers one":            {get("/api/v1/{thing_id}"), "and the gateway serves /api/v1/"},
		"a path that covers all":            {get("/api/{thing_id=**}"), "and the gateway serves /api/v1/"},
		"a path below one":                  {get("/api/v1/users/{user_id}/things/{thing_id}"), ""},
		"another verb at one":               {path(&annotations.HttpRule{Pattern: &annotations.HttpRule_Put{Put: "/api/v1/me"}, Body: "*"}), ""},
		"a path twice":                      {get("/api/v1/shop/things"), "and shop serves /api/v1/shop/things there"},
		"a path elsewhere":                  {get("/things"), `has the REST path "/things": it must begin with /api/`},
		"a path that is none":               {get("/api/v1/shop/x/{thing_id"), "has a REST path that can't be served"},
		"a path with a field that it lacks": {get("/api/v1/shop/x/{owner}"), "has a REST path that can't be served"},
		"a path with an escape":             {get("/api/v1/%6de"), "it must be written as it is"},
		"a path that goes up":               {get("/api/v1/../v1/me"), "it must be written as it is"},
		"two paths":                         {path(&annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/api/v1/a"}, AdditionalBindings: []*annotations.HttpRule{{Pattern: &annotations.HttpRule_Get{Get: "/api/v1/b"}}}}), "has more than one REST path"},
		"a verb of its own":                 {path(&annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{Custom: &annotations.CustomHttpPattern{Kind: "PURGE", Path: "/api/v1/a"}}}), "has the HTTP method PURGE"},
		"a stream with a path": {func(file *descriptorpb.FileDescriptorProto) {
			proto.SetExtension(file.GetService()[1].GetMethod()[4].GetOptions(), annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/api/v1/w"}})
		}, "is a stream and has a REST path"},
		"a service of the gateway": {func(file *descriptorpb.FileDescriptorProto) {
			file.Package = proto.String("bff.v1")
			file.MessageType = []*descriptorpb.DescriptorProto{{Name: proto.String("M")}}
			options := &descriptorpb.MethodOptions{}
			proto.SetExtension(options, policyv1.E_Method, &policyv1.Method{Access: &policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}}})
			file.Service = []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("UserService"), Method: []*descriptorpb.MethodDescriptorProto{
				{Name: proto.String("GetUser"), InputType: proto.String(".bff.v1.M"), OutputType: proto.String(".bff.v1.M"), Options: options},
			}}}
			file.SourceCodeInfo = nil
		}, "publishes bff.v1.UserService, and the gateway has that name: rename"},
		"a service in the gateway's package": {func(file *descriptorpb.FileDescriptorProto) {
			withoutPackage("Shop", "Do")(file)
			file.Package = proto.String("bff.v1")
			method := file.GetService()[0].GetMethod()[0]
			method.InputType, method.OutputType = proto.String(".bff.v1.M"), proto.String(".bff.v1.M")
		}, "publishes bff.v1.Shop, and bff.v1 is a package of the gateway: rename"},
		"a service at the folder of pages":    {withoutPackage("assets", "Do"), "publishes assets, and the gateway has that name: rename"},
		"a service at the pages of providers": {withoutPackage("auth", "start"), "publishes auth, and the gateway has that name: rename"},
		"a service at the link pages":         {withoutPackage("link", "reset"), "publishes link, and the gateway has that name: rename"},
		"a service at the REST paths":         {withoutPackage("api", "v1"), "publishes api, and the gateway has that name: rename"},
		"a service without a package":         {withoutPackage("Shop", "Do"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := loadEdited(t, test.edit)
			service, err := New(Config{Backends: backends(newBackend().reach(t, "auth", options{}), newBackend().reach(t, "users", options{})), PublicURL: publicURL, Upstreams: set, Identity: identityIssuer(t), Logger: discard, CacheBytes: CacheNothing})
			if err == nil {
				service.verifier.Stop()
				service.cache.Close()
			}
			if _, ok := errors.AsType[upstream.Problems](err); test.want != "" && (!ok || !strings.Contains(err.Error(), test.want)) || test.want == "" && err != nil {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
