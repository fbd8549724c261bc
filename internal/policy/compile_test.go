package policy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

var (
	signedIn = &policyv1.Access{Who: &policyv1.Access_SignedIn{SignedIn: &policyv1.SignedIn{}}}
	private  = policyv1.CacheScope_CACHE_SCOPE_PRIVATE
	shared   = policyv1.CacheScope_CACHE_SCOPE_SHARED
)

// Each case is what somebody may write into a schema by mistake, and what the
// refusal to start must say of it.
func TestASchemaThatContradictsItselfIsRefused(t *testing.T) {
	t.Parallel()
	minute := &policyv1.Rate{Count: new(int32(10)), Period: rpctest.Seconds(60)}
	keeps := func(s *rpctest.Schema, cache *policyv1.Cache) {
		s.ReadOnly()
		s.Policy.Cache = cache
	}
	for _, test := range []struct {
		name  string
		spoil func(*rpctest.Schema)
		fault string
		where string // the method if ""
	}{
		{name: "no access", spoil: func(s *rpctest.Schema) { s.Policy.Access = nil }, fault: "does not declare who may call"},
		{name: "an access of nobody", spoil: func(s *rpctest.Schema) { s.Policy.Access = &policyv1.Access{} }, fault: "does not declare who may call"},
		{name: "no role", spoil: func(s *rpctest.Schema) {
			s.Policy.Access = &policyv1.Access{Who: &policyv1.Access_Roles{Roles: &policyv1.Roles{}}}
		}, fault: "names no role"},
		{name: "no service", spoil: func(s *rpctest.Schema) {
			s.Policy.Access = &policyv1.Access{Who: &policyv1.Access_Services{Services: &policyv1.Services{}}}
		}, fault: "names no service"},
		{name: "oneself by no field", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "" }, fault: `no single field ""`},
		{name: "oneself by a field that isn't there", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "user_id" }, fault: `no single field "user_id"`},
		{name: "oneself by a number", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "number" }, fault: `"number" is not a string`},
		{name: "oneself by a list", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "names" }, fault: `no single field "names"`},
		{name: "oneself by one of many", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "inners.id" }, fault: `no single field "inners.id"`},
		{name: "oneself by a map", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "by_name.key" }, fault: `no single field "by_name.key"`},
		{name: "oneself by a message", spoil: func(s *rpctest.Schema) { s.Policy.Access.GetSelf().Field = "inner" }, fault: `"inner" is not a string`},

		{name: "a recent sign-in of anyone", spoil: func(s *rpctest.Schema) { s.Policy.Access, s.Policy.RecentSignIn = policy.Anyone(), new(true) }, fault: "recent sign-in"},
		{name: "a recent sign-in of services", spoil: func(s *rpctest.Schema) {
			s.Policy.Access, s.Policy.RecentSignIn = rpctest.ForServices("bff").GetAccess(), new(true)
		}, fault: "recent sign-in"},

		{name: "an assurance that is said and isn't", spoil: func(s *rpctest.Schema) { s.Policy.Assurance = new(policyv1.Assurance_ASSURANCE_UNSPECIFIED) }, fault: "unknown assurance"},
		{name: "an assurance of anyone", spoil: func(s *rpctest.Schema) {
			s.Policy.Access, s.Policy.Assurance = policy.Anyone(), new(policyv1.Assurance_ASSURANCE_ONE)
		}, fault: "does not require a sign-in"},
		{name: "scopes of anyone", spoil: func(s *rpctest.Schema) { s.Policy.Access, s.Policy.Scopes = policy.Anyone(), []string{"users:read"} }, fault: "does not require a sign-in"},
		{name: "a scope that isn't one", spoil: func(s *rpctest.Schema) { s.Policy.Scopes = []string{"users read"} }, fault: "not a scope"},
		{name: "no scope", spoil: func(s *rpctest.Schema) { s.Policy.Scopes = []string{""} }, fault: "not a scope"},
		{name: "a scope twice", spoil: func(s *rpctest.Schema) { s.Policy.Scopes = []string{"users:read", "users:read"} }, fault: "comes twice"},
		{name: "scopes with a recent sign-in", spoil: func(s *rpctest.Schema) { s.Policy.Scopes, s.Policy.RecentSignIn = []string{"users:read"}, new(true) }, fault: "limited credentials never have"},
		{name: "scopes with level 2", spoil: func(s *rpctest.Schema) {
			s.Policy.Scopes, s.Policy.Assurance = []string{"users:read"}, new(policyv1.Assurance_ASSURANCE_TWO)
		}, fault: "limited credentials never have"},
		{name: "scopes with the account's level", spoil: func(s *rpctest.Schema) {
			s.Policy.Scopes, s.Policy.Assurance = []string{"users:read"}, new(policyv1.Assurance_ASSURANCE_OWN)
		}, fault: "limited credentials never have"},

		{name: "no time", spoil: func(s *rpctest.Schema) { s.Policy.TimeLimit = &durationpb.Duration{} }, fault: "time limit that is not a positive duration"},
		{name: "less than no time", spoil: func(s *rpctest.Schema) { s.Policy.TimeLimit = rpctest.Seconds(-1) }, fault: "time limit that is not a positive duration"},
		{name: "a time that isn't one", spoil: func(s *rpctest.Schema) { s.Policy.TimeLimit = &durationpb.Duration{Seconds: 1, Nanos: -1} }, fault: "time limit that is not a positive duration"},
		{name: "too much time", spoil: func(s *rpctest.Schema) { s.Policy.TimeLimit = rpctest.Seconds(26) }, fault: "maximum is 25s"},
		{name: "a time limit of a stream", spoil: func(s *rpctest.Schema) {
			s.StreamAnswers()
			s.Policy.TimeLimit = rpctest.Seconds(1)
		}, fault: "streams have none"},

		{name: "no attempts", spoil: func(s *rpctest.Schema) {
			s.ReadOnly()
			s.Policy.Retry = &policyv1.Retry{}
		}, fault: "retries with 0 attempts"},
		{name: "one attempt", spoil: func(s *rpctest.Schema) {
			s.ReadOnly()
			s.Policy.Retry = &policyv1.Retry{Attempts: new(int32(1))}
		}, fault: "retries with 1 attempts"},
		{name: "four attempts", spoil: func(s *rpctest.Schema) {
			s.ReadOnly()
			s.Policy.Retry = &policyv1.Retry{Attempts: new(int32(4))}
		}, fault: "retries with 4 attempts"},
		{name: "a retry of a method that is not idempotent", spoil: func(s *rpctest.Schema) { s.Policy.Retry = &policyv1.Retry{Attempts: new(int32(2))} }, fault: "not idempotent"},
		{name: "a retry of a stream", spoil: func(s *rpctest.Schema) {
			s.ReadOnly()
			s.StreamAnswers()
			s.Policy.Retry = &policyv1.Retry{Attempts: new(int32(2))}
		}, fault: "stream cannot be replayed"},

		{name: "a rate of nothing said", spoil: func(s *rpctest.Schema) { s.Policy.Rate = &policyv1.Rate{} }, fault: "period that is not set"},
		{name: "a rate without a count", spoil: func(s *rpctest.Schema) { s.Policy.Rate = &policyv1.Rate{Period: rpctest.Seconds(60)} }, fault: "count of at least 1"},
		{name: "a rate of less than nothing", spoil: func(s *rpctest.Schema) {
			s.Policy.Rate = &policyv1.Rate{Count: new(int32(-1)), Period: rpctest.Seconds(60)}
		}, fault: "count of at least 1"},
		{name: "a rate without a period", spoil: func(s *rpctest.Schema) { s.Policy.Rate = &policyv1.Rate{Count: new(int32(1))} }, fault: "period that is not set"},
		{name: "a period too short", spoil: func(s *rpctest.Schema) {
			s.Policy.Rate = &policyv1.Rate{Count: new(int32(1)), Period: durationpb.New(time.Millisecond)}
		}, fault: "use 1 s to 24 h"},
		{name: "a period too long", spoil: func(s *rpctest.Schema) {
			s.Policy.Rate = &policyv1.Rate{Count: new(int32(1)), Period: rpctest.Seconds(86401)}
		}, fault: "use 1 s to 24 h"},
		{name: "a burst of none", spoil: func(s *rpctest.Schema) {
			s.Policy.Rate = proto.CloneOf(minute)
			s.Policy.Rate.Burst = new(int32(0))
		}, fault: "burst of at least 1"},

		{name: "a criticality that is said and isn't", spoil: func(s *rpctest.Schema) { s.Policy.Criticality = new(policyv1.Criticality_CRITICALITY_UNSPECIFIED) }, fault: "unknown criticality"},
		{name: "a criticality that isn't known", spoil: func(s *rpctest.Schema) { s.Policy.Criticality = new(policyv1.Criticality(7)) }, fault: "unknown criticality"},

		{name: "a cache of a write", spoil: func(s *rpctest.Schema) { s.Policy.Cache = &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private} }, fault: "side effects"},
		{name: "a cache of an idempotent write", spoil: func(s *rpctest.Schema) {
			s.Method.Options.IdempotencyLevel = new(descriptorpb.MethodOptions_IDEMPOTENT)
			s.Policy.Cache = &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private}
		}, fault: "side effects"},
		{name: "a cache of a stream", spoil: func(s *rpctest.Schema) {
			s.StreamAnswers()
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private})
		}, fault: "caches a stream"},
		{name: "a cache for no time", spoil: func(s *rpctest.Schema) { keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(0), Scope: &private}) }, fault: "ttl that is not a positive duration"},
		{name: "a cache for a time that isn't said", spoil: func(s *rpctest.Schema) { keeps(s, &policyv1.Cache{Scope: &private}) }, fault: "ttl that is not set"},
		{name: "a cache of nobody's", spoil: func(s *rpctest.Schema) { keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1)}) }, fault: "add a scope"},
		{name: "a cache of an unspecified scope", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: new(policyv1.CacheScope_CACHE_SCOPE_UNSPECIFIED)})
		}, fault: "add a scope"},
		{name: "a private cache that revalidates late", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, StaleWhileRevalidate: rpctest.Seconds(1)})
		}, fault: "only a shared cache may"},
		{name: "a private cache that hides errors", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, StaleIfError: rpctest.Seconds(1)})
		}, fault: "only a shared cache may"},
		{name: "a private cache of anyone", spoil: func(s *rpctest.Schema) {
			s.Policy.Access = policy.Anyone()
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private})
		}, fault: "does not require a sign-in"},
		{name: "a shared cache of one's own", spoil: func(s *rpctest.Schema) { keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &shared}) }, fault: "not everybody may call"},
		{name: "a shared cache of the signed in", spoil: func(s *rpctest.Schema) {
			s.Policy.Access = signedIn
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &shared})
		}, fault: "not everybody may call"},
		{name: "a shared cache with the caller's tag", spoil: func(s *rpctest.Schema) {
			s.Policy.Access = policy.Anyone()
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &shared, Tags: []string{"account/{caller}"}})
		}, fault: "does not require a sign-in"},
		{name: "a stale answer for no time", spoil: func(s *rpctest.Schema) {
			s.Policy.Access = policy.Anyone()
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &shared, StaleIfError: rpctest.Seconds(0)})
		}, fault: "stale_if_error that is not a positive duration"},
		{name: "a kept secret", spoil: func(s *rpctest.Schema) {
			s.Response.Field = append(s.Response.Field, proto.CloneOf(s.Inner.Field[2]))
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private})
		}, fault: "redacted field sketch.v1.Response.token"},
		{name: "a kept secret within", spoil: func(s *rpctest.Schema) {
			s.Response.Field = append(s.Response.Field, proto.CloneOf(s.Request.Field[5]))
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private})
		}, fault: "redacted field sketch.v1.Inner.token"},
		{name: "a long life that no write can end", spoil: func(s *rpctest.Schema) { keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(2), Scope: &private}) }, fault: "no write can invalidate"},

		{name: "a tag that isn't one", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/id"}})
		}, fault: `a tag "account/id"`},
		{name: "a tag of a field that isn't there", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/{user_id}"}})
		}, fault: `no single field "user_id"`},
		{name: "a tag of a number", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/{number}"}})
		}, fault: `"number" is not a string`},
		{name: "a tag of a secret", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/{password}"}})
		}, fault: "sketch.v1.Request.password is redacted"},
		{name: "a tag of a secret within", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/{inner.token}"}})
		}, fault: "sketch.v1.Inner.token is redacted"},

		{name: "a purge by a read", spoil: func(s *rpctest.Schema) {
			keeps(s, &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/{id}"}})
			s.Policy.Purges = []string{"account/{id}"}
		}, fault: "purges, and the method has no side effects"},
		{name: "an example that is no JSON", spoil: func(s *rpctest.Schema) { s.Policy.Example = new("id") }, fault: "has an example that isn't a valid request"},
		{name: "an example of other fields", spoil: func(s *rpctest.Schema) { s.Policy.Example = new(`{"nothing":1}`) }, fault: `unknown field "nothing"`},
		{name: "a purge of a tag that nobody has", spoil: func(s *rpctest.Schema) { s.Policy.Purges = []string{"acount/{id}"} }, fault: `purges "acount/{id}", a tag that no method's`},
		{name: "a purge of a tag without its id", spoil: func(s *rpctest.Schema) { s.Policy.Purges = []string{"account"} }, fault: `purges "account", a tag that no method's`},
		{name: "a purge of the caller's who isn't known", spoil: func(s *rpctest.Schema) {
			s.Policy.Access, s.Policy.Purges = policy.Anyone(), []string{"account/{caller}"}
		}, fault: "does not require a sign-in"},

		{name: "a key for a read", spoil: func(s *rpctest.Schema) {
			s.ReadOnly()
			s.Policy.IdempotencyKey = new(true)
		}, fault: "idempotency key, but the method has no side effects"},
		{name: "a key for a stream", spoil: func(s *rpctest.Schema) {
			s.StreamAnswers()
			s.Policy.IdempotencyKey = new(true)
		}, fault: "idempotency key, but a stream"},

		{name: "a place that isn't one", spoil: func(s *rpctest.Schema) { s.Policy.Created = new("things/{id}") }, fault: `invalid location "things/{id}" in created: write a path`},
		{name: "no place", spoil: func(s *rpctest.Schema) { s.Policy.Created = new("") }, fault: `invalid location "" in created: write a path`},
		{name: "a place by a field that isn't there", spoil: func(s *rpctest.Schema) { s.Policy.Created = new("/things/{user_id}") }, fault: `Response has no single field "user_id"`},
		{name: "a place of a read's", spoil: func(s *rpctest.Schema) {
			s.ReadOnly()
			s.Policy.Created = new("/things/{id}")
		}, fault: "created resource, but the method has no side effects"},
		{name: "a place of a stream's", spoil: func(s *rpctest.Schema) {
			s.StreamAnswers()
			s.Policy.Created = new("/things/{id}")
		}, fault: "created resource, but the method is a stream"},

		{name: "a number to normalise", spoil: func(s *rpctest.Schema) { s.Normalize(2, &policyv1.Normalize{Trim: new(true)}) }, fault: "not a string", where: "sketch.v1.Request.number"},
		{name: "a message to normalise", spoil: func(s *rpctest.Schema) { s.Normalize(4, &policyv1.Normalize{Trim: new(true)}) }, fault: "not a string", where: "sketch.v1.Request.inner"},
		{name: "a map to normalise", spoil: func(s *rpctest.Schema) { s.Normalize(7, &policyv1.Normalize{Trim: new(true)}) }, fault: "not a string", where: "sketch.v1.Request.by_name"},
		{name: "a map's key to normalise", spoil: func(s *rpctest.Schema) {
			rpctest.SetField(s.Request.NestedType[0].Field[0], &policyv1.Field{Normalize: &policyv1.Normalize{Trim: new(true)}})
		}, fault: "not a string", where: "sketch.v1.Request.ByNameEntry.key"},
		{name: "nothing to do", spoil: func(s *rpctest.Schema) { s.Normalize(1, &policyv1.Normalize{}) }, fault: "empty normalization", where: "sketch.v1.Request.id"},
		{name: "steps that are all refused", spoil: func(s *rpctest.Schema) { s.Normalize(1, &policyv1.Normalize{Trim: new(false)}) }, fault: "empty normalization", where: "sketch.v1.Request.id"},
		{name: "an email in lower case", spoil: func(s *rpctest.Schema) { s.Normalize(1, &policyv1.Normalize{Email: new(true), LowerCase: new(true)}) }, fault: "email with other normalizations", where: "sketch.v1.Request.id"},
		{name: "a form that is said and isn't", spoil: func(s *rpctest.Schema) {
			s.Normalize(1, &policyv1.Normalize{Form: new(policyv1.UnicodeForm_UNICODE_FORM_UNSPECIFIED)})
		}, fault: "unknown Unicode normalization form", where: "sketch.v1.Request.id"},
		{name: "a fault deep within", spoil: func(s *rpctest.Schema) {
			rpctest.SetField(s.Inner.Field[0], &policyv1.Field{Normalize: &policyv1.Normalize{}})
		}, fault: "empty normalization", where: "sketch.v1.Inner.id"},
		{name: "a fault in the response", spoil: func(s *rpctest.Schema) {
			rpctest.SetField(s.Response.Field[0], &policyv1.Field{Normalize: &policyv1.Normalize{}})
		}, fault: "empty normalization", where: "sketch.v1.Response.id"},

		{name: "a rule that can't be read", spoil: func(s *rpctest.Schema) {
			s.Request.Options = &descriptorpb.MessageOptions{}
			proto.SetExtension(s.Request.Options, validate.E_Message, &validate.MessageRules{
				Cel: []*validate.Rule{{Id: new("broken"), Expression: new("this.nothing ==")}},
			})
		}, fault: "validation rules of its request do not compile"},
	} {
		s := rpctest.NewSchema()
		test.spoil(s)
		err := startSketch(t, s, "")
		where := test.where
		if where == "" {
			where = rpctest.SchemaProcedure
		}
		if err == nil || !strings.Contains(err.Error(), test.fault) || !strings.Contains(err.Error(), where+": ") {
			t.Errorf("%s: got %v, want a refusal of %s with %q", test.name, err, where, test.fault)
		}
	}
}

