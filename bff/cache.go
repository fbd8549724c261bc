package bff

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/maypok86/otter/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// defaultCacheBytes bounds what is kept, where nothing else is said.
const defaultCacheBytes = 64 << 20

// CacheNothing is the bound with which no answer is kept, or shared among callers.
const CacheNothing = -1

// cache keeps answers, and parts of answers, for those who asked for them.
//
// A kept answer is found by who asked and what for, and by nothing that another
// caller could say (cacheKey). It holds the tags of what it is made of, and counts
// only as long as none of them was purged since before it was fetched (purges):
// by a write that this gateway made, before that is answered, or by a feed that
// tells what others wrote (changeFeed). While a feed is silent, nothing that it
// would tell of is given or kept.
type cache struct {
	kept   *otter.Cache[cacheKey, *keptAnswer]
	purges purges
	feeds  []*changeFeed
	off    bool
	now    func() time.Time

	mu      sync.Mutex
	flights map[cacheKey]*flight
	flying  sync.WaitGroup
}

func newCache(bytes int64, feeds ...*changeFeed) (*cache, error) {
	kept, err := otter.New(&otter.Options[cacheKey, *keptAnswer]{
		MaximumWeight: uint64(max(bytes, 1)),
		Weigher:       func(_ cacheKey, one *keptAnswer) uint32 { return one.weight() },
		// What is expired isn't given, whenever it goes.
		ExpiryCalculator: otter.ExpiryWritingFunc(func(entry otter.Entry[cacheKey, *keptAnswer]) time.Duration {
			return max(time.Until(entry.Value.last), time.Millisecond)
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	c := &cache{kept: kept, feeds: feeds, off: bytes < 0, now: time.Now, flights: map[cacheKey]*flight{}}
	for _, feed := range feeds {
		feed.purges = &c.purges
	}
	return c, nil
}

// run follows the feeds until ctx ends, and ends what the cache does beside.
func (c *cache) run(ctx context.Context) {
	var following sync.WaitGroup
	for _, feed := range c.feeds {
		following.Go(func() { feed.run(ctx) })
	}
	following.Wait()
	c.stop()
}

func (c *cache) stop() {
	c.flying.Wait()
	c.kept.StopAllGoroutines()
}

// cacheKey is who asked, and what for. It is a hash, so that no request stands
// in it in clear.
type cacheKey [sha256.Size]byte

// keyOf returns the key of what a principal asks for; nil is everybody. of is
// the method or the part. Answers show which session is the caller's own, and
// what they may see is told by roles and version.
func keyOf(of string, who *principal, request []byte) cacheKey {
	text := make([]byte, 0, 512)
	add := func(part string) {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	add(of)
	if who != nil {
		add(who.userID)
		add(who.sessionID)
		text = binary.AppendVarint(text, who.version)
		text = binary.AppendUvarint(text, uint64(len(who.roles)))
		for _, role := range who.roles {
			add(role)
		}
	}
	return sha256.Sum256(append(text, request...))
}

// keptAnswer is an answer, or a part of one. Nothing of it changes.
type keptAnswer struct {
	message proto.Message
	// written is a message whose binary form is the same, and there already; nil for
	// a part.
	written proto.Message
	// digest is a hash of the message and its schema, in text.
	digest string
	size   int // of the message in binary
	tags   []string
	since  position // before it was fetched
	// until when it is fresh, and until when it may be given at all.
	until, last time.Time
}

// weight is about what it takes in memory: a message takes more than its binary,
// and that is there too.
func (k *keptAnswer) weight() uint32 { return uint32(min(4*k.size+512+64*len(k.tags), 1<<30)) }

// formOf is a message's one binary form: proto lets an encoder write the entries
// of a map in any order.
func formOf(message proto.Message) ([]byte, error) {
	form, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(make([]byte, 0, 1024), message)
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	return form, nil
}

// hashOf is a hash of a message in its one binary form, and the form.
func hashOf(schema string, message proto.Message) (digest string, form []byte, err error) {
	if form, err = formOf(message); err != nil {
		return "", nil, err
	}
	hash := sha256.New()
	hash.Write([]byte(schema))
	hash.Write(form)
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:15]), form, nil
}

// written returns a message that has this binary form, and takes no time to write:
// fields that it doesn't know are written as they came.
func written(form []byte) proto.Message {
	message := &emptypb.Empty{}
	message.ProtoReflect().SetUnknown(slices.Clip(slices.Clone(form)))
	return message
}

// schemaHash is a hash of all that decides what messages mean: an answer of
// another schema is another answer.
func schemaHash(messages ...protoreflect.MessageDescriptor) string {
	hash := sha256.New()
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		// A descriptor that came from a file can be written as one.
		form, _ := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(file))
		hash.Write(form)
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
	}
	for _, message := range messages {
		add(message.ParentFile())
	}
	return string(hash.Sum(nil))
}

// keptMethod is a method whose answers are kept.
type keptMethod struct {
	plan   *policy.Method
	schema string
	of     string          // the method and its schema, in keys
	kinds  []string        // of its tags
	alone  *connect.Server // runs it apart from any call
	count  *cacheCounts
}

// keeps makes the part of a method's chain that gives kept answers, that purges
// them, or that names an answer by its ETag. It returns an error when nothing
// would tell of changes of what a kept answer is made of.
func (s *Service) keeps(plan *policy.Method) (connect.ServerInterceptor, error) {
	switch {
	case plan.Cache != nil:
		for _, tag := range plan.Cache.Tags {
			if sourceOf(tag.Kind()) == "" {
				return nil, fmt.Errorf("its kept answers have the tag %q, and no service tells when that changes", tag)
			}
		}
		return s.fromCache(plan), nil
	case len(plan.Invalidates) > 0:
		return s.purging(plan), nil
	case readsOnly(plan):
		return named(plan), nil
	}
	return nil, nil
}

// fromCache answers from what is kept, and keeps what isn't.
func (s *Service) fromCache(plan *policy.Method) connect.ServerInterceptor {
	schema := schemaHash(plan.Descriptor.Input(), plan.Descriptor.Output())
	bypass := named(plan)
	return func(next connect.ServerFunc) connect.ServerFunc {
		m := &keptMethod{plan: plan, schema: schema, of: plan.Procedure + schema, count: newCacheCounts(plan.Procedure)}
		for _, tag := range plan.Cache.Tags {
			m.kinds = append(m.kinds, tag.Kind())
		}
		m.alone = connect.NewServer()
		m.alone.Register(connect.Method{Spec: specOf(plan), Handler: next})
		uncached := bypass(next)
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if !s.cache.current(m.kinds) {
				m.count.add(ctx, cacheBypassed)
				return uncached(ctx, spec, stream)
			}
			found, err := s.cache.answer(ctx, m, rpc.CallFrom(ctx).Request)
			if err != nil {
				return err
			}
			return found.send(ctx, plan, stream, s.cache.now())
		}
	}
}

