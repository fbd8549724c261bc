package bff

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/answercache"
	"gatehouse/internal/fault"
)

// withCache makes the feeds of changes current for longer than the test takes.
func (h *harness) withCache() *harness {
	for _, feed := range h.gateway.changes {
		feed.asOf.Store(int64(time.Hour))
	}
	return h
}

// silenceFeed makes a service's feed of changes out of date.
func (h *harness) silenceFeed(source string) {
	for _, feed := range h.gateway.changes {
		if feed.name == source {
			feed.asOf.Store(int64(time.Second))
		}
	}
}

func (h *harness) tokenOf(user, session string, version int, roles ...string) string {
	return h.signer.token(func(_, claims map[string]any) {
		claims["sub"], claims["sid"], claims["ver"], claims["roles"] = user, session, version, roles
	})
}

// asks calls a method and returns how often that called the services.
func (h *harness) asks(t testing.TB, what string, call func() error) int {
	t.Helper()
	before := h.called("")
	wantNoError(t, what, call())
	return h.called("") - before
}

func (h *harness) asksForMe(t testing.TB, token string) int {
	t.Helper()
	return h.asks(t, "GetMe", func() error { _, over := h.getMe(t, token); return over.err })
}

func TestACachedAnswerIsPrivateToItsCaller(t *testing.T) {
	t.Parallel()
	const otherSession = "0198c0de-cccc-7000-8000-00000000beef"
	h := newHarness(t, options{}).withCache()
	whose := map[string]string{
		"alice's": h.tokenOf(alice, session, 1, "user"), "bob's": h.tokenOf(bob, session, 1, "user"),
		"alice's other session": h.tokenOf(alice, otherSession, 1, "user"), "alice with other roles": h.tokenOf(alice, session, 1, "admin"),
		"alice at another version": h.tokenOf(alice, session, 2, "user"), "alice with more roles": h.tokenOf(alice, session, 1, "user", "x"),
	}
	for _, round := range []struct {
		name string
		want int
	}{{"first", 3}, {"second", 0}} {
		for name, token := range whose {
			if got := h.asksForMe(t, token); got != round.want {
				t.Errorf("the %s GetMe of %s asked the services %d times, want %d", round.name, name, got, round.want)
			}
		}
	}
	for name, want := range map[string]string{"alice's": alice, "bob's": bob, "alice's other session": alice} {
		me, _ := h.getMe(t, whose[name])
		if me.GetUser().GetId() != want || me.GetSessions()[0].GetCurrent() != (name != "alice's other session") {
			t.Errorf("%s answer is %v", name, me)
		}
	}
	admin := h.tokenOf(alice, session, 1, "admin")
	for _, id := range []string{alice, bob} {
		user, over := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: id}, admin)
		if over.err != nil || user.GetUser().GetId() != id {
			t.Errorf("GetUser %s: got %v, %v", id, user, over.err)
		}
	}
	// What is kept doesn't open what is closed.
	_, over := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: bob}, h.tokenOf(alice, session, 1, "user"))
	wantError(t, "a user that is cached for an administrator", over, http.StatusForbidden, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
}

// The id is written in any case, and asks for the same.
func TestEqualRequestsShareAnAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "admin")
	for i, want := range []int{2, 0} {
		id := []string{bob, "0198C0DE-BBBB-7000-8000-000000000B0B"}[i]
		got := h.asks(t, "GetUser", func() error {
			_, over := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: id}, token)
			return over.err
		})
		if got != want {
			t.Errorf("GetUser %s asked the services %d times, want %d", id, got, want)
		}
	}
}

