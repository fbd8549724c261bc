// Command openapi is a plugin of protoc that writes the OpenAPI 3.1 document of
// the public API: what its protos say of REST paths (google.api), of constraints
// (buf.validate) and of who may call (policy.v1), their comments, and the errors
// that the Go source declares (tools/reasons). It fails on what it can't express
// in the document, so that nothing is left out silently.
//
// Its one parameter, reasons=FILE, is the list of errors in JSON.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// publicPackage is the one that the document is about.
const publicPackage = "bff.v1"

func main() {
	log.SetFlags(0)
	request, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatalf("read the request: %v", err)
	}
	response := &pluginpb.CodeGeneratorResponse{SupportedFeatures: proto.Uint64(uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL))}
	if content, err := generate(request); err != nil {
		response.Error = proto.String(err.Error())
	} else {
		response.File = []*pluginpb.CodeGeneratorResponse_File{{Name: proto.String("openapi.json"), Content: proto.String(content)}}
	}
	encoded, err := proto.Marshal(response)
	if err != nil {
		log.Fatalf("write the response: %v", err)
	}
	if _, err := os.Stdout.Write(encoded); err != nil {
		log.Fatalf("write the response: %v", err)
	}
}

func generate(encoded []byte) (string, error) {
	request, files, err := read(encoded)
	if err != nil {
		return "", fmt.Errorf("read the protos: %w", err)
	}
	path, ok := strings.CutPrefix(request.GetParameter(), "reasons=")
	if !ok {
		return "", errors.New("the parameter reasons=FILE is missing")
	}
	declared, err := readErrors(path)
	if err != nil {
		return "", fmt.Errorf("read the list of errors: %w", err)
	}
	d := newDocument(declared)
	for _, service := range publicServices(request, files) {
		if err := d.addService(service); err != nil {
			return "", err
		}
	}
	return d.encode()
}

// declaredError is a public error as tools/reasons lists it.
type declaredError struct {
	Reason, Code, Message string
	Field                 string // the request field at fault
	Retry                 bool   // carries a delay after which to retry
}

// readErrors reads what tools/reasons wrote, by reason.
func readErrors(path string) (map[string]declaredError, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []declaredError
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	declared := map[string]declaredError{}
	for _, one := range list {
		declared[one.Reason] = one
	}
	return declared, nil
}

// read returns the request with all options known, those of policy.v1 among
// them, whose Go types are generated beside this and can't be linked in.
func read(encoded []byte) (*pluginpb.CodeGeneratorRequest, *protoregistry.Files, error) {
	var request pluginpb.CodeGeneratorRequest
	if err := proto.Unmarshal(encoded, &request); err != nil {
		return nil, nil, err
	}
	files, err := filesOf(&request)
	if err != nil {
		return nil, nil, err
	}
	request.Reset()
	if err := (proto.UnmarshalOptions{Resolver: options{dynamicpb.NewTypes(files)}}).Unmarshal(encoded, &request); err != nil {
		return nil, nil, err
	}
	files, err = filesOf(&request)
	return &request, files, err
}

func filesOf(request *pluginpb.CodeGeneratorRequest) (*protoregistry.Files, error) {
	files := new(protoregistry.Files)
	for _, file := range request.GetProtoFile() {
		built, err := protodesc.NewFile(file, files)
		if err != nil {
			return nil, err
		}
		if err := files.RegisterFile(built); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// options finds the options that are linked in, and those that the request
// itself declares.
type options struct{ declared *dynamicpb.Types }

func (o options) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	if linked, err := protoregistry.GlobalTypes.FindExtensionByName(name); err == nil {
		return linked, nil
	}
	return o.declared.FindExtensionByName(name)
}

func (o options) FindExtensionByNumber(message protoreflect.FullName, number protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	if linked, err := protoregistry.GlobalTypes.FindExtensionByNumber(message, number); err == nil {
		return linked, nil
	}
	return o.declared.FindExtensionByNumber(message, number)
}

func publicServices(request *pluginpb.CodeGeneratorRequest, files *protoregistry.Files) []protoreflect.ServiceDescriptor {
	var found []protoreflect.ServiceDescriptor
	for _, path := range request.GetFileToGenerate() {
		file, err := files.FindFileByPath(path)
		if err != nil || file.Package() != publicPackage {
			continue
		}
		for i := range file.Services().Len() {
			found = append(found, file.Services().Get(i))
		}
	}
	return found
}