// current reports whether the feeds that tell of these kinds of tags have spoken
// lately.
func (c *cache) current(kinds []string) bool {
	if c.off {
		return false
	}
	now := c.now()
	for _, feed := range c.feeds {
		if !feed.isCurrent(now) && slices.ContainsFunc(kinds, func(kind string) bool { return sourceOf(kind) == feed.source }) {
			return false
		}
	}
	return true
}

// answered is what a call is answered with: kept, or just fetched.
type answered struct {
	*keptAnswer
	// header is what the method said beside it, when it was just fetched, to the
	// one caller whose call it was made for.
	header *connect.Header
	// lacking tells that no cache may have it.
	lacking bool
}

// answer returns the kept answer to a request, or fetches it, once for all who
// ask for it at the same time.
func (c *cache) answer(ctx context.Context, m *keptMethod, request proto.Message) (answered, error) {
	who := caller(ctx)
	if m.plan.Cache.Shared {
		who = nil
	}
	form, err := formOf(request)
	if err != nil {
		return answered{}, err
	}
	ask := &asked{method: m, key: keyOf(m.of, who, form), request: request}
	for _, tag := range m.plan.Cache.Tags {
		ask.tags = append(ask.tags, tag.For(idOf(who), request))
	}
	found, ok := c.kept.GetIfPresent(ask.key)
	ok = ok && c.purges.spare(found.tags, found.since)
	now := c.now()
	switch {
	case ok && now.Before(found.until):
		m.count.add(ctx, cacheHit)
		return answered{keptAnswer: found}, nil
	case ok && now.Before(found.until.Add(m.plan.Cache.StaleWhileRevalidate)):
		m.count.add(ctx, cacheHit)
		c.refetch(ctx, ask)
		return answered{keptAnswer: found}, nil
	}
	fetched, err := c.fetch(ctx, ask)
	if ok && connect.CodeOf(err) == connect.CodeUnavailable && now.Before(found.until.Add(m.plan.Cache.StaleIfError)) &&
		c.purges.spare(found.tags, found.since) && c.current(m.kinds) {
		return answered{keptAnswer: found}, nil
	}
	return fetched, err
}

func idOf(who *principal) string {
	if who == nil {
		return ""
	}
	return who.userID
}

// purging lets go of the kept answers that a write makes stale, before it is
// answered, so that whoever has the answer reads what was written. A failure
// may have come after the write: it purges too.
func (s *Service) purging(plan *policy.Method) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			purged := false
			purge := func() {
				if purged {
					return
				}
				purged = true
				request := rpc.CallFrom(ctx).Request
				for _, tag := range plan.Invalidates {
					s.cache.purges.purge(tag.For(idOf(caller(ctx)), request))
				}
				countPurges(ctx, len(plan.Invalidates), purgedByCall)
			}
			defer purge() // though it panics
			return next(ctx, spec, beforeSend{stream, purge})
		}
	}
}

type beforeSend struct {
	connect.ServerStream
	do func()
}

func (s beforeSend) Send(message any) error {
	s.do()
	return s.ServerStream.Send(message)
}