func TestAReadAfterAWriteSeesTheWrite(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "user")
	h.asksForMe(t, token)
	answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: req.GetProfileId(), FirstName: "Grace"}}, nil
	})
	if me, _ := h.getMe(t, token); me.GetUser().GetFirstName() != "Ada" {
		t.Fatalf("before the write, the kept name is %q", me.GetUser().GetFirstName())
	}
	update := func() reply {
		_, over := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Grace"}}, token)
		return over
	}
	wantNoError(t, "UpdateMe", update().err)
	if me, _ := h.getMe(t, token); me.GetUser().GetFirstName() != "Grace" {
		t.Errorf("after the write, the name is %q, want Grace", me.GetUser().GetFirstName())
	}
	// A write that failed may have been made.
	h.fail(usersv1.ProfileServiceUpdateProfileProcedure, errors.New("the answer was lost"))
	if update().err == nil {
		t.Fatal("the write didn't fail")
	}
	if got := h.asksForMe(t, token); got != 1 {
		t.Errorf("after a write that failed, GetMe asked the services %d times, want once: for the profile", got)
	}
}

// watchedWriter looks on when an answer is written.
type watchedWriter struct {
	http.ResponseWriter
	written func()
}

func (w watchedWriter) Write(data []byte) (int, error) {
	w.written()
	return w.ResponseWriter.Write(data)
}

// A client that reads after it has the response to its write sees that write, so the
// gateway must invalidate cache entries before it sends the response.
func TestAWriteInvalidatesBeforeItsResponse(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	for procedure, write := range map[string]struct{ body, id string }{
		bffv1.AccountServiceUpdateMeProcedure: {`{"user":{"firstName":"Grace"}}`, alice},
		bffv1.UserServiceUpdateUserProcedure:  {`{"user":{"id":"` + bob + `","firstName":"Grace"}}`, bob},
	} {
		// isValid reports whether an entry of the profile was valid, and stores another.
		isValid := func() bool {
			valid := true
			_, _ = answercache.FetchPart(t.Context(), h.gateway.cache.Cache, answercache.Part{Name: "test", ID: write.id, Kinds: []string{"profile"}, TTL: time.Minute},
				func(context.Context) (*usersv1.Profile, error) { valid = false; return &usersv1.Profile{}, nil })
			return valid
		}
		if isValid(); !isValid() {
			t.Fatal("the profile is not cached")
		}
		written := 0
		watched := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.gateway.ServeHTTP(watchedWriter{w, func() {
				if written++; written == 1 && isValid() {
					t.Errorf("%s responds before the profile of %s is invalidated", procedure, write.id)
				}
			}}, r)
		})
		h.http = &http.Client{Transport: direct{watched}}
		response, text := h.send(t, procedure, write.body, "Authorization", "Bearer "+h.token(alice, "admin"))
		if response.StatusCode != http.StatusOK || written == 0 {
			t.Errorf("%s: %d %s, written in %d pieces, want an answer", procedure, response.StatusCode, text, written)
		}
	}
}

func TestCachedPartsMayNotHaveSecrets(t *testing.T) {
	t.Parallel()
	wantNoError(t, "the parts that are kept", checkNoSecrets(ownParts()...))
	if err := checkNoSecrets(append(ownParts(), &authv1.LoginResponse{})...); err == nil || !strings.Contains(err.Error(), "auth.v1.LoginResponse") {
		t.Errorf("a part with tokens: got %v, want a refusal that names it", err)
	}
}

func TestAChangeOfOnePartFetchesOnlyThatPart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "user")
	for _, change := range []struct {
		tag   string
		reads []string
	}{
		{"profile/" + alice, []string{usersv1.ProfileServiceGetProfileProcedure}},
		{"account/" + alice, []string{authv1.AccountServiceGetAccountProcedure}},
		{"sessions/" + alice, []string{authv1.AccountServiceGetAccountProcedure, authv1.SessionServiceListSessionsProcedure}},
		{"profile/" + bob, nil},
	} {
		h.asksForMe(t, token)
		before := map[string]int{}
		for _, procedure := range change.reads {
			before[procedure] = h.called(procedure)
		}
		h.gateway.cache.Invalidate(change.tag)
		if got := h.asksForMe(t, token); got != len(change.reads) {
			t.Errorf("after %s changed, GetMe asked the services %d times, want %d", change.tag, got, len(change.reads))
		}
		for _, procedure := range change.reads {
			if h.called(procedure) != before[procedure]+1 {
				t.Errorf("after %s changed, GetMe didn't ask %s", change.tag, procedure)
			}
		}
	}
}

