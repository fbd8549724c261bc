package policy

import (
	"errors"
	"fmt"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "gatehouse/gen/policy/v1"
)

// Bounds on the values in a policy.
const (
	maxTimeLimit  = 25 * time.Second // the HTTP server cuts off at writeTimeout
	maxRatePeriod = 24 * time.Hour
	// untaggedTTL is how old an answer may be that no write can purge.
	untaggedTTL = time.Second
)

// Compile compiles the policies of a server's methods, in their order, and tightens
// them by the settings. It returns every error in the schema or the settings, each
// with the name of its method or field.
func Compile(specs []connect.Spec, limit time.Duration, settings string) ([]*Method, error) {
	var methods []*Method
	var faults []error
	for _, spec := range specs {
		m, err := compileMethod(spec, limit)
		methods, faults = append(methods, m), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if err := checkInvalidates(methods); err != nil {
		return nil, err
	}
	return methods, tighten(methods, settings)
}

// compileMethod compiles the policy of one method. limit applies when the method has
// no time limit.
func compileMethod(spec connect.Spec, limit time.Duration) (*Method, error) {
	method, ok := spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s: it has no schema, so nothing says who may call it", spec.Procedure)
	}
	policy, ok := proto.GetExtension(method.Options(), policyv1.E_Method).(*policyv1.Method)
	if !ok || policy.GetAccess().GetWho() == nil {
		return nil, fmt.Errorf("%s: its schema doesn't say who may call it: add an option (policy.v1.method).access", spec.Procedure)
	}
	m := &Method{
		Procedure: spec.Procedure, Descriptor: method, Access: policy.GetAccess(), spec: spec,
		request: messageType(method.Input()), Attempts: 1,
	}
	fieldFaults := errors.Join(checkFields(method.Input()), checkFields(method.Output()))
	if fieldFaults == nil {
		m.normalizer = newNormalizer(method.Input())
	}
	return m, errors.Join(
		m.compileAccess(policy),
		m.compileLimits(policy, limit),
		m.compileRetry(policy),
		m.compileCache(policy.GetCache()),
		m.compileInvalidates(policy.GetPurges()),
		m.compileCreated(policy),
		m.checkRules(),
		m.compileExample(policy),
		fieldFaults,
	)
}

// messageType finds the Go type of a message. One that isn't linked in has none.
func messageType(message protoreflect.MessageDescriptor) protoreflect.MessageType {
	linked, err := protoregistry.GlobalTypes.FindMessageByName(message.FullName())
	if err == nil && linked.Descriptor() == message {
		return linked
	}
	return dynamicpb.NewMessageType(message)
}

// errorf returns an error about a contradiction in the method's schema.
func (p *Method) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: its policy "+format, append([]any{p.Procedure}, args...)...)
}

func (p *Method) compileAccess(policy *policyv1.Method) (err error) {
	switch who := p.Access.GetWho().(type) {
	case *policyv1.Access_Self:
		p.Self, err = findField(p.Descriptor.Input(), who.Self.GetField())
		if err != nil {
			return p.errorf("lets oneself call by a field that can't tell: %w", err)
		}
	case *policyv1.Access_Roles:
		if len(who.Roles.GetAnyOf()) == 0 {
			return p.errorf("names no role")
		}
	case *policyv1.Access_Services:
		if len(who.Services.GetAnyOf()) == 0 {
			return p.errorf("names no service")
		}
	}
	p.RecentSignIn = policy.GetRecentSignIn()
	if p.RecentSignIn && !p.needsSignIn() {
		return p.errorf("wants a recent sign-in of callers who don't sign in")
	}
	return nil
}

func (p *Method) compileLimits(policy *policyv1.Method, limit time.Duration) error {
	var faults []error
	if !p.Streams() {
		p.TimeLimit = limit
	}
	if said := policy.GetTimeLimit(); said != nil {
		given, err := positive(said)
		switch {
		case err != nil:
			faults = append(faults, p.errorf("has a time limit that %w", err))
		case p.Streams():
			faults = append(faults, p.errorf("has a time limit, and a stream has no end of its own"))
		case given > maxTimeLimit:
			faults = append(faults, p.errorf("has a time limit of %s: at most %s can be kept", given, maxTimeLimit))
		default:
			p.TimeLimit = given
		}
	}
	if rate := policy.GetRate(); rate != nil {
		compiled, err := compileRate(rate)
		if err != nil {
			faults = append(faults, p.errorf("has a rate that %w", err))
		}
		p.Rate = compiled
	}
	if policy.Criticality != nil {
		switch policy.GetCriticality() {
		case policyv1.Criticality_CRITICALITY_CRITICAL:
		case policyv1.Criticality_CRITICALITY_SHEDDABLE:
			p.Sheddable = true
		default:
			faults = append(faults, p.errorf("has a criticality that isn't one: say CRITICAL or SHEDDABLE"))
		}
	}
	return errors.Join(faults...)
}

