package upstream

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	// The options that a schema may use, linked in so that they are read as such.
	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // likewise its messages
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// maxDescriptorBytes bounds a descriptor set.
const maxDescriptorBytes = 16 << 20

// describer reads the descriptors and policies of one upstream.
type describer struct {
	upstream *Upstream
	problems *Problems
}

func (d *describer) add(fix, format string, args ...any) {
	d.problems.add(d.upstream.line, fix, "upstream "+d.upstream.Name+": "+format, args...)
}

// describe fills in the upstream by its descriptor set and the policies of the file.
func (d *describer) describe(data []byte, policies *yaml.Node) {
	set, err := parseSet(data)
	if err != nil {
		d.add("write them with buf build, or with protoc --include_imports --include_source_info --descriptor_set_out", "its descriptors can't be read: %v", err)
		return
	}
	d.upstream.pinned = proto.CloneOf(set)
	d.checkOptions(set)
	own := ownFiles(set)
	files, err := link(own)
	if err != nil {
		d.add("write them again with their imports, with buf build, or with protoc --include_imports", "its descriptors are incomplete or contradict each other: %v", err)
		return
	}
	byProcedure := d.survey(own)
	d.addPolicies(byProcedure, policies)
	d.checkServices()
	pruned := prune(own, files, func(procedure string) bool { return byProcedure[procedure].published() })
	if d.upstream.files, err = link(pruned); err != nil {
		d.add("report this as a fault of Gatehouse", "its published descriptors can't be linked: %v", err)
		return
	}
	d.publish(pruned, byProcedure)
	d.compile()
}

// parseSet parses a descriptor set.
func parseSet(data []byte) (*descriptorpb.FileDescriptorSet, error) {
	if len(data) > maxDescriptorBytes {
		return nil, fmt.Errorf("they have %d bytes, more than %d", len(data), maxDescriptorBytes)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, errors.New("they are no descriptor set")
	}
	if len(set.GetFile()) == 0 {
		return nil, errors.New("they hold no file")
	}
	for _, file := range set.GetFile() {
		if file.GetName() == "" || len(file.ProtoReflect().GetUnknown()) > 0 && file.GetPackage() == "" && len(file.GetService())+len(file.GetMessageType()) == 0 {
			return nil, errors.New("they are no descriptor set")
		}
	}
	return set, nil
}

// isLinked reports whether a file is one whose linked form counts: the files that
// schemas import to say something to tools.
func isLinked(path string) bool {
	for _, folder := range []string{"google/protobuf/", "google/api/", "google/rpc/", "buf/validate/", "policy/v1/"} {
		if strings.HasPrefix(path, folder) {
			_, err := protoregistry.GlobalFiles.FindFileByPath(path)
			return err == nil
		}
	}
	return false
}

func ownFiles(set *descriptorpb.FileDescriptorSet) []*descriptorpb.FileDescriptorProto {
	var own []*descriptorpb.FileDescriptorProto
	for _, file := range set.GetFile() {
		if !isLinked(file.GetName()) {
			own = append(own, file)
		}
	}
	return own
}

// resolver finds own files first, then those that are linked in.
type resolver struct{ own *protoregistry.Files }

