// Command generate writes the documents of the public API: the OpenAPI document, and
// the collection for Postman with the calls of story.go.
//
//	generate DESCRIPTORS REASONS OPENAPI COLLECTION
//
// DESCRIPTORS is a descriptor set with source info (buf build), and REASONS the list
// of public errors in JSON (tools/reasons). It fails on what it can't express, so that
// nothing is left out silently.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"gatehouse/internal/openapi"
	"gatehouse/internal/policy"
	"gatehouse/internal/postman"
	"gatehouse/internal/rpc"

	// The options that our protos use, linked in so that they are read as such.
	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	_ "google.golang.org/genproto/googleapis/api/annotations"
)

// publicPackage is the one that the documents are about.
const publicPackage = "bff.v1"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("usage: generate DESCRIPTORS REASONS OPENAPI COLLECTION")
	}
	if err := generate(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		log.Fatal(err)
	}
}

func generate(descriptors, reasons, document, collection string) error {
	methods, err := readMethods(descriptors)
	if err != nil {
		return fmt.Errorf("read %s: %w", descriptors, err)
	}
	list, err := os.ReadFile(reasons)
	if err != nil {
		return err
	}
	declared, err := openapi.ReadErrors(list)
	if err != nil {
		return err
	}
	api, err := openapi.Document(openapi.Config{Methods: methods, Errors: declared, Package: publicPackage})
	if err != nil {
		return fmt.Errorf("make the OpenAPI document: %w", err)
	}
	if err := os.WriteFile(document, api, 0o644); err != nil {
		return err
	}
	made, err := postman.Collection(api, variables, story)
	if err != nil {
		return fmt.Errorf("make the collection: %w", err)
	}
	return os.WriteFile(collection, made, 0o644)
}

// readMethods returns the public methods of a descriptor set, by file, with their
// policies.
func readMethods(path string) ([]openapi.Method, error) {
	encoded, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(encoded, &set); err != nil {
		return nil, err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, err
	}
	compiled, err := policy.Compile(specsOf(files), rpc.DefaultLimit, "")
	if err != nil {
		return nil, err
	}
	if len(compiled) == 0 {
		return nil, errors.New("it has no methods of " + publicPackage)
	}
	var methods []openapi.Method
	for _, one := range compiled {
		methods = append(methods, openapi.Method{Policy: one})
	}
	return methods, nil
}

func specsOf(files *protoregistry.Files) []connect.Spec {
	var public []protoreflect.FileDescriptor
	files.RangeFilesByPackage(publicPackage, func(file protoreflect.FileDescriptor) bool {
		public = append(public, file)
		return true
	})
	slices.SortFunc(public, func(a, b protoreflect.FileDescriptor) int { return cmp.Compare(a.Path(), b.Path()) })
	var specs []connect.Spec
	for _, file := range public {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				specs = append(specs, specOf(methods.Get(j)))
			}
		}
	}
	return specs
}

func specOf(method protoreflect.MethodDescriptor) connect.Spec {
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	spec := connect.Spec{
		Procedure: fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()), Schema: method,
		IdempotencyLevel: connect.IdempotencyLevel(options.GetIdempotencyLevel()),
	}
	if method.IsStreamingServer() {
		spec.StreamType |= connect.StreamTypeServer
	}
	if method.IsStreamingClient() {
		spec.StreamType |= connect.StreamTypeClient
	}
	return spec
}
