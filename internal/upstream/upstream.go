package upstream

import (
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"gatehouse/internal/policy"

	policyv1 "gatehouse/gen/policy/v1"
)

// Protocol is the RPC protocol that an upstream speaks.
type Protocol string

// Protocols.
const (
	Connect Protocol = "connect"
	GRPC    Protocol = "grpc"
)

// Set is all upstreams of a gateway. It does not change.
type Set struct {
	Upstreams []*Upstream
}

// Upstream is one service of the application.
type Upstream struct {
	// Name is the audience of its identity tokens and its label in logs and metrics.
	Name string
	// URLs are those of its copies, separated by commas.
	URLs     string
	Protocol Protocol
	// HTTP is the version of HTTP that it speaks: "1.1", "2", or "auto" to find out.
	HTTP string
	// Reasons are those of its errors that may reach callers.
	Reasons []string
	// Lifecycle says which account events it wants: "", "deletions" or "all"; and
	// LifecycleFields which fields of an account they carry besides its state.
	Lifecycle       string
	LifecycleFields []string
	// Person says that it holds data about people.
	Person bool
	// CredentialFile holds the secret with which it reads account events.
	CredentialFile string

	// Methods are the published methods, in the order of the descriptors.
	Methods []Method
	// Unpublished are the procedures of the other methods: nobody can call them.
	Unpublished []string

	credentials []credential
	kinds       []string // of the cache tags of its methods

	files      *protoregistry.Files            // of the published methods
	services   map[protoreflect.FullName]bool  // all that its descriptors have
	pinned     *descriptorpb.FileDescriptorSet // as it was read
	path       string                          // of the descriptors; empty when they came by reflection
	line       int                             // in the file
	policyLine map[string]int                  // of the file's policies, by procedure
}

// Method is a published method.
type Method struct {
	// Spec describes it with its policy, whether the proto or the file states it.
	Spec connect.Spec
	// Descriptor is the schema in Spec.
	Descriptor protoreflect.MethodDescriptor
}

// ReasonsOf returns the reasons that the errors of a published method may have in
// addition to the gateway's own, and whether an upstream publishes the method.
func (s *Set) ReasonsOf(method *policy.Method) (reasons []string, published bool) {
	if s == nil {
		return nil, false
	}
	for _, u := range s.Upstreams {
		for _, m := range u.Methods {
			if m.Spec.Procedure == method.Procedure {
				return u.Reasons, true
			}
		}
	}
	return nil, false
}

// Specs returns the published methods of all upstreams.
func (s *Set) Specs() []connect.Spec {
	var specs []connect.Spec
	if s == nil {
		return nil
	}
	for _, u := range s.Upstreams {
		for _, m := range u.Methods {
			specs = append(specs, m.Spec)
		}
	}
	return specs
}

// Serves reports whether the upstream's descriptors have a proto service, published or
// not.
func (u *Upstream) Serves(service protoreflect.FullName) bool { return u.services[service] }

// procedureOf returns the path of a method.
func procedureOf(service protoreflect.FullName, method protoreflect.Name) string {
	return fmt.Sprintf("/%s/%s", service, method)
}

// specOf describes a method to connect.
func specOf(m protoreflect.MethodDescriptor) connect.Spec {
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	spec := connect.Spec{
		Procedure: procedureOf(m.Parent().FullName(), m.Name()), Schema: m,
		IdempotencyLevel: connect.IdempotencyLevel(options.GetIdempotencyLevel()),
	}
	if m.IsStreamingServer() {
		spec.StreamType |= connect.StreamTypeServer
	}
	if m.IsStreamingClient() {
		spec.StreamType |= connect.StreamTypeClient
	}
	return spec
}

// policyOf returns the policy that a method's options state; nil for none.
func policyOf(options *descriptorpb.MethodOptions) *policyv1.Method {
	if options == nil || !proto.HasExtension(options, policyv1.E_Method) {
		return nil
	}
	policy, _ := proto.GetExtension(options, policyv1.E_Method).(*policyv1.Method)
	return policy
}

// Problem is one mistake, and how to fix it.
type Problem struct {
	// Line is in the file; zero where no line is to blame.
	Line int
	// Text says what is wrong.
	Text string
	// Fix says what to do.
	Fix string
}

func (p Problem) Error() string {
	text := p.Text
	if p.Line > 0 {
		text = fmt.Sprintf("line %d: %s", p.Line, text)
	}
	if p.Fix != "" {
		text += ": " + p.Fix
	}
	return text
}

// Problems are all mistakes of a file.
type Problems []Problem

func (p Problems) Error() string {
	var texts []string
	for _, one := range p {
		texts = append(texts, one.Error())
	}
	return strings.Join(texts, "\n")
}

func (p *Problems) add(line int, fix, format string, args ...any) {
	*p = append(*p, Problem{Line: line, Text: fmt.Sprintf(format, args...), Fix: fix})
}

// err is nil when there are none.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