func (r resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := r.own.FindFileByPath(path); err == nil || !isLinked(path) {
		return file, err
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (r resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := r.own.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil || !isLinked(found.ParentFile().Path()) {
		return nil, protoregistry.NotFound
	}
	return found, nil
}

// link makes descriptors of files, in the order of their imports.
func link(files []*descriptorpb.FileDescriptorProto) (*protoregistry.Files, error) {
	own := new(protoregistry.Files)
	byPath := map[string]*descriptorpb.FileDescriptorProto{}
	for _, file := range files {
		if byPath[file.GetName()] != nil {
			return nil, fmt.Errorf("%s is there twice", file.GetName())
		}
		byPath[file.GetName()] = file
	}
	const (
		begun = 1
		done  = 2
	)
	state := map[string]int{}
	var visit func(*descriptorpb.FileDescriptorProto) error
	visit = func(file *descriptorpb.FileDescriptorProto) error {
		switch state[file.GetName()] {
		case done:
			return nil
		case begun:
			return fmt.Errorf("%s imports itself by way of others", file.GetName())
		}
		state[file.GetName()] = begun
		for _, path := range file.GetDependency() {
			switch needed := byPath[path]; {
			case needed != nil:
				if err := visit(needed); err != nil {
					return err
				}
			case !isLinked(path):
				return fmt.Errorf("%s imports %s, which they lack", file.GetName(), path)
			}
		}
		if isReserved(file.GetPackage()) {
			return fmt.Errorf("%s declares the package %s, which is not its own", file.GetName(), file.GetPackage())
		}
		described, err := protodesc.NewFile(file, resolver{own})
		if err != nil {
			return err
		}
		state[file.GetName()] = done
		return own.RegisterFile(described)
	}
	for _, file := range files {
		if err := visit(file); err != nil {
			return nil, err
		}
	}
	return own, nil
}

// isReserved reports whether the messages of a package have a meaning to the gateway.
func isReserved(name string) bool {
	return slices.Contains([]string{"google.protobuf", "google.api", "google.rpc", "buf.validate", "policy.v1", "grpc.health.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha"}, name)
}

// ourOptions are the options that count, by what they extend and their number.
var ourOptions = map[string]map[int32]protoreflect.FullName{
	".google.protobuf.MethodOptions":  {int32(policyv1.E_Method.TypeDescriptor().Number()): policyv1.E_Method.TypeDescriptor().FullName(), int32(annotations.E_Http.TypeDescriptor().Number()): annotations.E_Http.TypeDescriptor().FullName()},
	".google.protobuf.FieldOptions":   {int32(policyv1.E_Field.TypeDescriptor().Number()): policyv1.E_Field.TypeDescriptor().FullName(), int32(validate.E_Field.TypeDescriptor().Number()): validate.E_Field.TypeDescriptor().FullName()},
	".google.protobuf.MessageOptions": {int32(validate.E_Message.TypeDescriptor().Number()): validate.E_Message.TypeDescriptor().FullName()},
	".google.protobuf.OneofOptions":   {int32(validate.E_Oneof.TypeDescriptor().Number()): validate.E_Oneof.TypeDescriptor().FullName()},
}

// checkOptions refuses options that would be misread: of others with our numbers, and
// of a newer version of ours, which may restrict what this version would let pass.
func (d *describer) checkOptions(set *descriptorpb.FileDescriptorSet) {
	for _, file := range set.GetFile() {
		extensions := slices.Clone(file.GetExtension())
		eachMessage(file.GetMessageType(), func(m *descriptorpb.DescriptorProto) { extensions = append(extensions, m.GetExtension()...) })
		for _, extension := range extensions {
			want := ourOptions[extension.GetExtendee()][extension.GetNumber()]
			name := protoreflect.FullName(strings.Trim(file.GetPackage()+"."+extension.GetName(), "."))
			if want != "" && name != want {
				d.add("give it another number", "%s declares the option %s with the number %d, which is %s's", file.GetName(), name, extension.GetNumber(), want)
			}
		}
		if isLinked(file.GetName()) {
			continue
		}
		d.checkKnown(file)
	}
}

// checkKnown refuses policies and rules that this version understands in part only.
func (d *describer) checkKnown(file *descriptorpb.FileDescriptorProto) {
	refuse := func(options proto.Message, extension protoreflect.ExtensionType, what, name string) {
		if !proto.HasExtension(options, extension) {
			return
		}
		if said, ok := proto.GetExtension(options, extension).(proto.Message); ok && hasUnknown(said.ProtoReflect()) {
			d.add("use the proto files of this version of Gatehouse and no predefined rules of your own, or upgrade Gatehouse", "the %s of %s.%s says what this version does not know", what, file.GetPackage(), name)
		}
	}
	for _, service := range file.GetService() {
		for _, method := range service.GetMethod() {
			refuse(method.GetOptions(), policyv1.E_Method, "policy", service.GetName()+"."+method.GetName())
		}
	}
	eachMessage(file.GetMessageType(), func(m *descriptorpb.DescriptorProto) {
		refuse(m.GetOptions(), validate.E_Message, "rule", m.GetName())
		for _, oneof := range m.GetOneofDecl() {
			refuse(oneof.GetOptions(), validate.E_Oneof, "rule", m.GetName()+"."+oneof.GetName())
		}
		for _, field := range m.GetField() {
			refuse(field.GetOptions(), policyv1.E_Field, "policy", m.GetName()+"."+field.GetName())
			refuse(field.GetOptions(), validate.E_Field, "rule", m.GetName()+"."+field.GetName())
		}
	})
}

func eachMessage(messages []*descriptorpb.DescriptorProto, visit func(*descriptorpb.DescriptorProto)) {
	for _, message := range messages {
		visit(message)
		eachMessage(message.GetNestedType(), visit)
	}
}

// hasUnknown reports whether a message, or one in it, has fields that are not known.
func hasUnknown(message protoreflect.Message) bool {
	found := len(message.GetUnknown()) > 0
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() || field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				found = found || hasUnknown(value.List().Get(i).Message())
			}
		default:
			found = found || hasUnknown(value.Message())
		}
		return !found
	})
	return found
}

// candidate is a method of the upstream, and whether it is published.
type candidate struct {
	method *descriptorpb.MethodDescriptorProto
	// internal says that its own policy names services that may call it, or that it is a
	// method of the contract between the gateway and a service.
	internal bool
}

func (c *candidate) published() bool {
	return c != nil && !c.internal && policyOf(c.method.GetOptions()) != nil
}

