package passthrough

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/vanguard"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/upstream"
)

// restPrefix is where every REST path begins.
const restPrefix = "/api/"

// reservedServices are names of services that the gateway serves besides its methods,
// and the folders of its pages and REST paths, which a service without a package could
// have as its name.
var reservedServices = []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "account", "api", "assets", "auth", "console", "link", "oauth"}

// route is a REST path, and who serves it.
type route struct {
	verb, path, owner string
	segments          []string
}

// CheckRoutes reports names of services and REST paths of upstreams that are taken, by
// methods of the gateway or of another upstream, and paths that cannot be served. Its
// error is of type [upstream.Problems].
func CheckRoutes(own []connect.Spec, set *upstream.Set) error {
	var problems upstream.Problems
	owners := map[string]string{}
	for _, service := range reservedServices {
		owners[service] = "the gateway"
	}
	packages := map[protoreflect.FullName]bool{}
	var routes []route
	for _, spec := range own {
		method, ok := spec.Schema.(protoreflect.MethodDescriptor)
		if !ok {
			continue
		}
		owners[string(method.Parent().FullName())] = "the gateway"
		packages[method.ParentFile().Package()] = true
		if r, ok, _ := routeOf(method, "the gateway"); ok {
			routes = append(routes, r)
		}
	}
	for _, u := range set.Upstreams {
		for _, method := range u.Methods {
			service := string(method.Descriptor.Parent().FullName())
			if owner := owners[service]; owner != "" && owner != u.Name {
				problems = append(problems, upstream.Problem{Text: fmt.Sprintf("upstream %s publishes %s, and %s has that name", u.Name, service, owner), Fix: "rename the proto package or the service"})
			}
			if pkg := method.Descriptor.ParentFile().Package(); owners[service] == "" && packages[pkg] {
				problems = append(problems, upstream.Problem{Text: fmt.Sprintf("upstream %s publishes %s, and %s is a package of the gateway", u.Name, service, pkg), Fix: "rename the proto package"})
			}
			owners[service] = u.Name
			r, ok, fault := routeOf(method.Descriptor, u.Name)
			if fault != "" {
				problems = append(problems, upstream.Problem{Text: fmt.Sprintf("upstream %s: %s %s", u.Name, method.Spec.Procedure, fault), Fix: "change its google.api.http option, or remove it"})
			}
			if !ok {
				continue
			}
			if i := slices.IndexFunc(routes, r.overlaps); i >= 0 {
				problems = append(problems, upstream.Problem{Text: fmt.Sprintf("upstream %s: %s has the REST path %s %s, and %s serves %s there", u.Name, method.Spec.Procedure, r.verb, r.path, routes[i].owner, routes[i].path), Fix: "choose a path of its own, such as " + restPrefix + "v1/" + u.Name + "/…"})
				continue
			}
			routes = append(routes, r)
		}
	}
	for _, u := range set.Upstreams {
		if err := checkTemplates(u); err != nil && len(problems) == 0 {
			problems = append(problems, upstream.Problem{Text: fmt.Sprintf("upstream %s has a REST path that can't be served: %v", u.Name, err), Fix: "change its google.api.http option, or remove it"})
		}
	}
	problems = slices.CompactFunc(problems, func(a, b upstream.Problem) bool { return a == b })
	if len(problems) == 0 {
		return nil
	}
	return problems
}

// checkTemplates finds what is wrong with the templates of REST paths.
func checkTemplates(u *upstream.Upstream) error {
	var services []*vanguard.Service
	seen := map[protoreflect.FullName]bool{}
	for _, method := range u.Methods {
		schema, ok := method.Descriptor.Parent().(protoreflect.ServiceDescriptor)
		if ok && !seen[schema.FullName()] {
			seen[schema.FullName()] = true
			services = append(services, vanguard.NewServiceWithSchema(schema, http.NotFoundHandler()))
		}
	}
	_, err := vanguard.NewTranscoder(services)
	return err
}

// routeOf returns the REST path of a method, and whether it has one that can be served.
func routeOf(method protoreflect.MethodDescriptor, owner string) (_ route, ok bool, fault string) {
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return route{}, false, ""
	}
	r := route{owner: owner}
	for _, one := range []struct{ verb, path string }{
		{"GET", rule.GetGet()}, {"PUT", rule.GetPut()}, {"POST", rule.GetPost()}, {"DELETE", rule.GetDelete()}, {"PATCH", rule.GetPatch()}, {rule.GetCustom().GetKind(), rule.GetCustom().GetPath()},
	} {
		if one.path != "" {
			r.verb, r.path = one.verb, one.path
		}
	}
	switch {
	case method.IsStreamingClient() || method.IsStreamingServer():
		return r, false, "is a stream and has a REST path: only methods with one answer can have one"
	case len(rule.GetAdditionalBindings()) > 0:
		return r, false, "has more than one REST path"
	case !strings.HasPrefix(r.path, restPrefix):
		return r, false, fmt.Sprintf("has the REST path %q: it must begin with %s", r.path, restPrefix)
	case strings.Contains(r.path, "%") || strings.Contains(r.path, "/."):
		return r, false, fmt.Sprintf("has the REST path %q: it must be written as it is, without %% and dots at the beginning of a segment", r.path)
	case rule.GetCustom() != nil:
		return r, false, fmt.Sprintf("has the HTTP method %s, which REST paths do not have", r.verb)
	}
	r.segments = segmentsOf(r.path)
	return r, true, ""
}

const (
	anySegment = "*"
	anyRest    = "**"
)

// segmentsOf splits a path template, with * for a variable.
func segmentsOf(path string) []string {
	path, verb, _ := strings.Cut(path, ":")
	var segments []string
	for rest := strings.TrimPrefix(path, "/"); rest != ""; {
		var segment string
		if strings.HasPrefix(rest, "{") {
			variable, after, _ := strings.Cut(rest[1:], "}")
			_, pattern, ok := strings.Cut(variable, "=")
			if !ok {
				pattern = anySegment
			}
			segments = append(segments, strings.Split(pattern, "/")...)
			rest = strings.TrimPrefix(after, "/")
			continue
		}
		segment, rest, _ = strings.Cut(rest, "/")
		segments = append(segments, segment)
	}
	return append(segments, ":"+verb)
}

// overlaps reports whether one request could mean both routes.
func (r route) overlaps(other route) bool {
	switch {
	case r.verb != other.verb:
		return false
	case r.owner == other.owner: // what stands there literally comes first
		return slices.Equal(r.segments, other.segments)
	}
	return matches(r.segments, other.segments)
}

func matches(a, b []string) bool {
	switch {
	case len(a) == 0 || len(b) == 0:
		return len(a) == len(b)
	case a[0] == anyRest || b[0] == anyRest:
		return a[len(a)-1] == b[len(b)-1]
	case a[0] == b[0]:
	case strings.HasPrefix(a[0], ":") || strings.HasPrefix(b[0], ":"):
		return false
	case a[0] != anySegment && b[0] != anySegment:
		return false
	}
	return matches(a[1:], b[1:])
}
