package bff

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/bff/browser"
	"gatehouse/bff/standbys"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/answercache"
	"gatehouse/internal/calltrace"
	"gatehouse/internal/policy"
	"gatehouse/internal/readposition"
	"gatehouse/internal/rpc"
)

// defaultCacheBytes bounds the cache where the settings do not.
const defaultCacheBytes = 64 << 20

// CacheNothing is the bound with which no answer is cached, or shared among callers.
const CacheNothing = -1

// sessionsKind is the kind of tag of lists of sessions.
const sessionsKind = "sessions"

// maxSessionsTTL bounds the life of cached sessions: a refresh changes their
// last_used_time and expire_time, and is not announced unless the client's address
// or user agent changes.
const maxSessionsTTL = 10 * time.Second

// newSession is how long after a sign-in the account and sessions of a caller are read from
// the primary: another gateway may just have begun the session. It allows for the difference
// of clocks. A sign-in at a provider, or with a slow second factor, is older than its
// session: see ownSessions.
const newSession = time.Minute

// partCache is the cache, and which parts of answers it may hold.
type partCache struct {
	*answercache.Cache
	cacheable map[protoreflect.FullName]bool
	positions *standbys.Positions
}

// fill gives the fetch of an answer the positions at which it may read from standbys.
func fill(positions *standbys.Positions) func(context.Context, []string) (context.Context, time.Duration) {
	return func(ctx context.Context, tags []string) (context.Context, time.Duration) {
		if who := caller(ctx); who != nil && time.Since(who.SignIn.AuthTime) < newSession && slices.Contains(tags, sessionsKind+"/"+who.UserID) {
			return readposition.With(ctx, nil), 0
		}
		found, age := positions.For(tags)
		return readposition.With(ctx, found), age
	}
}

func newCache(bytes int64, backends []Backend, positions *standbys.Positions, current func(kinds []string) bool) (*partCache, error) {
	parts := ownParts()
	for _, backend := range backends {
		parts = append(parts, backend.Extension.Cacheable...)
	}
	if err := checkNoSecrets(parts...); err != nil {
		return nil, err
	}
	cacheable := map[protoreflect.FullName]bool{}
	for _, part := range parts {
		cacheable[part.ProtoReflect().Descriptor().FullName()] = true
	}
	cache, err := answercache.New(answercache.Config{
		Bytes:   cmp.Or(bytes, defaultCacheBytes),
		Current: current,
		Caller: func(ctx context.Context) answercache.Caller {
			if who := caller(ctx); who != nil {
				return who
			}
			return nil
		},
		Request: func(ctx context.Context) proto.Message { return rpc.CallFrom(ctx).Request },
		Detach: func(ctx context.Context, limit time.Duration, anonymous bool) (context.Context, context.CancelFunc) {
			ctx = browser.WithoutCookies(ctx)
			if anonymous {
				ctx = context.WithValue(ctx, principalKey{}, nil)
			}
			return rpc.Detached(ctx, limit)
		},
		Fill: fill(positions), Wrote: positions.Wrote,
		Counter: cacheCounter,
	})
	return &partCache{cache, cacheable, positions}, err
}

// answers is the cache in the chain of a call.
type answers struct {
	*partCache
	feedOwners map[string]string // see [Service]
}

func (s *Service) answers() answers { return answers{s.cache, s.feedOwners} }

