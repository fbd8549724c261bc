// Package answercache caches answers, and parts of answers, for the callers that
// asked for them.
//
// The key of a cache entry is the caller and the request, and nothing else that a
// caller could choose (key). An entry holds the tags of the data that the answer
// contains. It is valid only while none of its tags has been invalidated since the
// fetch of the answer began (epochs). Writes by this process invalidate tags before
// they return; a feed reports the writes of other processes. Config.Current reports
// whether those feeds are up to date; while they are not, the cache neither returns
// nor stores entries with their tags.
//
// Callers that ask for the same at the same time share one in-flight call
// (inflight.go). Answers to GET requests carry an ETag (etag.go).
package answercache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/maypok86/otter/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Config describes a cache.
type Config struct {
	// Bytes bounds the memory of the entries, roughly. A negative bound turns the
	// cache off: nothing is stored, and no call is shared.
	Bytes int64
	// Current reports whether all invalidations of these kinds of tags are known, up
	// to a second ago.
	Current func(kinds []string) bool
	// Caller returns who is calling, or nil.
	Caller func(ctx context.Context) Caller
	// Request returns the request of the call that ctx belongs to. It is not changed.
	Request func(ctx context.Context) proto.Message
	// Detach returns the context of an in-flight call, which does not end with the
	// call that started it but after limit, and which carries no credentials.
	// anonymous says that it must not know the caller either.
	Detach func(ctx context.Context, limit time.Duration, anonymous bool) (context.Context, context.CancelFunc)
	// Fill returns the context in which an answer with these tags is fetched, and how old
	// the data may be that the fetch finds; nil if nothing depends on the tags. It is called
	// when it is decided which invalidations the answer survives.
	Fill func(ctx context.Context, tags []string) (context.Context, time.Duration)
	// Wrote is called with the tags of data that this process wrote, before they are
	// invalidated; nil for none.
	Wrote func(tags []string)
	// Counter returns the function that counts how the calls of a method are answered.
	Counter func(procedure string) func(context.Context, Result)
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Caller is who is calling. Callers with equal keys receive each other's entries.
type Caller interface {
	// CacheID is the id that tags of the caller's own data carry.
	CacheID() string
	// AppendCacheKey appends everything about the caller that an answer depends on.
	AppendCacheKey(key []byte) []byte
}

// Result is how a call of a cached method is answered.
type Result int

const (
	Hit       Result = iota // from an entry
	Miss                    // by a call of its own
	Coalesced               // by another caller's in-flight call
	Bypassed                // past the cache, whose feeds are not up to date
)

// Tag names a kind of data that answers are made of.
type Tag interface {
	// Kind is the kind of data, such as "account".
	Kind() string
	// For returns the tag for one call, such as "account/01890a5d-…".
	For(callerID string, request proto.Message) string
}

// Method is a method whose answers are cached.
type Method struct {
	Procedure string
	Schema    protoreflect.MethodDescriptor
	// TimeLimit bounds an in-flight call.
	TimeLimit time.Duration
	// TTL is how long an entry is fresh. After that it may be given for
	// StaleWhileRevalidate, while a call refreshes it, and for StaleIfError, when the
	// services are unavailable.
	TTL, StaleWhileRevalidate, StaleIfError time.Duration
	// Shared says that all callers may have the same answer.
	Shared bool
	Tags   []Tag
}

// Cache is a cache of answers.
type Cache struct {
	config  Config
	entries *otter.Cache[key, *entry]
	epochs  epochs

	mu       sync.Mutex
	inFlight map[key]*inFlightCall
	running  sync.WaitGroup
}

// New returns an empty cache. Call Close when it is no longer used.
func New(config Config) (*Cache, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	entries, err := otter.New(&otter.Options[key, *entry]{
		MaximumWeight: uint64(max(config.Bytes, 1)),
		Weigher:       func(_ key, e *entry) uint32 { return e.weight() },
		// Only to free memory: an expired entry is never given.
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[key, *entry]) time.Duration {
			return max(time.Until(e.Value.staleUntil), time.Millisecond)
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("create the cache: %w", err)
	}
	return &Cache{config: config, entries: entries, inFlight: map[key]*inFlightCall{}}, nil
}

// Close waits for in-flight calls and ends the cache's own goroutines.
func (c *Cache) Close() {
	c.running.Wait()
	c.entries.StopAllGoroutines()
}

// Size returns roughly how many bytes of memory the entries take.
func (c *Cache) Size() int64 { return int64(c.entries.WeightedSize()) }

// Usable reports whether entries with these kinds of tags may be given.
func (c *Cache) Usable(kinds []string) bool { return c.config.Bytes >= 0 && c.config.Current(kinds) }

// Invalidate makes every entry with one of the tags stale, and every in-flight
// call's answer that will have one of them.
func (c *Cache) Invalidate(tags ...string) { c.epochs.invalidate(tags...) }

// InvalidateWritten is Invalidate for data that this process wrote, or may have written.
func (c *Cache) InvalidateWritten(tags ...string) {
	if c.config.Wrote != nil {
		c.config.Wrote(tags)
	}
	c.Invalidate(tags...)
}

// fill is Config.Fill.
func (c *Cache) fill(ctx context.Context, tags []string) (context.Context, time.Duration) {
	if c.config.Fill == nil {
		return ctx, 0
	}
	return c.config.Fill(ctx, tags)
}

// InvalidateKinds invalidates the entries that have a tag of one of the kinds. The kinds
// are few and known: they are remembered for good.
func (c *Cache) InvalidateKinds(kinds ...string) { c.epochs.invalidateKinds(kinds...) }

// InvalidateAll makes every entry stale.
func (c *Cache) InvalidateAll() { c.epochs.invalidateAll() }

// key identifies a caller and a request. It is a hash, so that it holds no request
// in clear.
type key [sha256.Size]byte

// keyOf returns the key of a caller's request. of is the method or the part.
func keyOf(of string, caller Caller, request []byte) key {
	buffer := keyBuffers.Get().(*[]byte)
	defer keyBuffers.Put(buffer)
	text := binary.AppendUvarint((*buffer)[:0], uint64(len(of)))
	text = append(text, of...)
	if caller != nil {
		text = caller.AppendCacheKey(text)
	}
	text = append(text, request...)
	if cap(text) <= maxKeyBuffer {
		*buffer = text
	}
	return sha256.Sum256(text)
}

// keyBuffers are reused: what a key is made of is needed only until it is hashed.
var keyBuffers = sync.Pool{New: func() any { buffer := make([]byte, 0, 512); return &buffer }}

// maxKeyBuffer bounds the buffers that are reused.
const maxKeyBuffer = 16 << 10

// entry is an answer or a part of one. It is immutable.
type entry struct {
	message proto.Message
	// encoded is a message that encodes to the same bytes at no cost; nil for a part.
	encoded proto.Message
	// json is the message, which keeps its JSON; nil for a part.
	json *inJSON
	// etags are made of a hash of the message and its schema; nil for a part.
	etags *etags
	size  int // of the message in binary
	tags  []string
	since epoch // before it was fetched
	// The entry is fresh until freshUntil, and never given after staleUntil.
	freshUntil, staleUntil time.Time
}

// weight is roughly the entry's memory: a message takes more than its binary form,
// which is stored as well, and so may its JSON be.
func (e *entry) weight() uint32 { return uint32(min(8*e.size+512+64*len(e.tags), 1<<30)) }

// store stores an entry unless it is stale already. An entry that becomes stale at
// this moment is found to be so when it is looked up.
func (c *Cache) store(k key, e *entry, kinds []string) {
	if c.epochs.valid(e.tags, e.since) && c.Usable(kinds) {
		c.entries.Set(k, e)
	}
}

// cachedMethod is a method with what is computed once for it.
type cachedMethod struct {
	Method
	schemaHash string
	keyPrefix  string          // of the keys of its entries
	kinds      []string        // of its tags
	server     *connect.Server // runs the method apart from any caller's call
	count      func(context.Context, Result)
}

// Interceptor answers calls of a method from the cache, and stores what it has to
// fetch.
func (c *Cache) Interceptor(method Method) connect.ServerInterceptor {
	schema := schemaHash(method.Schema.Input(), method.Schema.Output())
	addETag := ETags(method.Schema)
	return func(next connect.ServerFunc) connect.ServerFunc {
		m := &cachedMethod{Method: method, schemaHash: schema, keyPrefix: method.Procedure + schema, count: c.config.Counter(method.Procedure), server: connect.NewServer()}
		for _, tag := range method.Tags {
			m.kinds = append(m.kinds, tag.Kind())
		}
		m.server.Register(connect.Method{Spec: m.spec(), Handler: next})
		uncached := addETag(next)
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if !c.Usable(m.kinds) {
				m.count(ctx, Bypassed)
				return uncached(ctx, spec, stream)
			}
			found, err := c.answer(ctx, m, c.config.Request(ctx))
			if err != nil {
				return err
			}
			return found.send(ctx, m, stream, c.config.Now())
		}
	}
}

func (m *cachedMethod) spec() connect.Spec {
	return connect.Spec{Procedure: m.Procedure, Schema: m.Schema, IdempotencyLevel: connect.IdempotencyNoSideEffects}
}

// answer is what a call is answered with: an entry, or what was just fetched.
type answer struct {
	*entry
	// header is what the method added to the response when it was just fetched, for
	// the one caller whose call it was made for.
	header *connect.Header
	// noStore says that no cache may store the answer.
	noStore bool
}

// query is what a caller asks for.
type query struct {
	method  *cachedMethod
	key     key
	tags    []string
	request proto.Message
}

// answer returns the cached answer to a request, or fetches it, once for all
// callers that ask for it at the same time.
func (c *Cache) answer(ctx context.Context, m *cachedMethod, request proto.Message) (answer, error) {
	var caller Caller
	var callerID string
	if !m.Shared {
		if caller = c.config.Caller(ctx); caller != nil {
			callerID = caller.CacheID()
		}
	}
	encoded, err := encode(request)
	if err != nil {
		return answer{}, err
	}
	k := keyOf(m.keyPrefix, caller, encoded)
	found, ok := c.entries.GetIfPresent(k)
	ok = ok && c.epochs.valid(found.tags, found.since)
	now := c.config.Now()
	if ok && now.Before(found.freshUntil) {
		m.count(ctx, Hit)
		return answer{entry: found}, nil
	}
	q := &query{method: m, key: k, request: request}
	for _, tag := range m.Tags {
		q.tags = append(q.tags, tag.For(callerID, request))
	}
	if ok && now.Before(found.freshUntil.Add(m.StaleWhileRevalidate)) {
		m.count(ctx, Hit)
		c.refresh(ctx, q)
		return answer{entry: found}, nil
	}
	fetched, err := c.fetch(ctx, q)
	if ok && connect.CodeOf(err) == connect.CodeUnavailable && now.Before(found.freshUntil.Add(m.StaleIfError)) &&
		c.epochs.valid(found.tags, found.since) && c.Usable(m.kinds) {
		return answer{entry: found}, nil
	}
	return fetched, err
}

// InvalidateOnWrite invalidates the tags of the data that a method writes, before the
// method's answer is sent, so that a caller that has the answer reads its own write.
// A call may fail after the write, so failures invalidate too. tags returns the tags
// of one call.
func (c *Cache) InvalidateOnWrite(tags func(ctx context.Context) []string) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			done := false
			invalidate := func() {
				if !done {
					done = true
					c.InvalidateWritten(tags(ctx)...)
				}
			}
			defer invalidate() // also if the method panics
			return next(ctx, spec, beforeSend{stream, invalidate})
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
