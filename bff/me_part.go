package bff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/answercache"
	"gatehouse/internal/compose"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// MePart is a part that a service adds to GetMe: one call of the service, whose response
// fills one field of bff.v1.GetMeResponse. Make one with [NewMePart]. The gateway
// refuses to start with a part that does not fit the schema.
type MePart struct {
	// Field is the name of the field that the part fills, and the part's name in errors.
	Field protoreflect.Name
	// Procedure is the method that the gateway calls. It has no side effects.
	Procedure string
	// Required makes GetMe fail if the part fails. Sign-in pages call GetMe, so set it
	// only if no page works without the part.
	Required bool
	// Kinds are the kinds of the part's cache tags, from Tells of services: a change
	// of one of them fetches the part again. Without any, the part is cached for at
	// most a second.
	Kinds []string

	request func(account string) proto.Message
	answer  func(account string, response proto.Message) (proto.Message, error)
}

// NewMePart returns a part with its functions: request returns the request of the call
// for an account, and answer the field that the response fills, in a GetMeResponse of
// which nothing else is used. The response may be cached: answer does not change it.
func NewMePart[Request, Response proto.Message](part MePart, request func(account string) Request, answer func(account string, response Response) *bffv1.GetMeResponse) *MePart {
	part.request = func(account string) proto.Message { return request(account) }
	part.answer = func(account string, response proto.Message) (proto.Message, error) {
		typed, ok := response.(Response)
		if !ok {
			return nil, fmt.Errorf("%s returns a %s, which its part of GetMe does not take", part.Procedure, response.ProtoReflect().Descriptor().FullName())
		}
		return answer(account, typed), nil
	}
	return &part
}

// mePart is a part that fits the schema.
type mePart struct {
	MePart
	client   *connect.Client
	field    protoreflect.FieldDescriptor
	spec     connect.Spec
	response protoreflect.MessageType
}

// meParts are the parts of GetMe that services add, in the order of the services.
type meParts []*mePart

// The fields and parts of GetMe that are the gateway's own. No service adds one of
// these names.
var (
	ownMeFields = []protoreflect.Name{"user", "sessions", "security", "errors"}
	ownMeParts  = []protoreflect.Name{"account", "profile"}
)

var meAnswer = (&bffv1.GetMeResponse{}).ProtoReflect().Descriptor()

// newMeParts checks the parts of the backends. feedOwners has the kinds of tags that
// some feed reports.
func newMeParts(backends []Backend, feedOwners map[string]string) (meParts, error) {
	var parts meParts
	var faults []error
	for _, backend := range backends {
		if backend.Extension.Me == nil {
			continue
		}
		part := &mePart{MePart: *backend.Extension.Me, client: backend.Client}
		err := part.resolve(feedOwners)
		if slices.ContainsFunc(parts, func(other *mePart) bool { return other.Field == part.Field }) {
			err = errors.Join(err, errors.New("another service fills that field: give the part a field of its own"))
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("the part %q that %s adds to GetMe: %w", part.Field, backend.Name, err))
		}
		parts = append(parts, part)
	}
	return parts, errors.Join(faults...)
}

// resolve finds the descriptors of a part, and returns what is wrong with it.
func (p *mePart) resolve(feedOwners map[string]string) error {
	if p.request == nil || p.answer == nil {
		return errors.New("it has no functions: make it with bff.NewMePart")
	}
	for _, kind := range p.Kinds {
		if feedOwners[kind] == "" {
			return fmt.Errorf("no feed reports changes of the kind %q: add it to Tells of the service, or leave it out of Kinds", kind)
		}
	}
	if err := p.resolveMethod(); err != nil {
		return err
	}
	if slices.Contains(ownMeFields, p.Field) || slices.Contains(ownMeParts, p.Field) {
		return errors.New("the name is the gateway's own: choose another field")
	}
	if p.field = meAnswer.Fields().ByName(p.Field); p.field == nil {
		return fmt.Errorf("%s has no field of that name: add it to proto/bff/v1/account_service.proto and run make gen", meAnswer.FullName())
	}
	return nil
}

