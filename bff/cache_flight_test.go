package bff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

// sharer is a method whose answers all may have. Its plan is made by hand, for no
// public method has one.
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

func newSharer(t *testing.T, h *house, kept policy.Cache) *sharer {
	t.Helper()
	return newSharerOf(t, h, methodOf(bffv1.File_bff_v1_user_service_proto), kept)
}

// methodOf is ListUsers in a file, which may be of another version.
func methodOf(file protoreflect.FileDescriptor) protoreflect.MethodDescriptor {
	return file.Services().ByName("UserService").Methods().ByName("ListUsers")
}

func newSharerOf(t *testing.T, h *house, declared protoreflect.MethodDescriptor, kept policy.Cache) *sharer {
	t.Helper()
	kept.Shared = true
	plan := &policy.Method{Procedure: bffv1.UserServiceListUsersProcedure, Descriptor: declared, TimeLimit: time.Minute, Cache: &kept}
	s := &sharer{server: connect.NewServer(), called: make(chan struct{}, 2000), ended: make(chan error, 10)}
	around, err := h.gateway.keeps(plan)
	wantNoError(t, "keeps", err)
	method := around(func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
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
	s.server.Register(connect.Method{Spec: specOf(plan), Handler: func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if info, _ := connect.CallInfoForServerContext(ctx); s.cookie != "" {
			info.ResponseHeader().Set("Set-Cookie", s.cookie)
		}
		return method(ctx, spec, stream)
	}})
	return s
}

// ask returns which of the method's answers it got.
func (s *sharer) ask(ctx context.Context, who *principal) (string, error) {
	return s.askWith(ctx, who, nil)
}

func (s *sharer) askWith(ctx context.Context, who *principal, info *connect.CallInfo) (string, error) {
	stream := &soleStream{}
	err := s.server.Call(context.WithValue(ctx, principalKey{}, who), bffv1.UserServiceListUsersProcedure, info, stream)
	if err != nil {
		return "", err
	}
	return stream.answer.(*bffv1.ListUsersResponse).GetNextPageToken(), nil
}

func TestSharedAnswersMayBeStaleAsFarAsTheySay(t *testing.T) {
	t.Parallel()
	h := open(t, world{}).keep()
	now := time.Now()
	h.gateway.cache.now = func() time.Time { return now }
	s := newSharer(t, h, policy.Cache{TTL: 10 * time.Second, StaleWhileRevalidate: 10 * time.Second, StaleIfError: time.Minute})
	want := func(what, answer string, who *principal) {
		t.Helper()
		if got, err := s.ask(t.Context(), who); got != answer || err != nil {
			t.Errorf("%s: got %q, %v; want %q", what, got, err, answer)
		}
	}
	want("the first", "1", nil)
	<-s.called
	want("somebody else", "1", &principal{userID: bob})
	now = now.Add(15 * time.Second)
	want("while it is fetched anew", "1", nil)
	<-s.called
	h.gateway.cache.flying.Wait()
	want("once it is", "2", nil)
	now = now.Add(40 * time.Second)
	s.fails.Store(true)
	want("when it can't be fetched", "2", nil)
	now = now.Add(40 * time.Second)
	if got, err := s.ask(t.Context(), nil); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("when it can't be fetched for long: got %q, %v; want unavailable", got, err)
	}
	h.gateway.cache.purges.purgeAll()
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
		meanwhile func(*house)
		hidden    bool
	}{
		"nothing happens":    {func(*house) {}, true},
		"a write purges it":  {func(h *house) { h.gateway.cache.purges.purge("sessions/") }, false},
		"all is purged":      {func(h *house) { h.gateway.cache.purges.purgeAll() }, false},
		"the feed is silent": {func(h *house) { h.hush(sourceAuth) }, false},
	} {
		h := open(t, world{}).keep()
		now := time.Now()
		h.gateway.cache.now = func() time.Time { return now }
		s := newSharer(t, h, policy.Cache{TTL: time.Second, StaleIfError: time.Minute, Tags: h.tagsOf(bffv1.AccountServiceListSessionsProcedure)})
		_, err := s.ask(t.Context(), nil)
		wantNoError(t, "the first", err)
		now = now.Add(10 * time.Second)
		for _, feed := range h.gateway.cache.feeds {
			feed.asOf.Store(int64(time.Hour))
		}
		s.fails.Store(true)
		s.looks = func(context.Context) { test.meanwhile(h) }
		if got, err := s.ask(t.Context(), nil); (err == nil) != test.hidden {
			t.Errorf("%s: got %q, %v; want the stale answer: %v", name, got, err, test.hidden)
		}
	}
}