// interceptor answers a method from the cache, invalidates what it writes, or gives its
// answers ETags. It returns an error when no feed reports changes of the data in a
// cached answer. It is an [rpc.Interceptor].
func (c answers) interceptor(plan *policy.Method) (connect.ServerInterceptor, error) {
	switch {
	case plan.Cache != nil:
		method := answercache.Method{
			Procedure: plan.Procedure, Schema: plan.Descriptor, TimeLimit: plan.TimeLimit,
			TTL: plan.Cache.TTL, StaleWhileRevalidate: plan.Cache.StaleWhileRevalidate, StaleIfError: plan.Cache.StaleIfError,
			Shared: plan.Cache.Shared,
		}
		for _, tag := range plan.Cache.Tags {
			if c.feedOwners[tag.Kind()] == "" && plan.Cache.TTL > maxChangeAge {
				return nil, fmt.Errorf("its cached answers have the tag %q, and no feed reports changes of that", tag)
			}
			if age := plan.Cache.TTL + max(plan.Cache.StaleWhileRevalidate, plan.Cache.StaleIfError); tag.Kind() == sessionsKind && age > maxSessionsTTL {
				return nil, fmt.Errorf("its cached answers have the tag %q for %s, and no feed reports when a session was used: at most %s", tag, age, maxSessionsTTL)
			}
			method.Tags = append(method.Tags, tag)
		}
		return c.Interceptor(method), nil
	case len(plan.Invalidates) > 0:
		return c.InvalidateOnWrite(func(ctx context.Context) []string {
			request, id := rpc.CallFrom(ctx).Request, ""
			if who := caller(ctx); who != nil {
				id = who.UserID
			}
			tags := make([]string, 0, len(plan.Invalidates))
			for _, tag := range plan.Invalidates {
				tags = append(tags, tag.For(id, request))
			}
			countInvalidations(ctx, len(tags), invalidatedByCall)
			return tags
		}), nil
	case plan.ReadsOnly() && !plan.Descriptor.IsStreamingClient() && !plan.Descriptor.IsStreamingServer():
		return answercache.ETags(plan.Descriptor), nil
	}
	return nil, nil
}

// mayHold returns a function that reports whether the cache may answer calls of a method
// now.
func (c answers) mayHold(plan *policy.Method) func() bool {
	if plan.Cache == nil {
		return func() bool { return false }
	}
	var kinds []string
	for _, tag := range plan.Cache.Tags {
		kinds = append(kinds, tag.Kind())
	}
	return func() bool { return c.Usable(kinds) }
}

// ownParts are the parts of the gateway's own answers that may be cached.
func ownParts() []proto.Message {
	return []proto.Message{&authv1.GetAccountResponse{}, &authv1.ListSessionsResponse{}, &usersv1.Profile{}}
}

// checkNoSecrets refuses parts that could hold what must not be cached.
func checkNoSecrets(parts ...proto.Message) error {
	for _, part := range parts {
		if message := part.ProtoReflect().Descriptor(); policy.HoldsSecrets(message) {
			return fmt.Errorf("%s is cached, and holds a redacted field", message.FullName())
		}
	}
	return nil
}

// cachedPart returns a fetch of a part that goes through the cache, where the
// method's answers are cached. kinds are its tags, all of one account. The part must be
// one of ownParts or named by an extension.
func cachedPart[M proto.Message](cache *partCache, name, account string, kinds []string, fetch func(context.Context) (M, error)) func(context.Context) (M, error) {
	return func(ctx context.Context) (M, error) {
		plan := rpc.CallFrom(ctx).Method
		if plan == nil || plan.Cache == nil {
			return fetch(ctx)
		}
		var part M
		if full := part.ProtoReflect().Descriptor().FullName(); !cache.cacheable[full] {
			return part, fmt.Errorf("cache %s: %w", full, errNotCacheable)
		}
		return fetchPart(ctx, cache, answercache.Part{Name: name, ID: account, Kinds: kinds, TTL: plan.Cache.TTL}, fetch)
	}
}

// fetchPart is [answercache.FetchPart]; a call that is recorded says whether the cache
// had the part.
func fetchPart[M proto.Message](ctx context.Context, cache *partCache, part answercache.Part, fetch func(context.Context) (M, error)) (M, error) {
	step := calltrace.At(ctx)
	if step == nil {
		return answercache.FetchPart(ctx, cache.Cache, part, fetch)
	}
	result := answercache.Hit
	value, err := answercache.FetchPart(ctx, cache.Cache, part, func(ctx context.Context) (M, error) {
		result = answercache.Miss
		return fetch(ctx)
	})
	step.SetCache(cacheResults[result])
	return value, err
}
