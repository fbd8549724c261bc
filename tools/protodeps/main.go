// Command protodeps writes the third-party proto files that ours import, and those of
// error details, from their Go modules into a folder. buf reads them there, so that
// generating and linting need no schema registry.
//
//	protodeps FOLDER
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	validate "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: protodeps FOLDER")
	}
	for _, file := range []protoreflect.FileDescriptor{
		validate.File_buf_validate_validate_proto,
		annotations.File_google_api_annotations_proto,
		annotations.File_google_api_http_proto,
		errdetails.File_google_rpc_error_details_proto,
	} {
		if err := print(file, os.Args[1]); err != nil {
			log.Fatalf("print %s: %v", file.Path(), err)
		}
	}
}

func print(file protoreflect.FileDescriptor, folder string) error {
	path := filepath.Join(folder, filepath.FromSlash(file.Path()))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	printer := protoprint.Printer{Compact: true}
	if err := printer.PrintProtoFile(file, out); err != nil {
		out.Close()
		return fmt.Errorf("write: %w", err)
	}
	return out.Close()
}