func (p *mePart) resolveMethod() error {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(p.Procedure, "/"), "/", "."))
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	method, ok := descriptor.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		return fmt.Errorf("there is no method %s: use the constant of its procedure", p.Procedure)
	}
	p.spec = connect.Spec{Procedure: p.Procedure, Schema: method, IdempotencyLevel: connect.IdempotencyNoSideEffects}
	switch {
	case method.IsStreamingClient() || method.IsStreamingServer():
		return fmt.Errorf("%s is a stream: use a unary method", p.Procedure)
	case !declaresNoSideEffects(method.Options()):
		return fmt.Errorf("%s may have side effects: declare idempotency_level = NO_SIDE_EFFECTS, or use another method", p.Procedure)
	case policy.HoldsSecrets(method.Output()):
		return fmt.Errorf("%s would be cached, and holds a redacted field: use a method without secrets", method.Output().FullName())
	}
	if p.response, err = protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName()); err != nil {
		return fmt.Errorf("%s has no generated code: %w", method.Output().FullName(), err)
	}
	return p.try(method)
}

func declaresNoSideEffects(options protoreflect.ProtoMessage) bool {
	declared, ok := options.(*descriptorpb.MethodOptions)
	return ok && declared.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// try makes the request of somebody, and the answer to an empty response.
func (p *mePart) try(method protoreflect.MethodDescriptor) error {
	somebody := uuid.Nil.String()
	request := p.request(somebody)
	if got, want := request.ProtoReflect().Descriptor().FullName(), method.Input().FullName(); got != want {
		return fmt.Errorf("its request is a %s, and %s takes a %s", got, p.Procedure, want)
	}
	if err := protovalidate.Validate(request); err != nil {
		return fmt.Errorf("%s refuses its request: %w", p.Procedure, err)
	}
	_, err := p.answer(somebody, p.response.New().Interface())
	return err
}

// cacheTags are the tags that the parts add to the cached answers of GetMe.
func (parts meParts) cacheTags() []policy.CacheTag {
	var tags []policy.CacheTag
	for _, part := range parts {
		for _, kind := range part.Kinds {
			tags = append(tags, policy.CacheTag{Procedure: bffv1.AccountServiceGetMeProcedure, Tag: kind + "/{caller}"})
		}
	}
	return tags
}

// add adds the parts of an account to a composition. Call what it returns after Wait.
func (parts meParts) add(c *compose.Composition, cache *partCache, account string) (fill func(proto.Message)) {
	declared := make([]compose.Declared, len(parts))
	for i, part := range parts {
		declared[i] = compose.Declared{
			Name: string(part.Field), Required: part.Required, Limit: readLimit, Field: part.field,
			Fetch: func(ctx context.Context) (proto.Message, error) {
				response, err := part.cached(ctx, cache, account)
				if err != nil {
					return nil, err
				}
				return part.answer(account, response)
			},
		}
	}
	return c.Add(declared)
}

// cached returns the response to the part's call, from the cache where the method's
// answers are cached.
func (p *mePart) cached(ctx context.Context, cache *partCache, account string) (proto.Message, error) {
	fetch := func(ctx context.Context) (proto.Message, error) {
		response := p.response.New().Interface()
		return response, p.client.CallUnary(ctx, p.spec, p.request(account), response)
	}
	plan := rpc.CallFrom(ctx).Method
	if plan == nil || plan.Cache == nil {
		return fetch(ctx)
	}
	ttl := plan.Cache.TTL
	if len(p.Kinds) == 0 {
		ttl = min(ttl, maxChangeAge) // nobody reports changes
	}
	return fetchPart(ctx, cache, answercache.Part{Name: string(p.Field), ID: account, Kinds: p.Kinds, TTL: ttl}, fetch)
}

// CheckMe returns an error for fields of GetMe that nobody fills.
func CheckMe(backends []Backend) error {
	filled := slices.Clone(ownMeFields)
	for _, backend := range backends {
		if backend.Extension.Me != nil {
			filled = append(filled, backend.Extension.Me.Field)
		}
	}
	return checkFilled(meAnswer, filled)
}

func checkFilled(answer protoreflect.MessageDescriptor, filled []protoreflect.Name) error {
	for i := range answer.Fields().Len() {
		if field := answer.Fields().Get(i).Name(); !slices.Contains(filled, field) {
			return fmt.Errorf("%s has the field %q, which no service fills: set Me of the bff.Extension of its service", answer.FullName(), field)
		}
	}
	return nil
}