// tagsOf are the tags of a method's kept answers.
func (h *house) tagsOf(procedure string) []policy.Tag {
	for _, plan := range h.gateway.rpc.Methods() {
		if plan.Procedure == procedure {
			return plan.Cache.Tags
		}
	}
	panic("no " + procedure)
}

func TestWhatIsFetchedWhileAFeedFallsSilentIsNotKept(t *testing.T) {
	t.Parallel()
	h := open(t, world{}).keep()
	token := h.token(alice, "user")
	answer(h.backend, authv1.SessionServiceListSessionsProcedure, func(context.Context, *authv1.ListSessionsRequest) (*authv1.ListSessionsResponse, error) {
		h.hush(sourceAuth)
		return &authv1.ListSessionsResponse{}, nil
	})
	for i := range 2 {
		h.keep()
		got := h.asks(t, "ListSessions", func() error {
			_, over := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, token)
			return over.err
		})
		if got != 1 {
			t.Errorf("ListSessions %d asked auth %d times, want once", i, got)
		}
	}
}

func TestAThousandMissesMakeOneCall(t *testing.T) {
	t.Parallel()
	h := open(t, world{}).keep()
	s := newSharer(t, h, policy.Cache{TTL: 10 * time.Second})
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

// What a message means is told by its schema: under another one, the same bytes
// are another request, and another answer.
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
	h := open(t, world{}).keep()
	for _, version := range []struct {
		name   string
		method protoreflect.MethodDescriptor
		fresh  bool
	}{{"this", now, true}, {"the same", unchanged, false}, {"a changed", changed, true}, {"a changed import", imported, true}} {
		s := newSharerOf(t, h, version.method, policy.Cache{TTL: time.Minute})
		_, err := s.ask(t.Context(), nil)
		wantNoError(t, version.name, err)
		if got := s.calls.Load() == 1; got != version.fresh {
			t.Errorf("%s schema: the answer is fetched: %v, want %v", version.name, got, version.fresh)
		}
	}
	tags := map[string]string{}
	for name, method := range map[string]protoreflect.MethodDescriptor{"this": now, "a changed": changed, "a changed import": imported} {
		digest, _, err := hashOf(schemaHash(method.Output()), &bffv1.ListUsersResponse{NextPageToken: "1"})
		wantNoError(t, name, err)
		if other, ok := tags[digest]; ok {
			t.Errorf("%s schema and %s have the same ETag of an answer", name, other)
		}
		tags[digest] = name
	}
}

// Keys and ETags are of what a message says, in whatever order a map gives its
// entries.
func TestAMessageHasOneForm(t *testing.T) {
	t.Parallel()
	entries := map[string]any{}
	for i := range 20 {
		entries[fmt.Sprint(i)] = i
	}
	message, err := structpb.NewStruct(entries)
	wantNoError(t, "NewStruct", err)
	first, err := formOf(message)
	wantNoError(t, "formOf", err)
	for range 20 {
		if again, err := formOf(message); err != nil || !bytes.Equal(again, first) {
			t.Fatalf("got %x, %v; want the same as before, %x", again, err, first)
		}
	}
}

