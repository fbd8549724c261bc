package main

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "gatehouse/gen/policy/v1"
)

const internalHead = `# Methods between the services

Made by ` + "`make gen`" + ` from the protos in ` + "`proto`" + `, but for the public ` + "`bff/v1`" + `.

Only other services can call these methods, with a signed token that names the caller.
The public API is in [methods.md](methods.md).
`

var (
	protoComment = regexp.MustCompile(`^// ?(.*)$`)
	protoService = regexp.MustCompile(`^service (\w+) \{`)
	protoMethod  = regexp.MustCompile(`^\s*rpc (\w+)\(`)
)

// internalPage returns the page on the methods that services offer each other: the
// comment of each, and who may call it.
func internalPage() (string, error) {
	var page strings.Builder
	page.WriteString(internalHead)
	for _, folder := range internalFolders() {
		files, err := filepath.Glob(filepath.Join("proto", folder, "*.proto"))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			if err := writeInternalMethods(&page, strings.ReplaceAll(folder, "/", "."), file); err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return page.String(), nil
}

// internalFolders returns the folders below proto with services that aren't the
// public API's, such as auth/v1.
func internalFolders() []string {
	found := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		ours := strings.HasPrefix(string(file.Options().(*descriptorpb.FileOptions).GetGoPackage()), "gatehouse/gen/")
		if ours && file.Services().Len() > 0 && file.Package() != "bff.v1" {
			found[path.Dir(file.Path())] = true
		}
		return true
	})
	return slices.Sorted(maps.Keys(found))
}

func writeInternalMethods(page *strings.Builder, pkg, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var service string
	var comment []string
	for line := range strings.Lines(string(text)) {
		if found := protoComment.FindStringSubmatch(strings.TrimSpace(line)); found != nil {
			comment = append(comment, found[1])
			continue
		}
		about := strings.TrimSpace(strings.Join(comment, " "))
		comment = nil
		if found := protoService.FindStringSubmatch(line); found != nil {
			service = pkg + "." + found[1]
			fmt.Fprintf(page, "\n## %s\n\n%s\n\n| method | who may call | what it does |\n| --- | --- | --- |\n", service, about)
		}
		if found := protoMethod.FindStringSubmatch(line); found != nil {
			if about == "" {
				return fmt.Errorf("%s has no comment", found[1])
			}
			callers, err := callersOf(service + "." + found[1])
			if err != nil {
				return err
			}
			fmt.Fprintf(page, "| `%s` | %s | %s |\n", found[1], strings.Join(callers, ", "), inCell(about))
		}
	}
	return nil
}

// callersOf returns the services that a method's policy allows to call it.
func callersOf(method string) ([]string, error) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(method))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	policy, ok := proto.GetExtension(found.Options(), policyv1.E_Method).(*policyv1.Method)
	if policy.GetAccess().GetUpstreams() != nil {
		return []string{"upstreams, by the gateway"}, nil
	}
	if !ok || len(policy.GetAccess().GetServices().GetAnyOf()) == 0 {
		return nil, fmt.Errorf("the policy of %s names no service that may call it", method)
	}
	return policy.GetAccess().GetServices().GetAnyOf(), nil
}
