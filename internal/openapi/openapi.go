// Package openapi describes RPC methods as an OpenAPI 3.1 document: their REST paths
// (google.api), constraints (buf.validate), policies and comments, and the errors
// that they can return.
//
// [Document] is a function of descriptors: the generator calls it with those of the
// public API, and the gateway, when it starts, with those of its upstreams. Comments
// come from the descriptors' source info. [Merge] adds one document to another.
package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/policy"
)

// Config is what a document is made of.
type Config struct {
	// Methods are described in their order.
	Methods []Method
	// Errors are the public errors that the gateway declares.
	Errors []Error
	// Package is the proto package whose names are written without it. Names of
	// others are written in full.
	Package protoreflect.FullName
	// Lenient describes as well as it can what has no equivalent in OpenAPI. Without
	// it that is an error, so that nothing is left out silently.
	Lenient bool
}

// Method is a method of the document.
type Method struct {
	Policy *policy.Method
	// Reasons are those that may reach callers, in addition to Config.Errors.
	Reasons []string
	// Always are reasons of Config.Errors that any call may fail with, whether the comment
	// names them or not.
	Always []string
}

// Error is a public error.
type Error struct {
	Reason  string `json:"reason"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field"` // the request field at fault
	Retry   bool   `json:"retry"` // carries a delay after which to retry
}

// ReadErrors reads a list of errors in JSON.
func ReadErrors(list []byte) ([]Error, error) {
	var declared []Error
	if err := json.Unmarshal(list, &declared); err != nil {
		return nil, fmt.Errorf("read the list of errors: %w", err)
	}
	return declared, nil
}

// Document returns the document of the methods, as indented JSON.
func Document(config Config) ([]byte, error) {
	d := newDocument(config)
	var described []protoreflect.FullName
	var faults []error
	for _, method := range config.Methods {
		descriptor := method.Policy.Descriptor
		if service := descriptor.Parent(); !slices.Contains(described, service.FullName()) {
			described = append(described, service.FullName())
			d.addService(service)
		}
		if err := d.addMethod(method); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", descriptor.FullName(), err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return d.encode()
}
