package policy

import (
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "gatehouse/gen/policy/v1"
)

// MaxAttempts is the most attempts that a policy may allow.
const MaxAttempts = 3

// Method is the policy of one method, compiled from its schema and tightened by
// settings. It does not change after that.
type Method struct {
	// Procedure is the method's path, such as "/bff.v1.UserService/GetUser".
	Procedure string
	// Method is the schema.
	Descriptor protoreflect.MethodDescriptor
	// Access says who may call.
	Access *policyv1.Access
	// Self leads to the request's field that names the account, where Access asks
	// for it.
	Self FieldPath
	// RecentSignIn tells that the caller must have signed in within 5 minutes.
	RecentSignIn bool
	// TimeLimit is the longest that a call may take; zero for streams.
	TimeLimit time.Duration
	// Attempts is how often a call of a service may be tried: at least 1.
	Attempts int
	// Rate is how often one caller may call; nil without limit.
	Rate *Rate
	// Sheddable tells that it may be refused first under overload.
	Sheddable bool
	// Cache is how answers may be kept; nil for not at all.
	Cache *Cache
	// Purges are the tags of the kept answers that a success makes stale.
	Invalidates []Tag
	// IdempotencyKey tells that an Idempotency-Key header counts.
	IdempotencyKey bool
	// Created is where what a success made is found; nil when it makes nothing.
	Created *Location
	// Example is a request in JSON, for documents; empty for none.
	Example string

	spec       connect.Spec
	request    protoreflect.MessageType
	normalizer *normalizer // nil when the request has nothing to normalise
}

// Cache says how the answers of a method may be cached.
type Cache struct {
	TTL time.Duration
	// Shared tells that all callers may have the same answer; else it is the
	// caller's alone.
	Shared                             bool
	StaleWhileRevalidate, StaleIfError time.Duration
	Tags                               []Tag
}

// ReadsOnly reports whether the method has no side effects.
func (p *Method) ReadsOnly() bool { return p.spec.IdempotencyLevel == connect.IdempotencyNoSideEffects }

// Streams reports whether the client or the server sends a stream of messages.
func (p *Method) Streams() bool { return p.spec.StreamType != connect.StreamTypeUnary }

// ClientStreams reports whether the client sends a stream of messages.
func (p *Method) ClientStreams() bool { return p.spec.StreamType&connect.StreamTypeClient != 0 }

// NewRequest returns an empty request message.
func (p *Method) NewRequest() proto.Message { return p.request.New().Interface() }

// CheckExample reports why a request in JSON is not one that the method accepts.
func (p *Method) CheckExample(text []byte) error {
	request := p.NewRequest()
	if err := protojson.Unmarshal(text, request); err != nil {
		return err
	}
	return protovalidate.Validate(request)
}

// Normalize rewrites the text fields of a request in place, as the schema says.
func (p *Method) Normalize(request proto.Message) {
	if p.normalizer != nil {
		p.normalizer.apply(request.ProtoReflect())
	}
}

// needsSignIn reports whether only signed-in users may call.
func (p *Method) needsSignIn() bool {
	switch p.Access.GetWho().(type) {
	case *policyv1.Access_SignedIn, *policyv1.Access_Self, *policyv1.Access_Roles:
		return true
	}
	return false
}

// Anyone returns the access of a method that every caller may call.
func Anyone() *policyv1.Access {
	return &policyv1.Access{Who: &policyv1.Access_Anyone{Anyone: &policyv1.Anyone{}}}
}
