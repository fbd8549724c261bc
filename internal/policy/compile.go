package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// Limits of the values in a policy.
const (
	maxTimeLimit  = 25 * time.Second // the HTTP server cuts off at writeTimeout
	maxRatePeriod = 24 * time.Hour
	// untaggedTTL is the maximum TTL of an answer that no write can invalidate.
	untaggedTTL = time.Second
)

// Compile compiles the policies of a server's methods, in their order, and tightens
// them by the settings. It returns every error in the schema or the settings, each
// with the name of its method or field.
//
// tags are added to those that the schema declares.
func Compile(specs []connect.Spec, limit time.Duration, settings string, tags ...CacheTag) ([]*Method, error) {
	var methods []*Method
	var faults []error
	for _, spec := range specs {
		m, err := compileMethod(spec, limit)
		if err == nil {
			err = m.addCacheTags(tags)
		}
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
		return nil, fmt.Errorf("%s: it has no schema, which must declare who may call it", spec.Procedure)
	}
	policy, ok := proto.GetExtension(method.Options(), policyv1.E_Method).(*policyv1.Method)
	if !ok || policy.GetAccess().GetWho() == nil {
		return nil, fmt.Errorf("%s: its schema does not declare who may call it: add an option (policy.v1.method).access", spec.Procedure)
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
		m.compileOpenStreams(policy.GetStreams()),
		m.compileCache(policy.GetCache()),
		m.compileInvalidates(policy.GetPurges()),
		m.compileCreated(policy),
		m.checkRules(),
		m.compileExample(policy),
		fieldFaults,
	)
}

// messageType returns the Go type of a message, if it is linked into the program.
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
			return p.errorf("admits the account in a field that is not usable: %w", err)
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
		return p.errorf("requires a recent sign-in, but does not require a sign-in")
	}
	return errors.Join(p.compileAssurance(policy), p.compileScopes(policy.GetScopes()))
}

func (p *Method) compileAssurance(policy *policyv1.Method) error {
	if policy.Assurance == nil {
		return nil
	}
	p.Assurance = policy.GetAssurance()
	switch p.Assurance {
	case policyv1.Assurance_ASSURANCE_ONE, policyv1.Assurance_ASSURANCE_TWO, policyv1.Assurance_ASSURANCE_OWN:
	default:
		return p.errorf("has an unknown assurance: use ASSURANCE_ONE, ASSURANCE_TWO or ASSURANCE_OWN")
	}
	if !p.needsSignIn() {
		return p.errorf("has an assurance, but does not require a sign-in")
	}
	return nil
}

// scope is the form of a scope. A space separates scopes in a token (RFC 6749, section
// 3.3).
var scope = regexp.MustCompile(`^[a-z][a-z0-9_.-]*(:[a-z0-9_.-]+)*$`)

func (p *Method) compileScopes(scopes []string) error {
	p.Scopes = scopes
	if len(scopes) == 0 {
		return nil
	}
	for i, one := range scopes {
		if !scope.MatchString(one) || slices.Contains(scopes[:i], one) {
			return p.errorf("has the scope %q, which is not a scope or comes twice: use one such as users:read", one)
		}
	}
	switch {
	case !p.needsSignIn():
		return p.errorf("names scopes, but does not require a sign-in")
	case p.RecentSignIn:
		return p.errorf("names scopes and requires a recent sign-in, which limited credentials never have")
	case p.Assurance == policyv1.Assurance_ASSURANCE_TWO, p.Assurance == policyv1.Assurance_ASSURANCE_OWN:
		return p.errorf("names scopes and requires %s, which limited credentials never have", p.Assurance)
	}
	return nil
}

func (p *Method) compileLimits(policy *policyv1.Method, limit time.Duration) error {
	var faults []error
	if !p.Streams() {
		p.TimeLimit = limit
	}
	if declared := policy.GetTimeLimit(); declared != nil {
		given, err := positive(declared)
		switch {
		case err != nil:
			faults = append(faults, p.errorf("has a time limit that %w", err))
		case p.Streams():
			faults = append(faults, p.errorf("has a time limit, but streams have none: remove it"))
		case given > maxTimeLimit:
			faults = append(faults, p.errorf("has a time limit of %s: the maximum is %s", given, maxTimeLimit))
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
			faults = append(faults, p.errorf("has an unknown criticality: use CRITICAL or SHEDDABLE"))
		}
	}
	return errors.Join(faults...)
}