// startSketch compiles the schema, and where it purges that of a read whose answers
// have the tag "account/{id}".
func startSketch(t testing.TB, s *rpctest.Schema, settings string) error {
	t.Helper()
	specs := []connect.Spec{s.Spec(t)}
	if len(s.Policy.Purges) > 0 {
		other := rpctest.NewSchema()
		other.ReadOnly()
		other.Policy.Cache = &policyv1.Cache{Ttl: rpctest.Seconds(1), Scope: &private, Tags: []string{"account/{id}"}}
		spec := other.Spec(t)
		spec.Procedure = "/sketch.v1.OtherService/Read"
		specs = append(specs, spec)
	}
	_, err := policy.Compile(specs, rpc.DefaultLimit, settings)
	return err
}

func TestAllFaultsOfASchemaAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	s := rpctest.NewSchema()
	s.Policy.TimeLimit, s.Policy.Rate, s.Policy.Retry = rpctest.Seconds(0), &policyv1.Rate{}, &policyv1.Retry{}
	s.Normalize(2, &policyv1.Normalize{Trim: new(true)})
	err := startSketch(t, s, "")
	for _, fault := range []string{"time limit", "rate", "retries", "sketch.v1.Request.number"} {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("got %v, want it to name the %s too", err, fault)
		}
	}
}

