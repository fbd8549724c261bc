package rpc

import (
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// newReflector describes the services of a server. Its methods' own files come first:
// those of an upstream are not linked in.
func newReflector(s *Server) *grpcreflect.Reflector {
	own := new(protoregistry.Files)
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if linked, err := protoregistry.GlobalFiles.FindFileByPath(file.Path()); err == nil && linked == file {
			return
		}
		if _, err := own.FindFileByPath(file.Path()); err == nil {
			return
		}
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		// Two upstreams may have files of one name: the first is described.
		_ = own.RegisterFile(file)
	}
	for _, p := range s.policies {
		add(p.Descriptor.ParentFile())
	}
	names := append(s.Services(), grpchealth.HealthV1ServiceName)
	return grpcreflect.NewReflector(grpcreflect.NamerFunc(func() []string { return names }), grpcreflect.WithDescriptorResolver(fileResolver{own}))
}

// fileResolver finds the files of a server, and then those that are linked in.
type fileResolver struct{ own *protoregistry.Files }

func (r fileResolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := r.own.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (r fileResolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := r.own.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}
