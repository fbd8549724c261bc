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

// MaxAttempts is the maximum number of attempts that a policy may allow.
const MaxAttempts = 3

// Method is the policy of one method, compiled from its schema and tightened by
// settings. It does not change after that.
type Method struct {
	// Procedure is the method's path, such as "/bff.v1.UserService/GetUser".
	Procedure string
	// Method is the schema.
	Descriptor protoreflect.MethodDescriptor
	// Access declares who may call the method.
	Access *policyv1.Access
	// Self is the path to the request's field with the account ID, if Access is self.
	Self FieldPath
	// RecentSignIn reports that the caller must have signed in within the last 5 minutes.
	RecentSignIn bool
	// Assurance is the level that the caller's session must have; unspecified for the
	// installation's default.
	Assurance policyv1.Assurance
	// Scopes are those of which an API key or an OAuth client's token must hold one;
	// without any, only Gatehouse's own sessions may call.
	Scopes []string
	// TimeLimit is the maximum duration of a call; zero for streams.
	TimeLimit time.Duration
	// Attempts is the maximum number of attempts of a call to a service, at least 1.
	Attempts int
	// Rate is the rate limit of each caller; nil for none.
	Rate *Rate
	// OpenStreams bounds the open streams of the method; nil for no bound.
	OpenStreams *OpenStreams
	// Sheddable reports that the method's calls are refused first under overload.
	Sheddable bool
	// Cache describes how answers are cached; nil if they are not.
	Cache *Cache
	// Invalidates are the tags of the cache entries that a call invalidates.
	Invalidates []Tag
	// IdempotencyKey reports that the method accepts an Idempotency-Key header.
	IdempotencyKey bool
	// Created is where what a success made is found; nil when it makes nothing.
	Created *Location
	// Example is a request in JSON, for documents; empty for none.
	Example string

	spec       connect.Spec
	request    protoreflect.MessageType
	normalizer *normalizer // nil when the request has nothing to normalise
}

// OpenStreams bounds the streams of a method that are open on one server.
type OpenStreams struct{ PerCaller, Total int }

// Cache describes how the answers of a method are cached.
type Cache struct {
	TTL time.Duration
	// Shared reports that all callers receive the same answer; otherwise only the caller
	// for whom it was made receives it.
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
