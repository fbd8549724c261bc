// Package passthrough serves the published methods of upstreams: it passes a call on to
// the upstream, and the answer back.
//
// A call has passed the gateway's whole chain when it comes here. The upstream gets the
// message, an identity token and the request id, and nothing else that the caller sent:
// no token, no cookie and no header. The caller gets the message, or an error that
// fault.go maps, and no header of the upstream's. An answer that nothing has to look at
// is passed on as the bytes that it came as (answer.go).
package passthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"gatehouse/bff/access"
	"gatehouse/internal/dial"
	"gatehouse/internal/identitytoken"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
	"gatehouse/internal/upstream"
)

// Config says how upstreams are called.
type Config struct {
	Set *upstream.Set
	// Issuer mints the identity tokens.
	Issuer *identitytoken.Issuer
	// Caller returns who is calling; nil where nobody has to sign in.
	Caller func(context.Context) *access.Principal
	// IdempotencyKey returns the key that the call came with, of a method that takes
	// one; "" for none.
	IdempotencyKey func(context.Context) string
	Logger         *slog.Logger
	// Telemetry measures and traces each call; nil does neither.
	Telemetry *telemetry.Telemetry
}

// Upstreams pass calls on.
type Upstreams struct {
	config  Config
	clients map[string]*connect.Client
}

// New returns what passes calls on to the upstreams of a set. It connects when the first
// call is made.
func New(config Config) (*Upstreams, error) {
	s := &Upstreams{config: config, clients: map[string]*connect.Client{}}
	if config.Set == nil {
		return s, nil
	}
	if config.Issuer == nil {
		return nil, identitytoken.ErrNoKey
	}
	for _, u := range config.Set.Upstreams {
		client, err := dial.DialUpstream(dial.UpstreamRoute{
			Name: u.Name, URLs: u.URLs, GRPC: u.Protocol == upstream.GRPC, HTTP: u.HTTP, Telemetry: config.Telemetry, Logger: config.Logger,
			Token: func(ctx context.Context) (string, error) {
				return config.Issuer.Token(u.Name, identityOf(config.Caller(ctx)))
			},
		})
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		s.clients[u.Name] = client
		config.Logger.Info("upstream published", "upstream", u.Name, "methods", len(u.Methods), "not_published", u.Unpublished)
	}
	return s, nil
}

// clientID is the OAuth client whose users sign in at the gateway itself.
const clientID = "gatehouse"

// identityOf is a caller as upstreams get to know it.
func identityOf(who *access.Principal) identitytoken.Caller {
	if who == nil {
		return identitytoken.Caller{}
	}
	return identitytoken.Caller{
		UserID: who.UserID, SessionID: who.SessionID, Roles: who.Roles, ClientID: clientID, Scope: strings.Join(who.Scopes, " "),
		ACR: who.SignIn.ACR(), AMR: who.SignIn.AMR, AuthTime: who.SignIn.AuthTime,
	}
}

// Client returns the client of an upstream, for calls of the gateway itself.
func (s *Upstreams) Client(name string) *connect.Client { return s.clients[name] }

// Describe returns upstreams whose methods are known and cannot be called.
func Describe(set *upstream.Set) *Upstreams { return &Upstreams{config: Config{Set: set}} }

// Register registers the published methods.
func (s *Upstreams) Register(server *connect.Server) {
	if s == nil || s.config.Set == nil {
		return
	}
	for _, u := range s.config.Set.Upstreams {
		for _, method := range u.Methods {
			m := &passedMethod{upstreams: s, upstream: u, client: s.clients[u.Name], spec: method.Spec, request: dynamicpb.NewMessageType(method.Descriptor.Input()), response: method.Descriptor.Output()}
			handler := m.unary
			if method.Descriptor.IsStreamingServer() {
				handler = m.stream
			}
			server.Register(connect.Method{Spec: method.Spec, Handler: handler})
		}
	}
}

// passedMethod is a method whose calls are passed on.
type passedMethod struct {
	upstreams *Upstreams
	upstream  *upstream.Upstream
	client    *connect.Client
	spec      connect.Spec
	request   protoreflect.MessageType
	response  protoreflect.MessageDescriptor
	warnedAt  atomic.Int64 // that the upstream lacks the method, in Unix nanoseconds
}

// receive reads the request, and returns the context of the upstream's call.
func (m *passedMethod) receive(ctx context.Context, stream connect.ServerStream) (context.Context, proto.Message, error) {
	request := m.request.New().Interface()
	if err := stream.Receive(request); err != nil {
		return nil, nil, err
	}
	// A fresh set of headers: nothing of the caller's own passes.
	ctx, info := connect.NewClientContext(ctx)
	if key := m.upstreams.config.IdempotencyKey(ctx); key != "" {
		info.RequestHeader().Set("Idempotency-Key", key)
	}
	return ctx, request, nil
}

// newResponse returns what the answer is received into: the bytes as they are, where the
// caller wants them so and nothing looks at them.
func (m *passedMethod) newResponse(ctx context.Context) proto.Message {
	info, ok := connect.CallInfoForServerContext(ctx)
	p := rpc.CallFrom(ctx).Method
	if ok && info.Codec == connect.CodecNameProto && p != nil && p.Cache == nil && p.Created == nil {
		return &answer{schema: m.response}
	}
	return dynamicpb.NewMessage(m.response)
}

func (m *passedMethod) unary(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
	outgoing, request, err := m.receive(ctx, stream)
	if err != nil {
		return err
	}
	response := m.newResponse(ctx)
	if err := m.client.CallUnary(outgoing, spec, request, response); err != nil {
		return m.fault(ctx, err)
	}
	return stream.Send(response)
}

func (m *passedMethod) stream(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
	outgoing, request, err := m.receive(ctx, stream)
	if err != nil {
		return err
	}
	// Ends the upstream's stream when the caller's ends, however it does.
	outgoing, cancel := context.WithCancel(outgoing)
	defer cancel()
	answers, err := m.client.CallServerStream(outgoing, spec, request)
	if err != nil {
		return m.fault(ctx, err)
	}
	defer func() { _ = answers.Close() }()
	for {
		response := m.newResponse(ctx)
		if err := answers.Receive(response); err != nil {
			if errors.Is(err, io.EOF) { // one that was cut off has another error
				return nil
			}
			return m.fault(ctx, err)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}
