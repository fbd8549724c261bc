package upstream

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// prune returns the files with the published methods only, and with the messages and
// enums that these need. Comments stay where they belong.
func prune(files []*descriptorpb.FileDescriptorProto, linked *protoregistry.Files, published func(procedure string) bool) []*descriptorpb.FileDescriptorProto {
	needed := reachable(linked, published)
	var pruned []*descriptorpb.FileDescriptorProto
	for _, file := range files {
		file = proto.CloneOf(file)
		name := func(simple string) protoreflect.FullName {
			return protoreflect.FullName(strings.Trim(file.GetPackage()+"."+simple, "."))
		}
		keep := &kept{messages: map[int32]int32{}, enums: map[int32]int32{}, services: map[int32]int32{}, methods: map[int32]map[int32]int32{}}
		file.MessageType = keepIf(file.GetMessageType(), keep.messages, func(m *descriptorpb.DescriptorProto) bool { return needed[name(m.GetName())] })
		file.EnumType = keepIf(file.GetEnumType(), keep.enums, func(e *descriptorpb.EnumDescriptorProto) bool { return needed[name(e.GetName())] })
		for i, service := range file.GetService() {
			methods := map[int32]int32{}
			keep.methods[int32(i)] = methods //nolint:gosec // an index
			service.Method = keepIf(service.GetMethod(), methods, func(m *descriptorpb.MethodDescriptorProto) bool {
				return published(procedureOf(name(service.GetName()), protoreflect.Name(m.GetName())))
			})
		}
		file.Service = keepIf(file.GetService(), keep.services, func(s *descriptorpb.ServiceDescriptorProto) bool { return len(s.GetMethod()) > 0 })
		// Extensions are options of other tools: what counts was read already.
		file.Extension = nil
		eachMessage(file.GetMessageType(), func(m *descriptorpb.DescriptorProto) { m.Extension = nil })
		if file.GetSourceCodeInfo() != nil {
			file.SourceCodeInfo.Location = slices.DeleteFunc(file.SourceCodeInfo.Location, func(l *descriptorpb.SourceCodeInfo_Location) bool { return !keep.move(l) })
		}
		pruned = append(pruned, file)
	}
	return pruned
}

// reachable returns the top-level messages and enums that published methods need, with
// all that is declared in them.
func reachable(files *protoregistry.Files, published func(procedure string) bool) map[protoreflect.FullName]bool {
	needed := map[protoreflect.FullName]bool{}
	var visit func(protoreflect.Descriptor)
	var fieldsOf func(protoreflect.MessageDescriptor)
	visit = func(d protoreflect.Descriptor) {
		for {
			parent := d.Parent()
			if _, top := parent.(protoreflect.FileDescriptor); top || parent == nil {
				break
			}
			d = parent
		}
		if needed[d.FullName()] {
			return
		}
		needed[d.FullName()] = true
		if message, ok := d.(protoreflect.MessageDescriptor); ok {
			fieldsOf(message)
		}
	}
	fieldsOf = func(message protoreflect.MessageDescriptor) {
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			if field.Message() != nil {
				visit(field.Message())
			}
			if field.Enum() != nil {
				visit(field.Enum())
			}
		}
		for i := range message.Messages().Len() {
			fieldsOf(message.Messages().Get(i))
		}
	}
	for file := range filesOf(files) {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				if m := methods.Get(j); published(procedureOf(m.Parent().FullName(), m.Name())) {
					visit(m.Input())
					visit(m.Output())
				}
			}
		}
	}
	return needed
}

func filesOf(files *protoregistry.Files) func(func(protoreflect.FileDescriptor) bool) {
	return func(yield func(protoreflect.FileDescriptor) bool) { files.RangeFiles(yield) }
}

// keepIf returns the items that keep wants, and notes where each has moved.
func keepIf[T any](items []T, moved map[int32]int32, keep func(T) bool) []T {
	var left []T
	for i, item := range items {
		if keep(item) {
			moved[int32(i)] = int32(len(left)) //nolint:gosec // an index
			left = append(left, item)
		}
	}
	return left
}

// kept maps the indices of a file's declarations to those after pruning.
type kept struct {
	messages, enums, services map[int32]int32
	methods                   map[int32]map[int32]int32 // by the service's old index
}

// The numbers of fields in descriptor.proto, by which a location is addressed.
const (
	pathMessage    = 4
	pathEnum       = 5
	pathService    = 6
	pathExtension  = 7
	pathMethod     = 2 // within a service
	lengthOfMember = 4 // of a path to a method
)

// move gives a location its new path. It reports false for that of a declaration that was removed.
func (k *kept) move(location *descriptorpb.SourceCodeInfo_Location) bool {
	path := location.GetPath()
	if len(path) < 2 {
		return true
	}
	var index map[int32]int32
	switch path[0] {
	case pathMessage:
		index = k.messages
	case pathEnum:
		index = k.enums
	case pathService:
		index = k.services
		if len(path) >= lengthOfMember && path[2] == pathMethod {
			to, ok := k.methods[path[1]][path[3]]
			if !ok {
				return false
			}
			path[3] = to
		}
	case pathExtension:
		return false
	default:
		return true
	}
	to, ok := index[path[1]]
	path[1] = to
	return ok
}
