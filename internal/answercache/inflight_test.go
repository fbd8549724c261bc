package answercache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// fixture is a cache whose feeds are current until a test says otherwise.
type fixture struct {
	*Cache
	silent atomic.Bool
	now    atomic.Pointer[time.Time]
}

type (
	callerKey  struct{}
	secretKey  struct{}
	requestKey struct{}
)

// person is a caller.
type person string

func (p person) CacheID() string                  { return string(p) }
func (p person) AppendCacheKey(key []byte) []byte { return append(key, p...) }

func open(t testing.TB, bytes int64) *fixture {
	t.Helper()
	f := &fixture{}
	var err error
	f.Cache, err = New(Config{
		Bytes:   bytes,
		Current: func([]string) bool { return !f.silent.Load() },
		Caller: func(ctx context.Context) Caller {
			if who, ok := ctx.Value(callerKey{}).(person); ok {
				return who
			}
			return nil
		},
		Request: func(ctx context.Context) proto.Message { return ctx.Value(requestKey{}).(proto.Message) },
		Detach: func(ctx context.Context, limit time.Duration, anonymous bool) (context.Context, context.CancelFunc) {
			ctx = context.WithValue(context.WithoutCancel(ctx), secretKey{}, nil)
			if anonymous {
				ctx = context.WithValue(ctx, callerKey{}, nil)
			}
			return context.WithTimeout(ctx, limit)
		},
		Counter: func(string) func(context.Context, Result) { return func(context.Context, Result) {} },
		Now: func() time.Time {
			if now := f.now.Load(); now != nil {
				return *now
			}
			return time.Now()
		},
	})
	wantNoError(t, "New", err)
	t.Cleanup(f.Close)
	return f
}

const megabyte = 1 << 20

func wantNoError(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// testTag is a tag of everybody's data.
type testTag string

func (t testTag) Kind() string                     { return string(t) }
func (t testTag) For(string, proto.Message) string { return string(t) + "/" }

// sharer is a method whose answers all callers may share.
type sharer struct {
	server *connect.Server
	calls  atomic.Int64
	fails  atomic.Bool
	panics atomic.Bool
	called chan struct{}
	ended  chan error
	gate   chan struct{} // holds calls back until it is closed, if there is one
	looks  func(context.Context)
	cookie string // what a step before the cache sets, if anything
}

func newSharer(t *testing.T, c *fixture, method Method) *sharer {
	t.Helper()
	return newSharerOf(t, c, methodOf(bffv1.File_bff_v1_user_service_proto), method)
}

// methodOf is ListUsers in a file, which may be of another version.
func methodOf(file protoreflect.FileDescriptor) protoreflect.MethodDescriptor {
	return file.Services().ByName("UserService").Methods().ByName("ListUsers")
}

func newSharerOf(t *testing.T, c *fixture, declared protoreflect.MethodDescriptor, method Method) *sharer {
	t.Helper()
	method.Procedure, method.Schema, method.TimeLimit, method.Shared = bffv1.UserServiceListUsersProcedure, declared, time.Minute, true
	s := &sharer{server: connect.NewServer(), called: make(chan struct{}, 2000), ended: make(chan error, 10)}
	handler := c.Interceptor(method)(func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		defer func() { s.called <- struct{}{} }()
		n := s.calls.Add(1)
		if s.looks != nil {
			s.looks(ctx)
		}
		if s.gate != nil {
			select {
			case <-s.gate:
			case <-ctx.Done():
				s.ended <- ctx.Err()
				return ctx.Err()
			}
		}
		if s.panics.Load() {
			panic("a fault")
		}
		if s.fails.Load() {
			return fault.Unavailable()
		}
		return stream.Send(&bffv1.ListUsersResponse{NextPageToken: fmt.Sprint(n)})
	})
	s.server.Register(connect.Method{Spec: (&cachedMethod{Method: method}).spec(), Handler: func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if info, _ := connect.CallInfoForServerContext(ctx); s.cookie != "" {
			info.ResponseHeader().Set("Set-Cookie", s.cookie)
		}
		return handler(context.WithValue(ctx, requestKey{}, proto.Message(&bffv1.ListUsersRequest{})), spec, stream)
	}})
	return s
}

