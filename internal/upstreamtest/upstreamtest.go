// Package upstreamtest has a service of an application, for tests that put it behind
// the gateway: its descriptors, and a server that is written against them alone.
package upstreamtest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate" // options of the schema
	_ "google.golang.org/genproto/googleapis/api/annotations"                   // likewise

	_ "gatehouse/gen/policy/v1" // likewise
)

//go:embed shop.txtpb
var shop []byte

// File returns the file of the shop, whose proto is shop.v1. Change it to test others.
func File() *descriptorpb.FileDescriptorProto { return FileOf("shop") }

// FileOf returns the file of another service that has the shop's methods, by its name: with
// the package NAME.v1 and the paths of NAME.
func FileOf(name string) *descriptorpb.FileDescriptorProto {
	file := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal(bytes.ReplaceAll(shop, []byte("shop"), []byte(name)), file); err != nil {
		panic(err)
	}
	return file
}

// Encode returns the descriptor set of files, without those that they import.
func Encode(files ...*descriptorpb.FileDescriptorProto) []byte {
	encoded, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: files})
	if err != nil {
		panic(err)
	}
	return encoded
}

// Shop is a server of shop.v1 over Connect, gRPC and gRPC-Web, with reflection.
type Shop struct {
	http.Handler
	// Calls counts the calls.
	Calls atomic.Int64
	// Watching counts the streams that are open.
	Watching atomic.Int64

	// Fail, if set, is asked for the error of each call; nil for none.
	Fail func(ctx context.Context, procedure string) error
	// People, if set, keeps who made orders.
	People *People
	// Things is how many things a stream sends before it ends; without end if negative.
	Things int

	mu     sync.Mutex
	orders map[string]string // ids by idempotency key
	file   protoreflect.FileDescriptor
}

// NewShop returns a shop, which also serves what is registered besides.
func NewShop(besides ...func(*connect.Server)) *Shop {
	file, err := protodesc.NewFile(File(), protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	s := &Shop{Things: 3, orders: map[string]string{}, file: file}
	server := connect.NewServer()
	services := file.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			s.register(server, services.Get(i).Methods().Get(j))
		}
	}
	for _, register := range besides {
		register(server)
	}
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	own := new(protoregistry.Files)
	if err := own.RegisterFile(file); err != nil {
		panic(err)
	}
	names := grpcreflect.NamerFunc(func() []string { return []string{"shop.v1.AdminService", "shop.v1.ShopService"} })
	path, handler := grpcreflect.NewHandlerV1(grpcreflect.NewReflector(names, grpcreflect.WithDescriptorResolver(both{own})), connectv1.WithReadMaxBytes(1<<20))
	mux.Handle(path, handler)
	s.Handler = mux
	return s
}

// both finds the shop's file and those that it imports.
type both struct{ *protoregistry.Files }

func (b both) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := b.Files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (s *Shop) register(server *connect.Server, method protoreflect.MethodDescriptor) {
	spec := connect.Spec{Procedure: fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()), Schema: method}
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	spec.IdempotencyLevel = connect.IdempotencyLevel(options.GetIdempotencyLevel())
	if method.IsStreamingServer() {
		spec.StreamType = connect.StreamTypeServer
	}
	server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		s.Calls.Add(1)
		request := dynamicpb.NewMessage(method.Input())
		if err := stream.Receive(request); err != nil {
			return err
		}
		if s.Fail != nil {
			if err := s.Fail(ctx, spec.Procedure); err != nil {
				return err
			}
		}
		if method.IsStreamingServer() {
			return s.watch(ctx, method, stream)
		}
		return stream.Send(s.answer(ctx, method, request))
	}})
}

func (s *Shop) watch(ctx context.Context, method protoreflect.MethodDescriptor, stream connect.ServerStream) error {
	s.Watching.Add(1)
	defer s.Watching.Add(-1)
	for i := 0; i != s.Things && ctx.Err() == nil; i++ {
		response := dynamicpb.NewMessage(method.Output())
		set(response, "thing", protoreflect.ValueOfMessage(s.thing(fmt.Sprint("t", i))))
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// thing returns a thing with a time, which has a form of its own in JSON.
func (s *Shop) thing(id string) protoreflect.Message {
	thing := dynamicpb.NewMessage(s.file.Messages().ByName("Thing"))
	set(thing, "id", protoreflect.ValueOfString(id))
	set(thing, "name", protoreflect.ValueOfString("Paper tape"))
	set(thing, "quantity", protoreflect.ValueOfInt32(3))
	tags := thing.Mutable(field(thing, "tags")).List()
	for _, tag := range []string{"a", "b", "c"} {
		tags.Append(protoreflect.ValueOfString(tag))
	}
	set(thing, "create_time", protoreflect.ValueOfMessage((&timestamppb.Timestamp{Seconds: 1_700_000_000}).ProtoReflect()))
	return thing
}

func (s *Shop) answer(ctx context.Context, method protoreflect.MethodDescriptor, request protoreflect.Message) proto.Message {
	info, _ := connect.CallInfoForServerContext(ctx)
	response := dynamicpb.NewMessage(method.Output())
	switch method.Name() {
	case "GetThing":
		set(response, "thing", protoreflect.ValueOfMessage(s.thing(request.Get(field(request, "thing_id")).String())))
		headers := response.Mutable(field(response, "headers")).Map()
		for name, values := range info.RequestHeader().All() {
			headers.Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(fmt.Sprint(values)))
		}
	case "ListThings":
		things := response.Mutable(field(response, "things")).List()
		things.Append(protoreflect.ValueOfMessage(s.thing("t1")))
	case "CreateOrder":
		order := response.Mutable(field(response, "order")).Message()
		key := info.RequestHeader().Get("Idempotency-Key")
		set(order, "id", protoreflect.ValueOfString(s.order(key)))
		set(order, "key", protoreflect.ValueOfString(key))
		if s.People != nil {
			s.People.AddOrder(subjectOf(info.RequestHeader().Get("Authorization")), order.Get(field(order, "id")).String())
		}
	}
	return response
}

// order returns the id of the order of a key.
func (s *Shop) order(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.orders[key]; id != "" && key != "" {
		return id
	}
	id := fmt.Sprint("o", len(s.orders)+1)
	s.orders[key] = id
	return id
}

func field(message protoreflect.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return message.Descriptor().Fields().ByName(name)
}

func set(message protoreflect.Message, name protoreflect.Name, value protoreflect.Value) {
	message.Set(field(message, name), value)
}

// Write writes a file for a test, and returns its path.
func Write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