// A read that began before a write may have read what was there before it, and
// end after it.
func TestAFetchThatBeganBeforeAnInvalidationIsNotCached(t *testing.T) {
	t.Parallel()
	for name, purge := range map[string]func(*harness){
		"a tag": func(h *harness) { h.gateway.cache.Invalidate("profile/" + alice) },
		"all":   func(h *harness) { h.gateway.cache.InvalidateAll() },
	} {
		h := newHarness(t, options{}).withCache()
		token := h.token(alice, "user")
		asked, release := make(chan struct{}, 1), make(chan struct{})
		answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			asked <- struct{}{}
			<-release
			return &usersv1.GetProfileResponse{Profile: profileOf(req.GetProfileId())}, nil
		})
		ended := make(chan error, 1)
		go func() { _, over := h.getMe(t, token); ended <- over.err }()
		<-asked
		purge(h)
		// Who comes after the purge doesn't share what began before it.
		late := make(chan error, 1)
		go func() { _, over := h.getMe(t, token); late <- over.err }()
		select {
		case <-asked:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: who came after the purge shares what began before it", name)
		}
		close(release)
		wantNoError(t, "the read that was overtaken", <-ended)
		wantNoError(t, "the read after the purge", <-late)
		purge(h)
		answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: req.GetProfileId(), FirstName: "Grace"}}, nil
		})
		if me, _ := h.getMe(t, token); me.GetUser().GetFirstName() != "Grace" {
			t.Errorf("%s: the next read got %q, want what is there now", name, me.GetUser().GetFirstName())
		}
	}
}

// One part of a fetch that a purge overtakes while another part is still out.
func TestAnInvalidatedFetchIsNotCachedEvenIfItEndsLast(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "user")
	asked, release := make(chan struct{}), make(chan struct{})
	answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		close(asked)
		<-release
		return &usersv1.GetProfileResponse{Profile: profileOf(req.GetProfileId())}, nil
	})
	ended := make(chan error, 1)
	go func() { _, over := h.getMe(t, token); ended <- over.err }()
	<-asked
	h.gateway.cache.Invalidate("profile/" + alice)
	close(release)
	wantNoError(t, "the read that was overtaken", <-ended)
	answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: req.GetProfileId(), FirstName: "Grace"}}, nil
	})
	if me, _ := h.getMe(t, token); me.GetUser().GetFirstName() != "Grace" {
		t.Errorf("the next read got %q, want what is there now", me.GetUser().GetFirstName())
	}
}

func TestASilentFeedBypassesTheCache(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	token := h.token(alice, "user")
	for range 2 {
		if got := h.asksForMe(t, token); got != 3 {
			t.Fatalf("before the feeds spoke, GetMe asked the services %d times, want 3", got)
		}
	}
	h.withCache()
	if first, second := h.asksForMe(t, token), h.asksForMe(t, token); first != 3 || second != 0 {
		t.Fatalf("with the feeds, GetMe asked the services %d and %d times, want 3 and 0: what was fetched in silence isn't kept", first, second)
	}
	h.silenceFeed(usersName)
	for range 2 {
		if got := h.asksForMe(t, token); got != 1 {
			t.Errorf("while users' feed is silent, GetMe asked the services %d times, want once: for what users could have changed", got)
		}
	}
	sessions := func() int {
		return h.asks(t, "ListSessions", func() error {
			_, over := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, token)
			return over.err
		})
	}
	if first, second := sessions(), sessions(); first != 1 || second != 0 {
		t.Errorf("while users' feed is silent, ListSessions asked the services %d and %d times, want 1 and 0", first, second)
	}
	h.silenceFeed(authName)
	if got := sessions(); got != 1 {
		t.Errorf("while auth's feed is silent, ListSessions asked the services %d times, want once", got)
	}
}