// ask returns which of the method's answers it got.
func (s *sharer) ask(ctx context.Context, who Caller) (string, error) {
	return s.askWith(ctx, who, nil)
}

func (s *sharer) askWith(ctx context.Context, who Caller, info *connect.CallInfo) (string, error) {
	stream := &unaryStream{}
	err := s.server.Call(context.WithValue(ctx, callerKey{}, who), bffv1.UserServiceListUsersProcedure, info, stream)
	if err != nil {
		return "", err
	}
	return stream.answer.(*bffv1.ListUsersResponse).GetNextPageToken(), nil
}

func TestSharedAnswersMayBeStaleWithinThePolicy(t *testing.T) {
	t.Parallel()
	h := open(t, megabyte)
	now := time.Now()
	h.now.Store(&now)
	s := newSharer(t, h, Method{TTL: 10 * time.Second, StaleWhileRevalidate: 10 * time.Second, StaleIfError: time.Minute})
	want := func(what, answer string, who Caller) {
		t.Helper()
		if got, err := s.ask(t.Context(), who); got != answer || err != nil {
			t.Errorf("%s: got %q, %v; want %q", what, got, err, answer)
		}
	}
	want("the first", "1", nil)
	<-s.called
	want("somebody else", "1", person("bob"))
	now = now.Add(15 * time.Second)
	want("while the cache refreshes it", "1", nil)
	<-s.called
	h.running.Wait()
	want("once it is", "2", nil)
	now = now.Add(40 * time.Second)
	s.fails.Store(true)
	want("when it can't be fetched", "2", nil)
	now = now.Add(40 * time.Second)
	if got, err := s.ask(t.Context(), nil); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("when it can't be fetched for long: got %q, %v; want unavailable", got, err)
	}
	h.InvalidateAll()
	now = now.Add(-70 * time.Second)
	if got, err := s.ask(t.Context(), nil); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a stale one that was purged: got %q, %v; want unavailable", got, err)
	}
}

// What was stale already when its fetch began is no excuse for an error once a
// write has purged it, or once nobody tells of writes.
func TestAStaleAnswerHidesNoErrorOnceItMayBeWrong(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile func(*fixture)
		hidden    bool
	}{
		"nothing happens":    {func(*fixture) {}, true},
		"a write purges it":  {func(h *fixture) { h.Invalidate("sessions/") }, false},
		"all is purged":      {func(h *fixture) { h.InvalidateAll() }, false},
		"the feed is silent": {func(h *fixture) { h.silent.Store(true) }, false},
	} {
		h := open(t, megabyte)
		now := time.Now()
		h.now.Store(&now)
		s := newSharer(t, h, Method{TTL: time.Second, StaleIfError: time.Minute, Tags: []Tag{testTag("sessions")}})
		_, err := s.ask(t.Context(), nil)
		wantNoError(t, "the first", err)
		now = now.Add(10 * time.Second)
		s.fails.Store(true)
		s.looks = func(context.Context) { test.meanwhile(h) }
		if got, err := s.ask(t.Context(), nil); (err == nil) != test.hidden {
			t.Errorf("%s: got %q, %v; want the stale answer: %v", name, got, err, test.hidden)
		}
	}
}

func TestAThousandMissesMakeOneCall(t *testing.T) {
	t.Parallel()
	h := open(t, megabyte)
	s := newSharer(t, h, Method{TTL: 10 * time.Second})
	s.gate = make(chan struct{})
	release := sync.OnceFunc(func() { close(s.gate) })
	defer release()
	var callers sync.WaitGroup
	var failed atomic.Int64
	for range 1000 {
		callers.Go(func() {
			if got, err := s.ask(t.Context(), nil); got != "1" || err != nil {
				failed.Add(1)
			}
		})
	}
	h.waitFor(t, 1000)
	release()
	callers.Wait()
	if got := s.calls.Load(); got != 1 || failed.Load() > 0 {
		t.Errorf("1000 callers made %d calls, and %d got no answer; want 1 and 0", got, failed.Load())
	}
}