func (p *Method) compileRetry(policy *policyv1.Method) error {
	p.IdempotencyKey = policy.GetIdempotencyKey()
	if p.IdempotencyKey && p.ReadsOnly() {
		return p.errorf("takes an idempotency key, but the method has no side effects: remove idempotency_key")
	}
	if p.IdempotencyKey && p.Streams() {
		return p.errorf("takes an idempotency key, but a stream cannot be replayed")
	}
	retry := policy.GetRetry()
	if retry == nil {
		return nil
	}
	p.Attempts = int(retry.GetAttempts())
	switch {
	case p.Attempts < 2 || p.Attempts > MaxAttempts:
		return p.errorf("retries with %d attempts: use 2 to %d, or remove retry", p.Attempts, MaxAttempts)
	case p.Streams():
		return p.errorf("retries, but a stream cannot be replayed")
	case p.spec.IdempotencyLevel == connect.IdempotencyUnknown && !p.IdempotencyKey:
		return p.errorf("retries a method that is not idempotent: declare an idempotency_level, or take an idempotency key")
	}
	return nil
}

func (p *Method) compileOpenStreams(streams *policyv1.Streams) error {
	if streams == nil {
		return nil
	}
	p.OpenStreams = &OpenStreams{PerCaller: int(streams.GetPerCaller()), Total: int(streams.GetTotal())}
	switch {
	case !p.Streams():
		return p.errorf("bounds open streams, but the method is no stream")
	case !p.needsSignIn():
		return p.errorf("bounds open streams, but the method does not require a sign-in")
	case p.OpenStreams.PerCaller < 1 || p.OpenStreams.Total < p.OpenStreams.PerCaller:
		return p.errorf("bounds open streams to %d for a caller and %d in all: use at least 1, and no fewer in all", p.OpenStreams.PerCaller, p.OpenStreams.Total)
	}
	return nil
}

func (p *Method) compileCache(cache *policyv1.Cache) error {
	if cache == nil {
		return nil
	}
	switch {
	case !p.ReadsOnly():
		return p.errorf("caches a method with side effects: declare NO_SIDE_EFFECTS, or remove the cache")
	case p.Streams():
		return p.errorf("caches a stream, which is not possible")
	}
	ttl, err := positive(cache.GetTtl())
	if err != nil {
		return p.errorf("has a cache with a ttl that %w", err)
	}
	kept := &Cache{TTL: ttl, Shared: cache.GetScope() == policyv1.CacheScope_CACHE_SCOPE_SHARED}
	switch cache.GetScope() {
	case policyv1.CacheScope_CACHE_SCOPE_SHARED:
		if _, anyone := p.Access.GetWho().(*policyv1.Access_Anyone); !anyone {
			return p.errorf("shares cached answers among all callers, but not everybody may call: use a private cache")
		}
	case policyv1.CacheScope_CACHE_SCOPE_PRIVATE:
		if !p.needsSignIn() {
			return p.errorf("has a private cache, but the method does not require a sign-in")
		}
		if cache.GetStaleWhileRevalidate() != nil || cache.GetStaleIfError() != nil {
			return p.errorf("has a private cache with stale answers: only a shared cache may have them")
		}
	default:
		return p.errorf("has a cache without a scope: add a scope")
	}
	for name, knob := range map[string]struct {
		declared *durationpb.Duration
		to       *time.Duration
	}{
		"stale_while_revalidate": {cache.GetStaleWhileRevalidate(), &kept.StaleWhileRevalidate},
		"stale_if_error":         {cache.GetStaleIfError(), &kept.StaleIfError},
	} {
		if knob.declared == nil {
			continue
		}
		if *knob.to, err = positive(knob.declared); err != nil {
			return p.errorf("has a %s that %w", name, err)
		}
	}
	if field := firstRedacted(p.Descriptor.Output()); field != nil {
		return p.errorf("caches answers with the redacted field %s", field.FullName())
	}
	kept.Tags, err = p.compileTags(cache.GetTags())
	if err != nil {
		return err
	}
	if len(kept.Tags) == 0 && ttl > untaggedTTL {
		return p.errorf("caches answers for %s that no write can invalidate: add tags, or use a ttl of at most %s", ttl, untaggedTTL)
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
		return p.errorf("declares a created resource, but the method has no side effects")
	case p.Streams():
		return p.errorf("declares a created resource, but the method is a stream")
	}
	if p.Created, err = newLocation(p.Descriptor.Output(), policy.GetCreated()); err != nil {
		return p.errorf("has an invalid location %q in created: %w", policy.GetCreated(), err)
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
		return fmt.Errorf("%s: the validation rules of its request do not compile: %w", p.Procedure, broken)
	}
	return nil
}

// checkInvalidates refuses tags to invalidate that no cached method has. Such tags are
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
				faults = append(faults, m.errorf("purges %q, a tag that no method's cache entries have", tag))
			}
		}
	}
	return errors.Join(faults...)
}

// positive returns a duration that must be set and greater than zero.
func positive(declared *durationpb.Duration) (time.Duration, error) {
	switch {
	case declared == nil:
		return 0, errors.New("is not set")
	case declared.CheckValid() != nil || declared.AsDuration() <= 0:
		return 0, errors.New("is not a positive duration")
	}
	return declared.AsDuration(), nil
}