func TestErrorsAndIncompleteAnswersAreNotCached(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "user")
	h.fail(authv1.SessionServiceListSessionsProcedure, errors.New("away"))
	for range 2 {
		me, over := h.getMe(t, token)
		wantNoError(t, "GetMe", over.err)
		if len(me.GetErrors()) != 1 || over.header.Get("Cache-Control") != "no-store" {
			t.Errorf("got errors %v, Cache-Control %q; want one and no-store", me.GetErrors(), over.header.Get("Cache-Control"))
		}
	}
	if got := h.called(authv1.SessionServiceListSessionsProcedure); got != 2 {
		t.Errorf("the missing part was asked for %d times, want 2", got)
	}
	h.gateway.cache.InvalidateAll()
	h.fail(authv1.AccountServiceGetAccountProcedure, errNoUser)
	before := h.called(authv1.AccountServiceGetAccountProcedure)
	for range 2 {
		if _, over := h.getMe(t, token); over.err == nil {
			t.Error("GetMe didn't fail")
		}
	}
	if got := h.called(authv1.AccountServiceGetAccountProcedure) - before; got != 2 {
		t.Errorf("after failures, the account was asked for %d times, want 2", got)
	}
}

func TestACachedAnswerExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testCacheEntryExpires)
}

func testCacheEntryExpires(t *testing.T) {
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "user")
	h.asksForMe(t, token)
	time.Sleep(9 * time.Second)
	h.gateway.cache.Invalidate("profile/" + alice) // the other parts are 9 s old
	if got := h.asksForMe(t, token); got != 1 {
		t.Fatalf("GetMe asked the services %d times, want once", got)
	}
	time.Sleep(time.Second / 2)
	if got := h.asksForMe(t, token); got != 0 {
		t.Errorf("after 9.5 s, GetMe asked the services %d times, want 0", got)
	}
	time.Sleep(time.Second)
	if got := h.asksForMe(t, token); got != 2 {
		t.Errorf("after 10.5 s, GetMe asked the services %d times, want 2: for the parts that are so old", got)
	}
}

func TestWithoutACacheNothingIsCachedOrCoalesced(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{cacheBytes: CacheNothing}).withCache()
	token := h.token(alice, "user")
	for range 2 {
		if got := h.asksForMe(t, token); got != 3 {
			t.Errorf("GetMe asked the services %d times, want 3", got)
		}
	}
}

// changeMessage returns a message of a feed of changes.
func changeMessage(after time.Duration, complete bool, tags ...string) *servicev1.WatchChangesResponse {
	return &servicev1.WatchChangesResponse{Complete: complete, Tags: tags, Cursor: "c", AskedAfter: durationpb.New(after)}
}

// However long a message was on its way, it tells how things were when the
// database was asked.
func TestADelayedUpdateIsNotCurrent(t *testing.T) {
	t.Parallel()
	f := newChangeFeed(Backend{Name: "notes"}, &recordedInvalidations{}, discard)
	opened := time.Now()
	now := opened
	f.now = func() time.Time { return now }
	for _, step := range []struct {
		what           string
		at, after      time.Duration
		news, currents bool
	}{
		{"the first", 0, 0, true, true},
		{"a second later", time.Second, 750 * time.Millisecond, true, true},
		{"one that was sent long ago", 10 * time.Second, 2 * time.Second, false, false},
		{"the next, also long ago", 10 * time.Second, 3 * time.Second, false, false},
		{"one from just now", 10 * time.Second, 9800 * time.Millisecond, true, true},
		{"an older one doesn't undo it", 10 * time.Second, 4 * time.Second, true, true},
		{"one of a clock that runs ahead", 11 * time.Second, 20 * time.Second, true, true},
	} {
		now = opened.Add(step.at)
		if got := f.apply(t.Context(), changeMessage(step.after, false), opened); got != step.news || f.isCurrent(now) != step.currents {
			t.Errorf("%s: news %v, current %v; want %v, %v", step.what, got, f.isCurrent(now), step.news, step.currents)
		}
	}
	if f.isCurrent(now.Add(1100 * time.Millisecond)) {
		t.Error("after 1.1 s of silence the feed is still current")
	}
}

