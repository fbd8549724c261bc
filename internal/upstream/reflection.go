package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// fetchTimeout bounds how long an upstream may take to describe itself.
const fetchTimeout = 5 * time.Second

// Fetch reads the descriptors of an upstream by gRPC reflection, from the first of its
// URLs. It returns an encoded descriptor set.
func Fetch(ctx context.Context, urls, version string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	base, _, _ := strings.Cut(urls, ",")
	var failure error
	for _, over := range versions(base, version) {
		set, err := reflected(ctx, over, strings.TrimSpace(base))
		over.CloseIdleConnections()
		if err == nil {
			return proto.MarshalOptions{Deterministic: true}.Marshal(set)
		}
		failure = errors.Join(failure, err)
	}
	return nil, failure
}

// versions returns how to speak to an upstream: reflection is a stream in both
// directions, which needs HTTP/2, so that HTTP/1.1 comes last.
func versions(base, version string) []*http.Transport {
	make := func(set func(*http.Protocols)) *http.Transport {
		t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		set(t.Protocols)
		return t
	}
	two := make(func(p *http.Protocols) { p.SetHTTP2(true); p.SetUnencryptedHTTP2(true) })
	one := make(func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(strings.HasPrefix(base, "https:")) })
	switch version {
	case "1.1":
		return []*http.Transport{one}
	case "2":
		return []*http.Transport{two}
	}
	return []*http.Transport{two, one}
}

func reflected(ctx context.Context, transport http.RoundTripper, base string) (*descriptorpb.FileDescriptorSet, error) {
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := grpcreflect.NewClient(&http.Client{Transport: transport, CheckRedirect: refuse}, base, connectv1.WithGRPC(), connectv1.WithReadMaxBytes(maxDescriptorBytes))
	stream := client.NewStream(ctx)
	defer func() { _, _ = stream.Close() }()
	services, err := stream.ListServices()
	if err != nil {
		return nil, fmt.Errorf("list its services by reflection: %w", err)
	}
	files := map[string]*descriptorpb.FileDescriptorProto{}
	take := func(found []*descriptorpb.FileDescriptorProto) {
		for _, file := range found {
			if files[file.GetName()] == nil {
				files[file.GetName()] = file
			}
		}
	}
	for _, service := range services {
		if isReflection(service) {
			continue
		}
		found, err := stream.FileContainingSymbol(service)
		if err != nil {
			return nil, fmt.Errorf("read %s by reflection: %w", service, err)
		}
		take(found)
	}
	for missing := missingImport(files); missing != ""; missing = missingImport(files) {
		found, err := stream.FileByFilename(missing)
		if err != nil {
			return nil, fmt.Errorf("read %s by reflection: %w", missing, err)
		}
		take(found)
		if files[missing] == nil {
			return nil, fmt.Errorf("its reflection lacks %s", missing)
		}
	}
	if len(files) == 0 {
		return nil, errors.New("it describes no service")
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range files {
		set.File = append(set.File, file)
	}
	slices.SortFunc(set.File, func(a, b *descriptorpb.FileDescriptorProto) int { return strings.Compare(a.GetName(), b.GetName()) })
	return set, nil
}

// isReflection reports whether a service is about the server itself.
func isReflection(service protoreflect.FullName) bool {
	return strings.HasPrefix(string(service), "grpc.reflection.") || strings.HasPrefix(string(service), "grpc.health.")
}

// missingImport returns the path of a file that another one imports, and that is
// neither there nor linked in; "" for none.
func missingImport(files map[string]*descriptorpb.FileDescriptorProto) string {
	for _, file := range files {
		for _, path := range file.GetDependency() {
			if files[path] == nil && !isLinked(path) {
				return path
			}
		}
	}
	return ""
}