// What is said is what the plan holds, and what isn't has its default.
func TestACompiledPolicyMatchesTheSchema(t *testing.T) {
	t.Parallel()
	plain := planOf(t, rpctest.NewSchema())
	if plain.TimeLimit != rpc.DefaultLimit || plain.Attempts != 1 || plain.Rate != nil || plain.Sheddable || plain.Cache != nil || plain.RecentSignIn || plain.IdempotencyKey || plain.Created != nil || len(plain.Invalidates) != 0 {
		t.Errorf("what isn't said: got %+v, want the defaults", plain)
	}

	read := rpctest.NewSchema()
	read.ReadOnly()
	read.Policy.TimeLimit, read.Policy.Retry, read.Policy.RecentSignIn = rpctest.Seconds(3), &policyv1.Retry{Attempts: new(int32(3))}, new(true)
	read.Policy.Rate = &policyv1.Rate{Count: new(int32(10)), Period: rpctest.Seconds(60), Burst: new(int32(4))}
	read.Policy.Criticality = new(policyv1.Criticality_CRITICALITY_SHEDDABLE)
	read.Policy.Cache = &policyv1.Cache{Ttl: rpctest.Seconds(9), Scope: &private, Tags: []string{"account/{caller}", "thing/{inner.next.id}", "things"}}
	got := planOf(t, read)
	if got.TimeLimit != 3*time.Second || got.Attempts != 3 || !got.Sheddable || !got.RecentSignIn {
		t.Errorf("a read: got %+v", got)
	}
	if got.Rate == nil || *got.Rate != (policy.Rate{Count: 10, Burst: 4, Period: time.Minute}) {
		t.Errorf("a read's rate: got %v, want 10/m burst=4", got.Rate)
	}
	if got.Cache == nil || got.Cache.TTL != 9*time.Second || got.Cache.Shared || got.Cache.StaleIfError != 0 {
		t.Fatalf("a read's cache: got %+v, want a private one of 9 s", got.Cache)
	}
	request := newDynamic(t, got.Descriptor, `{"inner":{"next":{"id":"n"}}}`)
	var tags []string
	for _, tag := range got.Cache.Tags {
		tags = append(tags, tag.For("me", request))
	}
	if want := []string{"account/me", "thing/n", "things"}; !slices.Equal(tags, want) {
		t.Errorf("a read's tags: got %q, want %q", tags, want)
	}

	common := rpctest.NewSchema()
	common.ReadOnly()
	common.Policy.Access = policy.Anyone()
	common.Policy.Cache = &policyv1.Cache{Ttl: rpctest.Seconds(60), Scope: &shared, StaleWhileRevalidate: rpctest.Seconds(5), StaleIfError: rpctest.Seconds(50), Tags: []string{"things"}}
	if got := planOf(t, common).Cache; got == nil || !got.Shared || got.StaleWhileRevalidate != 5*time.Second || got.StaleIfError != 50*time.Second {
		t.Errorf("a shared cache: got %+v", got)
	}

	write := rpctest.NewSchema()
	write.Policy.IdempotencyKey, write.Policy.Retry = new(true), &policyv1.Retry{Attempts: new(int32(2))}
	write.Policy.Criticality, write.Policy.Created = new(policyv1.Criticality_CRITICALITY_CRITICAL), new("/things/{id}/parts")
	wrote := planOf(t, write)
	for answer, want := range map[string]string{`{"id":"a/b"}`: "/things/a%2Fb/parts", `{}`: ""} {
		message := dynamicpb.NewMessage(wrote.Descriptor.Output())
		if err := protojson.Unmarshal([]byte(answer), message); err != nil {
			t.Fatal(err)
		}
		if got := wrote.Created.Path(message); got != want {
			t.Errorf("where a write's answer %s leads: got %q, want %q", answer, got, want)
		}
	}
	if !wrote.IdempotencyKey || wrote.Attempts != 2 || wrote.Sheddable {
		t.Errorf("a write with a key: got %+v", wrote)
	}

	stream := rpctest.NewSchema()
	stream.StreamAnswers()
	if got := planOf(t, stream); got.TimeLimit != 0 {
		t.Errorf("a stream: got a time limit of %s, want none", got.TimeLimit)
	}
}