func (p *Method) compileRetry(policy *policyv1.Method) error {
	p.IdempotencyKey = policy.GetIdempotencyKey()
	if p.IdempotencyKey && p.ReadsOnly() {
		return p.errorf("takes an idempotency key, and the method has no side effects that a key could keep to one")
	}
	if p.IdempotencyKey && p.Streams() {
		return p.errorf("takes an idempotency key, and a stream can't be given again")
	}
	retry := policy.GetRetry()
	if retry == nil {
		return nil
	}
	p.Attempts = int(retry.GetAttempts())
	switch {
	case p.Attempts < 2 || p.Attempts > MaxAttempts:
		return p.errorf("retries with %d attempts: say 2 to %d, or leave it out", p.Attempts, MaxAttempts)
	case p.Streams():
		return p.errorf("retries, and a stream can't be given again")
	case p.spec.IdempotencyLevel == connect.IdempotencyUnknown && !p.IdempotencyKey:
		return p.errorf("retries what may not be done twice: declare an idempotency_level, or take an idempotency key")
	}
	return nil
}

func (p *Method) compileCache(cache *policyv1.Cache) error {
	if cache == nil {
		return nil
	}
	switch {
	case !p.ReadsOnly():
		return p.errorf("keeps answers of a method with side effects: declare NO_SIDE_EFFECTS, or leave the cache out")
	case p.Streams():
		return p.errorf("keeps answers, and a stream's can't be kept")
	}
	ttl, err := positive(cache.GetTtl())
	if err != nil {
		return p.errorf("keeps answers for a ttl that %w", err)
	}
	kept := &Cache{TTL: ttl, Shared: cache.GetScope() == policyv1.CacheScope_CACHE_SCOPE_SHARED}
	switch cache.GetScope() {
	case policyv1.CacheScope_CACHE_SCOPE_SHARED:
		if _, anyone := p.Access.GetWho().(*policyv1.Access_Anyone); !anyone {
			return p.errorf("shares kept answers among callers, and not anyone may call")
		}
	case policyv1.CacheScope_CACHE_SCOPE_PRIVATE:
		if !p.needsSignIn() {
			return p.errorf("keeps answers for each caller, and nobody says who they are")
		}
		if cache.GetStaleWhileRevalidate() != nil || cache.GetStaleIfError() != nil {
			return p.errorf("gives stale answers from a private cache: only a shared one may")
		}
	default:
		return p.errorf("doesn't say whose the kept answers are: add a scope")
	}
	for name, knob := range map[string]struct {
		said *durationpb.Duration
		to   *time.Duration
	}{
		"stale_while_revalidate": {cache.GetStaleWhileRevalidate(), &kept.StaleWhileRevalidate},
		"stale_if_error":         {cache.GetStaleIfError(), &kept.StaleIfError},
	} {
		if knob.said == nil {
			continue
		}
		if *knob.to, err = positive(knob.said); err != nil {
			return p.errorf("has a %s that %w", name, err)
		}
	}
	if field := firstRedacted(p.Descriptor.Output()); field != nil {
		return p.errorf("keeps answers that hold the redacted field %s", field.FullName())
	}
	kept.Tags, err = p.compileTags(cache.GetTags())
	if err != nil {
		return err
	}
	if len(kept.Tags) == 0 && ttl > untaggedTTL {
		return p.errorf("keeps answers for %s that no write can purge: give it tags, or at most %s", ttl, untaggedTTL)
	}
	p.Cache = kept
	return nil
}

func (p *Method) compileInvalidates(tags []string) (err error) {
	if len(tags) > 0 && p.ReadsOnly() {
		return p.errorf("purges, and the method has no side effects")
	}
	p.Invalidates, err = p.compileTags(tags)
	return err
}

func (p *Method) compileCreated(policy *policyv1.Method) (err error) {
	switch {
	case policy.Created == nil:
		return nil
	case p.ReadsOnly():
		return p.errorf("creates, and the method has no side effects")
	case p.Streams():
		return p.errorf("creates, and a stream's answer has no one place")
	}
	if p.Created, err = newLocation(p.Descriptor.Output(), policy.GetCreated()); err != nil {
		return p.errorf("creates at %q: %w", policy.GetCreated(), err)
	}
	return nil
}

func (p *Method) compileExample(policy *policyv1.Method) error {
	if policy.Example == nil {
		return nil
	}
	p.Example = policy.GetExample()
	if err := p.CheckExample([]byte(p.Example)); err != nil {
		return p.errorf("has an example that isn't a valid request: %w", err)
	}
	return nil
}

// checkRules compiles the validation rules of the request: otherwise the first caller
// would find them broken.
func (p *Method) checkRules() error {
	err := protovalidate.Validate(p.request.New().Interface())
	if broken, ok := errors.AsType[*protovalidate.CompilationError](err); ok {
		return fmt.Errorf("%s: the rules of its request can't be held: %w", p.Procedure, broken)
	}
	return nil
}

// checkInvalidates refuses tags to invalidate that no cache entry has: they are
// misspelt or obsolete.
func checkInvalidates(methods []*Method) error {
	known := map[string]bool{}
	for _, m := range methods {
		if m.Cache == nil {
			continue
		}
		for _, tag := range m.Cache.Tags {
			known[tag.family()] = true
		}
	}
	var faults []error
	for _, m := range methods {
		for _, tag := range m.Invalidates {
			if !known[tag.family()] {
				faults = append(faults, m.errorf("purges %q, a tag that no method's kept answers have", tag))
			}
		}
	}
	return errors.Join(faults...)
}

// positive returns a duration that must be set and greater than zero.
func positive(said *durationpb.Duration) (time.Duration, error) {
	switch {
	case said == nil:
		return 0, errors.New("isn't said")
	case said.CheckValid() != nil || said.AsDuration() <= 0:
		return 0, errors.New("isn't a time of more than nothing")
	}
	return said.AsDuration(), nil
}