// The schema defines the meaning of a message: under a different schema, the same
// bytes are a different request and have a different answer.
func TestAnAnswerOfAnotherSchemaIsAnotherAnswer(t *testing.T) {
	t.Parallel()
	later := func(path string, change func(*descriptorpb.FileDescriptorProto)) protoreflect.FileDescriptor {
		files := &descriptorpb.FileDescriptorSet{}
		seen := map[string]bool{}
		var add func(protoreflect.FileDescriptor)
		add = func(file protoreflect.FileDescriptor) {
			if seen[file.Path()] {
				return
			}
			seen[file.Path()] = true
			for i := range file.Imports().Len() {
				add(file.Imports().Get(i).FileDescriptor)
			}
			described := protodesc.ToFileDescriptorProto(file)
			if file.Path() == path {
				change(described)
			}
			files.File = append(files.File, described)
		}
		add(bffv1.File_bff_v1_user_service_proto)
		made, err := protodesc.NewFiles(files)
		wantNoError(t, "make the files", err)
		file, err := made.FindFileByPath(bffv1.File_bff_v1_user_service_proto.Path())
		wantNoError(t, "find the file", err)
		return file
	}
	now := methodOf(bffv1.File_bff_v1_user_service_proto)
	unchanged := methodOf(later("", nil))
	changed := methodOf(later(string(now.ParentFile().Path()), func(file *descriptorpb.FileDescriptorProto) {
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: new("Added")})
	}))
	user := (&bffv1.User{}).ProtoReflect().Descriptor().ParentFile().Path()
	if user == now.ParentFile().Path() {
		t.Fatal("the user is no import any more: change the test")
	}
	imported := methodOf(later(user, func(file *descriptorpb.FileDescriptorProto) {
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: new("Added")})
	}))
	h := open(t, megabyte)
	for _, version := range []struct {
		name   string
		method protoreflect.MethodDescriptor
		fresh  bool
	}{{"this", now, true}, {"the same", unchanged, false}, {"a changed", changed, true}, {"a changed import", imported, true}} {
		s := newSharerOf(t, h, version.method, Method{TTL: time.Minute})
		_, err := s.ask(t.Context(), nil)
		wantNoError(t, version.name, err)
		if got := s.calls.Load() == 1; got != version.fresh {
			t.Errorf("%s schema: the answer is fetched: %v, want %v", version.name, got, version.fresh)
		}
	}
	tags := map[string]string{}
	for name, method := range map[string]protoreflect.MethodDescriptor{"this": now, "a changed": changed, "a changed import": imported} {
		text, _, err := digest(schemaHash(method.Output()), &bffv1.ListUsersResponse{NextPageToken: "1"})
		wantNoError(t, name, err)
		if other, ok := tags[text]; ok {
			t.Errorf("%s schema and %s have the same ETag of an answer", name, other)
		}
		tags[text] = name
	}
}

// Keys and ETags depend on the content of a message, not on the iteration order of
// its maps.
func TestAMessageHasOneForm(t *testing.T) {
	t.Parallel()
	entries := map[string]any{}
	for i := range 20 {
		entries[fmt.Sprint(i)] = i
	}
	message, err := structpb.NewStruct(entries)
	wantNoError(t, "NewStruct", err)
	first, err := encode(message)
	wantNoError(t, "encode", err)
	for range 20 {
		if again, err := encode(message); err != nil || !bytes.Equal(again, first) {
			t.Fatalf("got %x, %v; want the same as before, %x", again, err, first)
		}
	}
}