// survey finds the methods.
func (d *describer) survey(files []*descriptorpb.FileDescriptorProto) map[string]*candidate {
	byProcedure := map[string]*candidate{}
	d.upstream.services = map[protoreflect.FullName]bool{}
	for _, file := range files {
		for _, service := range file.GetService() {
			name := protoreflect.FullName(strings.Trim(file.GetPackage()+"."+service.GetName(), "."))
			d.upstream.services[name] = true
			for _, method := range service.GetMethod() {
				c := &candidate{method: method}
				access := policyOf(method.GetOptions()).GetAccess()
				// What a service of this package answers is for the gateway alone.
				c.internal = file.GetPackage() == contractPackage || access.GetServices() != nil || access.GetUpstreams() != nil
				byProcedure[procedureOf(name, protoreflect.Name(method.GetName()))] = c
			}
		}
	}
	return byProcedure
}

// checkServices checks that the upstream serves what the file says that it does.
func (d *describer) checkServices() {
	if d.upstream.Person && !d.upstream.Serves(personService) {
		d.add("implement service.v1.PersonService and put it in the descriptors, or set person: false", "it holds data about people, and its descriptors have no %s to export and erase them", personService)
	}
}

// publish makes the list of published methods, and that of the others.
func (d *describer) publish(files []*descriptorpb.FileDescriptorProto, byProcedure map[string]*candidate) {
	for procedure, c := range byProcedure {
		if !c.published() {
			d.upstream.Unpublished = append(d.upstream.Unpublished, procedure)
		}
	}
	slices.Sort(d.upstream.Unpublished)
	for _, file := range files {
		described, err := d.upstream.files.FindFileByPath(file.GetName())
		if err != nil {
			continue
		}
		for i := range described.Services().Len() {
			methods := described.Services().Get(i).Methods()
			for j := range methods.Len() {
				d.upstream.Methods = append(d.upstream.Methods, Method{Spec: specOf(methods.Get(j)), Descriptor: methods.Get(j)})
			}
		}
	}
	if len(d.upstream.Methods) == 0 {
		d.add("add a policy for each method that callers may use, in its proto or in the file: "+strings.Join(methodNames(byProcedure), ", "), "it publishes no method, since nothing says who may call one")
	}
}

// compile finds contradictions in the policies.
func (d *describer) compile() {
	if len(d.upstream.Methods) == 0 {
		return
	}
	var specs []connect.Spec
	for _, m := range d.upstream.Methods {
		if m.Descriptor.IsStreamingClient() {
			d.problems.add(d.lineOf(m.Spec.Procedure), "leave its policy out: methods with one request can be published", "upstream %s: %s takes a stream of requests", d.upstream.Name, m.Spec.Procedure)
			continue
		}
		specs = append(specs, m.Spec)
	}
	compiled, err := policy.Compile(specs, rpc.DefaultLimit, "")
	for _, one := range leaves(err) {
		d.problems.add(d.lineOf(one.Error()), "", "upstream %s: %v", d.upstream.Name, one)
	}
	for _, m := range compiled {
		if m != nil && err == nil {
			d.checkPolicy(m)
			d.noteKinds(m)
		}
	}
}

// noteKinds collects the kinds of a method's cache tags.
func (d *describer) noteKinds(m *policy.Method) {
	if m.Cache == nil {
		return
	}
	for _, tag := range m.Cache.Tags {
		d.upstream.kinds = append(d.upstream.kinds, tag.Kind())
	}
	slices.Sort(d.upstream.kinds)
	d.upstream.kinds = slices.Compact(d.upstream.kinds)
}

// lineOf returns the line of the file's policy that an error's text begins with; that
// of the upstream where the proto states the policy.
func (d *describer) lineOf(text string) int {
	procedure, _, _ := strings.Cut(text, ":")
	if line := d.upstream.policyLine[procedure]; line > 0 {
		return line
	}
	return d.upstream.line
}

// leaves returns the errors that were joined.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // of the outermost alone
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, leaves(one)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// checkPolicy refuses what the gateway cannot enforce for an upstream.
func (d *describer) checkPolicy(m *policy.Method) {
	line := d.lineOf(m.Procedure)
	switch {
	case m.Access.GetServices() != nil, m.Access.GetUpstreams() != nil:
		d.problems.add(line, "say anyone, signed_in, self or roles", "upstream %s: %s admits services of Gatehouse, and the gateway serves the public", d.upstream.Name, m.Procedure)
	case m.RecentSignIn:
		d.problems.add(line, "leave it out", "upstream %s: %s wants a recent sign-in, which auth decides and an upstream does not ask", d.upstream.Name, m.Procedure)
	case m.Assurance == policyv1.Assurance_ASSURANCE_OWN:
		d.problems.add(line, "say ASSURANCE_TWO, or leave it out", "upstream %s: %s wants the level of the caller's account, which auth decides and an upstream does not ask", d.upstream.Name, m.Procedure)
	}
}
