package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/internal/policy"
)

// An Interceptor creates the interceptor of one method, once, when the server is built.
// It returns nil for methods that it does not apply to.
type Interceptor func(*policy.Method) (connect.ServerInterceptor, error)

// Interceptors are the parts of the chain that differ from server to server; each may
// be nil. Idempotency, Cache and Queue find the message in [Call].Request.
type Interceptors struct {
	// Trace records the call for operators; a server with telemetry has its own.
	Trace Interceptor
	// Record records what the call consists of, for those who watch.
	Record Interceptor
	// CrossOrigin refuses cross-site requests of browsers.
	CrossOrigin Interceptor
	// Rate refuses callers who call too often.
	Rate Interceptor
	// Idempotency replays the answer of a repeated call.
	Idempotency Interceptor
	// Cache serves cached answers, and coalesces calls in flight.
	Cache Interceptor
	// Queue waits for a slot. It follows every interceptor that waits for the caller, so
	// that a slow caller does not hold a slot.
	Queue Interceptor
	// Finish processes the answer before it is sent.
	Finish Interceptor
}

// An Authorizer returns how a method's callers are admitted, or an error when it
// cannot enforce the method's policy.
type Authorizer func(*policy.Method) (Admission, error)

// Admission is how one method's callers are admitted.
type Admission struct {
	// Authenticate identifies the caller by the headers, and refuses bad credentials. It
	// is never nil, even where anyone may call.
	Authenticate connect.ServerInterceptor
	// Authorize refuses callers by who they are; nil to refuse none.
	Authorize func(context.Context) error
	// AuthorizeMessage refuses callers by their message; nil to refuse none.
	AuthorizeMessage func(context.Context, proto.Message) error
}

// namedInterceptor is an entry of the chain, with its name in the documentation. If one
// of them reads the message, the message is decoded before the method runs.
type namedInterceptor struct {
	name         string
	make         Interceptor
	readsMessage bool
}

// check is a check of each decoded message.
type check struct {
	name string
	run  func(context.Context, *method, proto.Message) error
}

// interceptors returns the interceptors of a method, the outermost first. No other place
// defines the order. Cheap checks come before expensive ones.
func (m *method) interceptors(c *ServerConfig) []namedInterceptor {
	return []namedInterceptor{
		{name: "recover", make: func(*policy.Method) (connect.ServerInterceptor, error) { return recoverPanics(c.Logger), nil }},
		{name: "trace", make: c.Trace},
		{name: "record", make: c.Record},
		// Inside the trace, so that the span has the public error and the log line has the
		// trace ID.
		{name: "map errors", make: func(p *policy.Method) (connect.ServerInterceptor, error) {
			return logAndMapErrors(callLog{c.Logger, c.levelOf(p), c.ClientIP, c.IsUnavailable}, p), nil
		}},
		{name: "time limit", make: limitTime},
		{name: "cross-origin check", make: c.CrossOrigin},
		{name: "authentication", make: func(*policy.Method) (connect.ServerInterceptor, error) { return m.admission.Authenticate, nil }},
		{name: "rate", make: c.Rate},
		// Before decoding: a caller without the role costs no decoding, and learns nothing
		// about the request's rules.
		{name: "authorise by role", make: m.authorizeByRole},
		{name: "decode once", make: m.decodeOnce},
		{name: "idempotency", make: c.Idempotency, readsMessage: true},
		{name: "cache and coalescing", make: c.Cache, readsMessage: true},
		{name: "queue", make: c.Queue, readsMessage: true},
		{name: "redact and post-process", make: c.Finish},
	}
}

// checks are the checks of a decoded message, in order.
var checks = []check{
	{"normalise", normalize},
	{"validate", validateRequest},
	{"authorise by message", authorizeByMessage},
}

// Order returns the names of the steps that each call passes, in this order: on the way
// in down to the method ("compose"), and then on the way out, the innermost first.
func Order() []string {
	var in, out []string
	for _, step := range new(method).interceptors(new(ServerConfig)) {
		switch step.name {
		case "redact and post-process", "map errors":
			out = append([]string{step.name}, out...)
		case "decode once":
			in = append(in, step.name)
			for _, check := range checks {
				in = append(in, check.name)
			}
		default:
			in = append(in, step.name)
		}
	}
	return slices.Concat(in, []string{"compose"}, out)
}

// method is a method with what the server adds to its policy.
type method struct {
	policy    *policy.Method
	admission Admission
	readAhead bool // an interceptor reads the message before the method
}

// chain wraps a method in its interceptors.
func chain(config *ServerConfig, p *policy.Method, handler connect.ServerFunc) (_ connect.ServerFunc, err error) {
	m := &method{policy: p}
	m.admission, err = config.Authorizer(p)
	if err != nil {
		return nil, fmt.Errorf("enforce the policies: %w", err)
	}
	if m.admission.Authenticate == nil {
		return nil, fmt.Errorf("%s: no interceptor authenticates the caller", p.Procedure)
	}
	if p.Streams() {
		handler = limitWrites(cloneSent(handler))
	}
	if p.Created != nil {
		handler = setLocation(p, handler)
	}
	// A method that does not read its message must not bypass this.
	m.readAhead = m.admission.AuthorizeMessage != nil
	for _, step := range slices.Backward(m.interceptors(config)) {
		if step.make == nil {
			continue
		}
		around, err := step.make(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", p.Procedure, step.name, err)
		}
		if around == nil {
			continue
		}
		handler = around(handler)
		if step.readsMessage {
			m.readAhead = true
		}
	}
	return handler, nil
}

func (m *method) authorizeByRole(*policy.Method) (connect.ServerInterceptor, error) {
	authorize := m.admission.Authorize
	if authorize == nil {
		return nil, nil
	}
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if err := authorize(ctx); err != nil {
				return err
			}
			return next(ctx, spec, stream)
		}
	}, nil
}

func normalize(_ context.Context, m *method, message proto.Message) error {
	m.policy.Normalize(message)
	return nil
}

func validateRequest(_ context.Context, _ *method, message proto.Message) error {
	err := protovalidate.Validate(message)
	if violations, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		return violationsError(violations.ToProto()).WithCause(err)
	}
	if err != nil {
		return fmt.Errorf("validate the request: %w", err)
	}
	return nil
}

func authorizeByMessage(ctx context.Context, m *method, message proto.Message) error {
	if m.admission.AuthorizeMessage == nil {
		return nil
	}
	return m.admission.AuthorizeMessage(ctx, message)
}