// Headers are sent only to the caller whose call was made, not to those that share it.
func TestHeadersOfAnAnswerAreForOneCaller(t *testing.T) {
	t.Parallel()
	h := open(t, megabyte)
	s := newSharer(t, h, Method{TTL: 10 * time.Second})
	s.gate = make(chan struct{})
	s.looks = func(ctx context.Context) {
		info, _ := connect.CallInfoForServerContext(ctx)
		if who, secret := ctx.Value(callerKey{}), ctx.Value(secretKey{}); who != nil || secret != nil || len(info.RequestHeader().Values("Authorization")) > 0 || info.PeerAddr != "" {
			t.Errorf("the shared call knows of its caller: %v, the cookies %v, the headers of %v", who, secret, info)
		}
		info.ResponseHeader().Set("Set-Cookie", "of=one")
		info.ResponseHeader().Set("Server-Timing", "part;dur=1")
	}
	var mu sync.Mutex
	var received []string
	ask := func(id string) {
		info := &connect.CallInfo{PeerAddr: "192.0.2.1:4711"}
		info.RequestHeader().Set("Authorization", "Bearer "+id)
		ctx := context.WithValue(t.Context(), secretKey{}, "of "+id)
		if _, err := s.askWith(ctx, person(id), info); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"Set-Cookie", "Server-Timing"} {
			if value := info.ResponseHeader().Get(name); value != "" {
				received = append(received, name+": "+value)
			}
		}
	}
	var callers sync.WaitGroup
	for i := range 10 {
		callers.Go(func() { ask(fmt.Sprint("user ", i)) })
	}
	h.waitFor(t, 10)
	close(s.gate)
	callers.Wait()
	ask("who finds it kept")
	if len(received) != 2 || s.calls.Load() != 1 {
		t.Errorf("of 11 callers who shared %d calls' answer, these headers came to them: %q; want one call's, once", s.calls.Load(), received)
	}
}

// What all may keep sets nobody's cookie: a cache would hand it to everybody.
func TestAnAnswerWithACookieIsNotForSharedCaches(t *testing.T) {
	t.Parallel()
	for cookie, want := range map[string]string{"": "public, max-age=", "a=b": privateControl[0]} {
		s := newSharer(t, open(t, megabyte), Method{TTL: time.Minute})
		s.cookie = cookie
		mux := http.NewServeMux()
		connecthttp.Mount(mux, s.server)
		for _, what := range []string{"fetched", "kept"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://gatehouse.example"+bffv1.UserServiceListUsersProcedure+"?connect=v1&encoding=json&message=%7B%7D", http.NoBody)
			wantNoError(t, "make the request", err)
			recorder := httptest.NewRecorder()
			mux.ServeHTTP(recorder, request)
			response := recorder.Result()
			if got := response.Header.Get("Cache-Control"); response.StatusCode != http.StatusOK || !strings.HasPrefix(got, want) || response.Header.Get("Set-Cookie") != cookie {
				t.Errorf("%s, with the cookie %q: got %s, Set-Cookie %q, Cache-Control %q; want %q", what, cookie, response.Status, response.Header.Get("Set-Cookie"), got, want)
			}
		}
	}
}

// waitFor waits until so many callers wait for one in-flight call.
func (h *fixture) waitFor(t *testing.T, waiters int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		found := -1
		for _, call := range h.inFlight {
			found = call.waiters
		}
		h.mu.Unlock()
		if found == waiters {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want %d", found, waiters)
		}
	}
}

func TestAWaiterThatLeavesCancelsNobody(t *testing.T) {
	t.Parallel()
	h := open(t, megabyte)
	s := newSharer(t, h, Method{TTL: 10 * time.Second})
	s.gate = make(chan struct{})
	first, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.ask(first, nil); left <- err }()
	h.waitFor(t, 1)
	go func() { _, err := s.ask(t.Context(), nil); stayed <- err }()
	h.waitFor(t, 2)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	h.waitFor(t, 1)
	close(s.gate)
	wantNoError(t, "who stayed, though the first has left", <-stayed)
}

func TestACallEndsWhenAllHaveLeft(t *testing.T) {
	t.Parallel()
	h := open(t, megabyte)
	s := newSharer(t, h, Method{TTL: 10 * time.Second})
	s.gate = make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() { _, _ = s.ask(ctx, nil) })
	}
	h.waitFor(t, 2)
	leave()
	waiting.Wait()
	h.running.Wait() // for less than the minute that the method has
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v, want cancelled", err)
	}
}

func TestAPanicFailsOnlyTheCallsThatWaitForIt(t *testing.T) {
	t.Parallel()
	s := newSharer(t, open(t, megabyte), Method{TTL: time.Second})
	s.panics.Store(true)
	for range 2 {
		if _, err := s.ask(t.Context(), nil); fault.Reason(err) != fault.ReasonInternal {
			t.Errorf("got %v, want %s", err, fault.ReasonInternal)
		}
	}
	s.panics.Store(false)
	if got, err := s.ask(t.Context(), nil); got != "3" || err != nil {
		t.Errorf("then got %q, %v; want an answer", got, err)
	}
}