// What a method says beside its answer is for the one caller whose call it was
// made for, and it learns of none who shares it.
func TestWhatIsSaidBesideAnAnswerIsForOneCaller(t *testing.T) {
	t.Parallel()
	h := open(t, world{}).keep()
	s := newSharer(t, h, policy.Cache{TTL: 10 * time.Second})
	s.gate = make(chan struct{})
	s.looks = func(ctx context.Context) {
		info, _ := connect.CallInfoForServerContext(ctx)
		if who, held := caller(ctx), borneBy(ctx); who != nil || held.refresh != "" || len(info.RequestHeader().Values("Authorization")) > 0 || info.PeerAddr != "" {
			t.Errorf("the shared call knows of its caller: %v, the cookies %v, the headers of %v", who, held, info)
		}
		info.ResponseHeader().Set("Set-Cookie", "of=one")
		info.ResponseHeader().Set("Server-Timing", "part;dur=1")
	}
	var mu sync.Mutex
	var told []string
	ask := func(id string) {
		info := &connect.CallInfo{PeerAddr: "192.0.2.1:4711"}
		info.RequestHeader().Set("Authorization", "Bearer "+id)
		ctx := context.WithValue(t.Context(), borneKey{}, borne{refresh: "of " + id})
		if _, err := s.askWith(ctx, &principal{userID: id}, info); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"Set-Cookie", "Server-Timing"} {
			if value := info.ResponseHeader().Get(name); value != "" {
				told = append(told, name+": "+value)
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
	if len(told) != 2 || s.calls.Load() != 1 {
		t.Errorf("of 11 callers who shared %d calls' answer, these headers came to them: %q; want one call's, once", s.calls.Load(), told)
	}
}

// What all may keep sets nobody's cookie: a cache would hand it to everybody.
func TestAnAnswerWithACookieIsNotForSharedCaches(t *testing.T) {
	t.Parallel()
	for cookie, want := range map[string]string{"": "public, max-age=", "a=b": privately} {
		s := newSharer(t, open(t, world{}).keep(), policy.Cache{TTL: time.Minute})
		s.cookie = cookie
		mux := http.NewServeMux()
		connecthttp.Mount(mux, s.server)
		for _, what := range []string{"fetched", "kept"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, publicURL+bffv1.UserServiceListUsersProcedure+"?connect=v1&encoding=json&message=%7B%7D", http.NoBody)
			wantNoError(t, "make the request", err)
			response, err := direct{mux}.RoundTrip(request)
			wantNoError(t, "get", err)
			if got := response.Header.Get("Cache-Control"); response.StatusCode != http.StatusOK || !strings.HasPrefix(got, want) || response.Header.Get("Set-Cookie") != cookie {
				t.Errorf("%s, with the cookie %q: got %s, Set-Cookie %q, Cache-Control %q; want %q", what, cookie, response.Status, response.Header.Get("Set-Cookie"), got, want)
			}
		}
	}
}

// waitFor waits until so many wait for one flight.
func (h *house) waitFor(t *testing.T, waiters int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		h.gateway.cache.mu.Lock()
		found := -1
		for _, flight := range h.gateway.cache.flights {
			found = flight.waiters
		}
		h.gateway.cache.mu.Unlock()
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
	h := open(t, world{}).keep()
	s := newSharer(t, h, policy.Cache{TTL: 10 * time.Second})
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
	h := open(t, world{}).keep()
	s := newSharer(t, h, policy.Cache{TTL: 10 * time.Second})
	s.gate = make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() { _, _ = s.ask(ctx, nil) })
	}
	h.waitFor(t, 2)
	leave()
	waiting.Wait()
	h.gateway.cache.flying.Wait() // for less than the minute that the method has
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v, want cancelled", err)
	}
}

// A caller's own deadline is kept though the others' answer takes longer.
func TestAWaiterKeepsItsOwnDeadline(t *testing.T) {
	t.Parallel()
	h := open(t, world{served: true}).keep()
	h.hang(authv1.AccountServiceGetAccountProcedure)
	h.within("Connect-Timeout-Ms", "100")
	_, over := h.getMe(t, h.token(alice, "user"))
	wantError(t, "GetMe within 100 ms", over, http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, fault.ReasonDeadline)
}

func TestAPanicFailsAllWhoWaitAndNobodyElse(t *testing.T) {
	t.Parallel()
	s := newSharer(t, open(t, world{}).keep(), policy.Cache{TTL: time.Second})
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
