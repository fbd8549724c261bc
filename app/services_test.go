package app

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"gatehouse/bff"
	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/schema"
)

func TestTheListOfServicesIsConsistent(t *testing.T) {
	t.Parallel()
	names, ports, tells := map[string]bool{}, map[string]string{}, map[string]string{}
	for _, service := range Services() {
		if names[service.Name] {
			t.Errorf("two services are called %s", service.Name)
		}
		names[service.Name] = true
		_, port, err := net.SplitHostPort(service.Listen)
		if err != nil || ports[port] != "" {
			t.Errorf("%s listens on %q by default, want a port of its own; %q has that one (%v)", service.Name, service.Listen, ports[port], err)
		}
		ports[port] = service.Name
		for _, kind := range service.Tells {
			if tells[kind] != "" {
				t.Errorf("%s and %s both tell of changes of %q", tells[kind], service.Name, kind)
			}
			tells[kind] = service.Name
		}
	}
	for _, service := range Services() {
		for _, call := range service.AllCalls() {
			if callee, err := serviceNamed(call.Service); err != nil || len(callee.Serves) == 0 {
				t.Errorf("%s calls %s, which has no methods for other services (%v)", service.Name, call.Service, err)
			}
		}
	}
}

// Every schema that the texts declare belongs to a service, and every service with
// tables has one.
func TestEverySchemaBelongsToAService(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	declared, err := schema.Services(string(text))
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("../*/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, path := range own {
		files[filepath.Base(filepath.Dir(path))] = true
	}
	inRoot := map[string]bool{}
	for _, name := range declared {
		inRoot[name] = true
	}
	for _, service := range Services() {
		if service.RootSchema != inRoot[service.Name] {
			t.Errorf("%s has RootSchema %v; schema.sql declares it: %v", service.Name, service.RootSchema, inRoot[service.Name])
		}
		if (service.Schema != "") != files[service.Name] {
			t.Errorf("%s has a schema of its own: %v; %s/schema.sql is there: %v", service.Name, service.Schema != "", service.Name, files[service.Name])
		}
		delete(inRoot, service.Name)
		delete(files, service.Name)
	}
	for name := range inRoot {
		t.Errorf("schema.sql declares the schema %s, and no service has that name", name)
	}
	for name := range files {
		t.Errorf("%s/schema.sql belongs to no service of the list", name)
	}
	if _, err := (schema.Config{SQL: string(text), Own: ownSchemas()}).Services(); err != nil {
		t.Error(err)
	}
}

// What is served by nobody's definition would be on no page and probed by nobody.
func TestEveryProtoServiceIsServedBySomebody(t *testing.T) {
	t.Parallel()
	served := map[string]string{}
	for _, service := range Services() {
		for _, name := range service.Serves {
			if served[name] != "" {
				t.Errorf("%s and %s both serve %s", served[name], service.Name, name)
			}
			served[name] = service.Name
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		folder, _, _ := strings.Cut(string(file.Package()), ".")
		if _, err := serviceNamed(folder); err != nil || folder == roleBff {
			return true
		}
		for i := range file.Services().Len() {
			name := string(file.Services().Get(i).FullName())
			if served[name] != folder {
				t.Errorf("%s is served by %q, want the service of its folder", name, served[name])
			}
			delete(served, name)
		}
		return true
	})
	for name, service := range served {
		t.Errorf("%s serves %s, which no proto file declares", service, name)
	}
}

func TestTheGatewayCallsTheServicesBehindIt(t *testing.T) {
	t.Parallel()
	services := behindGateway([]Definition{
		{Name: "quiet"}, {Name: "tells", Tells: []string{"note"}}, {Name: "person", Person: true}, {Name: "gateway"},
	})
	var called []string
	for _, call := range services[3].Calls {
		called = append(called, call.Service)
	}
	if want := []string{"tells", "person"}; !slices.Equal(called, want) {
		t.Errorf("the gateway calls %q, want %q", called, want)
	}
}

func TestAServiceThatAsksForAPeerItDoesNotCallIsNotStarted(t *testing.T) {
	t.Parallel()
	h := &host{peers: map[string]*connect.Client{"users": {}}}
	h.peer("users")
	if err := h.check(); err != nil {
		t.Errorf("with a peer that it calls: %v", err)
	}
	h.peer("orders")
	if err := h.check(); err == nil || !strings.Contains(err.Error(), "orders") {
		t.Errorf("with a peer that it does not call: %v, want a refusal that names it", err)
	}
}

// recordedCall is a transport that keeps what is called.
type recordedCall struct{ procedure string }

func (c *recordedCall) NewClientStream(_ context.Context, spec connect.Spec) (connect.ClientStream, error) {
	c.procedure = spec.Procedure
	return nil, errors.New("recorded")
}

func TestADefaultProbeCallsAMethodThatOnlyReads(t *testing.T) {
	t.Parallel()
	for caller, want := range map[string]string{roleBff: "/users.v1.ProfileService/", roleAuth: "/users.v1.AuditService/ListPendingEvents", "strange": ""} {
		call := &recordedCall{}
		service := Definition{Name: roleUsers, Serves: usersService.Serves}
		_, err := service.probeAs(caller)(t.Context(), connect.NewClient(call))
		if !strings.HasPrefix(call.procedure, want) || want == "" && call.procedure != "" {
			t.Errorf("probed as %s: called %q (%v), want %q", caller, call.procedure, err, want)
		}
	}
}

func TestAServiceIsNotStartedUnlessItServesWhatItsDefinitionSays(t *testing.T) {
	t.Parallel()
	feed := func(server *connect.Server) {
		servicev1.RegisterChangeServiceHandler(server, servicev1.UnimplementedChangeServiceHandler{})
	}
	person := func(server *connect.Server) {
		servicev1.RegisterPersonServiceHandler(server, servicev1.UnimplementedPersonServiceHandler{})
	}
	profiles := func(server *connect.Server) {
		usersv1.RegisterProfileServiceHandler(server, usersv1.UnimplementedProfileServiceHandler{})
	}
	serves := []string{"users.v1.ProfileService"}
	for name, test := range map[string]struct {
		definition Definition
		register   func(*connect.Server)
		problem    string
	}{
		"nothing":                    {Definition{}, nil, ""},
		"what it says":               {Definition{Serves: serves}, profiles, ""},
		"more than it says":          {Definition{}, profiles, "it serves users.v1.ProfileService, which its definition does not name"},
		"less than it says":          {Definition{Serves: serves}, feed, "it does not serve users.v1.ProfileService"},
		"a feed":                     {Definition{Tells: []string{"note"}}, feed, ""},
		"no feed":                    {Definition{Tells: []string{"note"}}, nil, "register its feed"},
		"people":                     {Definition{Person: true, Lifecycle: LifecycleDeletions}, person, ""},
		"people who aren't exported": {Definition{Person: true, Lifecycle: LifecycleDeletions}, nil, "implement ExportPerson"},
		"a part of another's":        {Definition{Public: bff.Extension{Me: &bff.MePart{Procedure: "/auth.v1.AccountService/GetAccount"}}}, nil, "does not serve /auth.v1.AccountService/GetAccount, which its part of GetMe calls"},
		"people who aren't erased":   {Definition{Person: true}, person, "set Lifecycle"},
	} {
		err := test.definition.checkServed(test.register)
		if test.problem == "" && err != nil || test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)) {
			t.Errorf("%s: %v, want %q", name, err, test.problem)
		}
	}
}

func TestEveryFieldOfGetMeIsFilled(t *testing.T) {
	t.Parallel()
	if err := bff.CheckMe(backends()); err != nil {
		t.Error(err)
	}
}