func TestAFeedInvalidatesTheTagsOfItsUpdates(t *testing.T) {
	t.Parallel()
	cache := &recordedInvalidations{}
	f := newChangeFeed(Backend{Name: "notes"}, cache, discard)
	f.apply(t.Context(), changeMessage(0, false, "profile/1"), time.Now())
	if got := fmt.Sprint(cache.tags, cache.all); got != "[profile/1] 0" {
		t.Errorf("of one profile that changed: got %s, want it invalidated", got)
	}
	f.apply(t.Context(), changeMessage(0, true), time.Now())
	if cache.all != 1 {
		t.Errorf("when it is not known what changed: everything was invalidated %d times, want once", cache.all)
	}
}

// recordedInvalidations are what a feed invalidates.
type recordedInvalidations struct {
	kinds []string
	tags  []string
	all   int
}

func (r *recordedInvalidations) Invalidate(tags ...string) { r.tags = append(r.tags, tags...) }
func (r *recordedInvalidations) InvalidateAll()            { r.all++ }
func (r *recordedInvalidations) InvalidateKinds(kinds ...string) {
	r.kinds = append(r.kinds, kinds...)
}

func TestAFetchDuringWhichAFeedFallsSilentIsNotCached(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	token := h.token(alice, "user")
	answer(h.backend, authv1.SessionServiceListSessionsProcedure, func(context.Context, *authv1.ListSessionsRequest) (*authv1.ListSessionsResponse, error) {
		h.silenceFeed(authName)
		return &authv1.ListSessionsResponse{}, nil
	})
	for i := range 2 {
		h.withCache()
		got := h.asks(t, "ListSessions", func() error {
			_, over := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, token)
			return over.err
		})
		if got != 1 {
			t.Errorf("ListSessions %d asked auth %d times, want once", i, got)
		}
	}
}

// A caller's own deadline is kept though the others' answer takes longer.
func TestAWaiterKeepsItsOwnDeadline(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true}).withCache()
	h.hang(authv1.AccountServiceGetAccountProcedure)
	h.setDeadline("Connect-Timeout-Ms", "100")
	_, over := h.getMe(t, h.token(alice, "user"))
	wantError(t, "GetMe within 100 ms", over, http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, fault.ReasonDeadline)
}

const meByGet = "/bff.v1.AccountService/GetMe?connect=v1&encoding=json&message=%7B%7D"