// planOf compiles a sketch.
func planOf(t testing.TB, s *rpctest.Schema) *policy.Method {
	t.Helper()
	plans, err := policy.Compile([]connect.Spec{s.Spec(t)}, rpc.DefaultLimit, "")
	if err != nil {
		t.Fatal(err)
	}
	return plans[0]
}

func TestSettingsTightenAndNeverLoosen(t *testing.T) {
	t.Parallel()
	const name = "sketch.v1.SketchService/Call"
	sketched := func(rate *policyv1.Rate) *rpctest.Schema {
		s := rpctest.NewSchema()
		s.Policy.TimeLimit, s.Policy.Rate = rpctest.Seconds(2), rate
		return s
	}
	tenAMinute := &policyv1.Rate{Count: new(int32(10)), Period: rpctest.Seconds(60), Burst: new(int32(5))}
	for _, test := range []struct {
		settings string
		rate     *policyv1.Rate
		limit    time.Duration
		want     string
	}{
		{settings: "", rate: tenAMinute, limit: 2 * time.Second, want: "10/m burst=5"},
		{settings: " \n# nothing\n;;\n", rate: tenAMinute, limit: 2 * time.Second, want: "10/m burst=5"},
		{settings: name + " limit=1500ms", rate: tenAMinute, limit: 1500 * time.Millisecond, want: "10/m burst=5"},
		{settings: "/" + name + " limit=2s", rate: tenAMinute, limit: 2 * time.Second, want: "10/m burst=5"},
		{settings: name + " rate=4/m # for the holidays", rate: tenAMinute, limit: 2 * time.Second, want: "4/m"},
		{settings: name + " rate=100/h", rate: tenAMinute, limit: 2 * time.Second, want: "100/h burst=5"},
		{settings: name + " rate=10/m burst=5", rate: tenAMinute, limit: 2 * time.Second, want: "10/m burst=5"},
		{settings: name + " burst=1 limit=1s", rate: tenAMinute, limit: time.Second, want: "10/m burst=1"},
		{settings: name + " rate=1/90s", rate: tenAMinute, limit: 2 * time.Second, want: "1/1m30s"},
		{settings: name + " rate=1000/s burst=2000", limit: 2 * time.Second, want: "1000/s burst=2000"},
	} {
		plans, err := policy.Compile([]connect.Spec{sketched(test.rate).Spec(t)}, rpc.DefaultLimit, test.settings)
		if err != nil {
			t.Errorf("%q: %v", test.settings, err)
			continue
		}
		got := plans[0]
		if got.TimeLimit != test.limit || got.Rate.String() != test.want {
			t.Errorf("%q: got limit %s and rate %s, want %s and %s", test.settings, got.TimeLimit, got.Rate, test.limit, test.want)
		}
	}
	for _, test := range []struct{ settings, fault string }{
		{name + " limit=2001ms", "looser than the schema's 2s"},
		{name + " limit=0s", "not a duration"},
		{name + " limit=-1s", "not a duration"},
		{name + " limit=soon", "not a duration"},
		{name + " limit=", "must have one value"},
		{name + " limit=1s limit=2s", "must have one value"},
		{name + " rate=11/m", "looser than the schema's 10/m burst=5"},
		{name + " rate=1/s", "looser"},
		{name + " rate=601/h", "looser"},
		{name + " rate=10/m burst=6", "looser"},
		{name + " burst=6", "looser"},
		{name + " rate=0/m", "count of at least 1"},
		{name + " rate=many/m", "count of at least 1"},
		{name + " rate=1/fortnight", "use 1 s to 24 h"},
		{name + " rate=1", "use 1 s to 24 h"},
		{name + " rate=1/m burst=0", "burst of at least 1"},
		{name + " access=anyone", "cannot be set"},
		{name + " limit", "cannot be set"},
		{name, "no options"},
		{name + " limit=1s\n" + name + " rate=1/m", "two entries"},
		{"sketch.v1.SketchService/Cal limit=1s", "no such method"},
		{"* limit=1s", "no such method"},
	} {
		err := startSketch(t, sketched(tenAMinute), test.settings)
		if err == nil || !strings.Contains(err.Error(), test.fault) || !strings.Contains(err.Error(), strings.Fields(test.settings)[0]) {
			t.Errorf("%q: got %v, want a refusal with %q that names the method", test.settings, err, test.fault)
		}
	}
	if err := startSketch(t, sketched(nil), name+" burst=3"); err == nil || !strings.Contains(err.Error(), "needs a rate=") {
		t.Errorf("a burst without a rate: got %v, want a refusal", err)
	}
	stream := rpctest.NewSchema()
	stream.StreamAnswers()
	if err := startSketch(t, stream, name+" limit=1s"); err == nil || !strings.Contains(err.Error(), "no time limit to tighten") {
		t.Errorf("a limit of a stream: got %v, want a refusal", err)
	}
}