func TestACallerWithACurrentETagGetsA304(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]*harness{"cached": newHarness(t, options{}).withCache(), "not cached": newHarness(t, options{})} {
		bearer := []string{"Authorization", "Bearer " + h.token(alice, "user")}
		first, body := h.get(t, meByGet, bearer...)
		tag := first.Header.Get("Etag")
		if first.StatusCode != http.StatusOK || len(tag) < 20 || tag[0] != '"' || first.Header.Get("Cache-Control") != "private, no-cache" {
			t.Fatalf("%s: got %s, ETag %s, Cache-Control %q", name, first.Status, tag, first.Header.Get("Cache-Control"))
		}
		vary := fmt.Sprint(first.Header.Values("Vary"))
		for _, header := range []string{"Authorization", "Cookie", "Accept-Encoding"} {
			if !strings.Contains(vary, header) {
				t.Errorf("%s: Vary %s lacks %s", name, vary, header)
			}
		}
		for condition, want := range map[string]int{
			tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200, "": 200,
		} {
			again, text := h.get(t, meByGet, append(bearer, "If-None-Match", condition)...)
			if again.StatusCode != want || again.Header.Get("Etag") != tag || (want == 304) != (text == "") {
				t.Errorf("%s: If-None-Match %s: got %s, ETag %s and %d bytes, want %d and the same ETag", name, condition, again.Status, again.Header.Get("Etag"), len(text), want)
			}
		}
		asProto, _ := h.get(t, "/bff.v1.AccountService/GetMe?connect=v1&encoding=proto&message=", bearer...)
		if other := asProto.Header.Get("Etag"); other == tag || other == "" {
			t.Errorf("%s: in binary the ETag is %s, want another", name, other)
		}
		packed, _ := h.get(t, meByGet, append(bearer, "Accept-Encoding", "gzip")...)
		if other := packed.Header.Get("Etag"); other == tag || other == "" {
			t.Errorf("%s: for who takes it compressed the ETag is %s, want another", name, other)
		}
		bobs, _ := h.get(t, meByGet, "Authorization", "Bearer "+h.token(bob, "user"), "If-None-Match", tag)
		if bobs.StatusCode != http.StatusOK {
			t.Errorf("%s: with alice's ETag, bob got %s", name, bobs.Status)
		}
		answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
			return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{Id: req.GetProfileId(), FirstName: "Grace"}}, nil
		})
		h.gateway.cache.Invalidate("profile/" + alice)
		changed, text := h.get(t, meByGet, append(bearer, "If-None-Match", tag)...)
		if changed.StatusCode != http.StatusOK || changed.Header.Get("Etag") == tag || text == body {
			t.Errorf("%s: once it changed, got %s, ETag %s", name, changed.Status, changed.Header.Get("Etag"))
		}
		if refused, _ := h.get(t, meByGet, "If-None-Match", tag); refused.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: without a token, got %s", name, refused.Status)
		}
		if lines := h.log.lines(t, "call"); len(lines) == 0 {
			t.Errorf("%s: calls aren't logged", name)
		} else {
			for _, line := range lines {
				if line["level"] == "ERROR" {
					t.Errorf("%s: a 304 is logged as %v", name, line)
				}
			}
		}
	}
}

// An answer that lacks something says so, and has no ETag.
func TestAnIncompleteAnswerHasNoETag(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.fail(authv1.SessionServiceListSessionsProcedure, errors.New("away"))
	got, _ := h.get(t, meByGet, "Authorization", "Bearer "+h.token(alice, "user"), "If-None-Match", "*")
	if got.StatusCode != http.StatusOK || got.Header.Get("Etag") != "" || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %s, ETag %q, Cache-Control %q; want 200, none, no-store", got.Status, got.Header.Get("Etag"), got.Header.Get("Cache-Control"))
	}
}

// What isn't kept has an ETag too; what writes has none.
func TestReadsThatAreNotCachedHaveETags(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	answer(h.backend, usersv1.ProfileServiceListProfilesProcedure, func(context.Context, *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
		return &usersv1.ListProfilesResponse{}, nil
	})
	bearer := []string{"Authorization", "Bearer " + h.token(alice, "admin")}
	path := "/bff.v1.UserService/ListUsers?connect=v1&encoding=json&message=" + url.QueryEscape("{}")
	got, _ := h.get(t, path, bearer...)
	again, _ := h.get(t, path, append(bearer, "If-None-Match", got.Header.Get("Etag"))...)
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("got %s with ETag %q, want 304", again.Status, got.Header.Get("Etag"))
	}
	posted, _ := h.send(t, "/bff.v1.UserService/ListUsers", "{}", append(bearer, "If-None-Match", "*")...)
	if posted.StatusCode != http.StatusOK || posted.Header.Get("Etag") != "" {
		t.Errorf("posted, got %s with ETag %q; want 200 and none", posted.Status, posted.Header.Get("Etag"))
	}
}
