package bff

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/bff/standbys"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

func profileRequest(account string) *usersv1.GetProfileRequest {
	return &usersv1.GetProfileRequest{ProfileId: account}
}

func noAnswer(string, *usersv1.GetProfileResponse) *bffv1.GetMeResponse {
	return &bffv1.GetMeResponse{}
}

func TestAPartOfGetMeThatDoesNotFitRefusesTheStart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	auth, users := h.backend.reach(t, authName, options{}), h.backend.reach(t, usersName, options{})
	const read = usersv1.ProfileServiceGetProfileProcedure
	for name, test := range map[string]struct {
		part    *MePart
		problem string
	}{
		"no functions":        {&MePart{Field: "notes", Procedure: read}, "it has no functions"},
		"no such field":       {NewMePart(MePart{Field: "notes", Procedure: read}, profileRequest, noAnswer), "bff.v1.GetMeResponse has no field of that name"},
		"the gateway's field": {NewMePart(MePart{Field: "security", Procedure: read}, profileRequest, noAnswer), "the name is the gateway's own"},
		"the gateway's part":  {NewMePart(MePart{Field: "profile", Procedure: read}, profileRequest, noAnswer), "the name is the gateway's own"},
		"a kind without a feed": {NewMePart(MePart{Field: "notes", Procedure: read, Kinds: []string{"note"}}, profileRequest, noAnswer),
			`no feed reports changes of the kind "note": add it to Tells`},
		"no such method": {NewMePart(MePart{Field: "notes", Procedure: read + "s"}, profileRequest, noAnswer), "there is no method " + read + "s"},
		"a stream": {NewMePart(MePart{Field: "notes", Procedure: authv1.RevocationServiceWatchRevocationsProcedure}, profileRequest, noAnswer),
			"is a stream"},
		"a write": {NewMePart(MePart{Field: "notes", Procedure: usersv1.ProfileServiceUpdateProfileProcedure}, profileRequest, noAnswer), "may have side effects"},
		"another request": {NewMePart(MePart{Field: "notes", Procedure: authv1.AccountServiceGetAccountProcedure}, profileRequest, noAnswer),
			"its request is a users.v1.GetProfileRequest"},
		"a request that the method refuses": {NewMePart(MePart{Field: "notes", Procedure: read}, func(string) *usersv1.GetProfileRequest { return &usersv1.GetProfileRequest{} }, noAnswer),
			"refuses its request"},
		"another response": {NewMePart(MePart{Field: "notes", Procedure: read}, profileRequest, func(string, *usersv1.Profile) *bffv1.GetMeResponse { return nil }),
			"returns a users.v1.GetProfileResponse, which its part of GetMe does not take"},
	} {
		services := append(backends(auth, users), Backend{Name: "notes", Client: users, Extension: Extension{Me: test.part}})
		_, err := New(Config{Backends: services, PublicURL: publicURL, Logger: discard})
		if err == nil || !strings.Contains(err.Error(), test.problem) || !strings.Contains(err.Error(), "that notes adds to GetMe") {
			t.Errorf("%s: the start got %v, want %q", name, err, test.problem)
		}
		if err := CheckPolicy("", nil, services...); err == nil || !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: the check of the policy got %v, want %q", name, err, test.problem)
		}
		if _, err := PolicyOf("", nil, services...); err == nil || !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: the policies got %v, want %q", name, err, test.problem)
		}
	}
}

func TestAFieldOfGetMeThatNobodyFillsIsFound(t *testing.T) {
	t.Parallel()
	answer := (&bffv1.Session{}).ProtoReflect().Descriptor()
	names := []protoreflect.Name{"id", "create_time", "last_used_time", "expire_time", "user_agent", "ip_address", "current", "revoke_time", "revoke_reason"}
	wantNoError(t, "all fields", checkFilled(answer, names))
	if err := checkFilled(answer, names[1:]); err == nil || !strings.Contains(err.Error(), `the field "id", which no service fills: set Me`) {
		t.Errorf("all fields but one: got %v, want an error that names it", err)
	}
}

// withPart makes GetMe take the field security from a call of users.
func (h *harness) withPart(t testing.TB, part MePart, users *connect.Client) *harness {
	t.Helper()
	part.Field, part.Procedure = "security", usersv1.ProfileServiceListProfilesProcedure
	added := &mePart{client: users, field: meAnswer.Fields().ByName("security"), MePart: *NewMePart(part,
		func(account string) *usersv1.ListProfilesRequest { return &usersv1.ListProfilesRequest{Query: account} },
		func(account string, response *usersv1.ListProfilesResponse) *bffv1.GetMeResponse {
			return &bffv1.GetMeResponse{User: &bffv1.User{FirstName: "nobody"}, Security: &bffv1.Security{ActiveSessions: 40 + int32(len(response.GetProfiles()))}}
		})}
	wantNoError(t, "the part", added.resolveMethod())
	h.gateway.account.parts = meParts{added}
	return h
}

const partProcedure = usersv1.ProfileServiceListProfilesProcedure

func (h *harness) answerPart() {
	answer(h.backend, partProcedure, func(_ context.Context, req *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
		return &usersv1.ListProfilesResponse{Profiles: []*usersv1.Profile{profileOf(req.GetQuery())}}, nil
	})
}

func TestAServiceFillsItsFieldOfGetMe(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{"in process": {cacheBytes: CacheNothing}, "apart": {apart: true, cacheBytes: CacheNothing}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, o)
			users := h.backend.reach(t, usersName, o)
			h.withPart(t, MePart{}, users).answerPart()
			me, got := h.getMe(t, h.token(alice))
			wantNoError(t, "GetMe", got.err)
			if me.GetSecurity().GetActiveSessions() != 41 || me.GetUser().GetFirstName() != "Ada" || len(me.GetErrors()) != 0 {
				t.Errorf("got %v, want the part's field, and no other field of it", me)
			}
			h.fail(partProcedure, fault.Unavailable())
			me, got = h.getMe(t, h.token(alice))
			wantNoError(t, "GetMe", got.err)
			wantMissing(t, "GetMe", me.GetErrors(), away("security"))
			if me.GetUser().GetFirstName() != "Ada" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %v with Cache-Control %q, want the other parts, and no-store", me, got.header.Get("Cache-Control"))
			}
			h.withPart(t, MePart{Required: true}, users)
			_, got = h.getMe(t, h.token(alice))
			wantUnavailable(t, "GetMe with a required part", got, fault.ReasonUnavailable)
		})
	}
}

func TestAPartWithATagIsCachedUntilItsDataChanges(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	h.withPart(t, MePart{Kinds: []string{"profile"}}, h.backend.reach(t, usersName, options{})).answerPart()
	ask := func(want int) {
		t.Helper()
		_, got := h.getMe(t, h.token(alice))
		wantNoError(t, "GetMe", got.err)
		if got := h.called(partProcedure); got != want {
			t.Errorf("the part was fetched %d times, want %d", got, want)
		}
	}
	ask(1)
	h.gateway.cache.Invalidate("account/" + alice) // of another part
	ask(1)
	h.gateway.cache.Invalidate("profile/" + alice)
	ask(2)
	ask(2)
}

func TestAPartWithoutATagIsCachedForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{}).withCache()
		h.receiveRevocations(time.Now().Add(time.Hour))
		h.withPart(t, MePart{}, h.backend.reach(t, usersName, options{})).answerPart()
		for i, want := range []int{1, 1, 2} {
			for _, feed := range h.gateway.changes {
				feed.asOf.Store(int64(2 * time.Hour))
			}
			_, got := h.getMe(t, h.token(alice))
			wantNoError(t, "GetMe", got.err)
			if got := h.called(partProcedure); got != want {
				t.Errorf("call %d: the part was fetched %d times, want %d", i, got, want)
			}
			time.Sleep(600 * time.Millisecond)
		}
		if got := h.called(usersv1.ProfileServiceGetProfileProcedure); got != 1 {
			t.Errorf("the profile was fetched %d times, want once", got)
		}
	})
}

// The tags of a service's part are tags of GetMe, on every surface that shows them.
func TestThePartsTagsAreTagsOfGetMe(t *testing.T) {
	t.Parallel()
	parts := meParts{{MePart: MePart{Kinds: []string{"note", "account"}}}}
	s := &Service{me: parts, gateway: &Gateway{}, feedOwners: map[string]string{"note": "notes", "account": authName, "profile": usersName, "sessions": authName}}
	cache, err := newCache(CacheNothing, nil, standbys.New(time.Second, nil), nil)
	wantNoError(t, "newCache", err)
	t.Cleanup(cache.Close)
	s.cache = cache
	server, err := s.newServer(Config{Logger: discard})
	wantNoError(t, "newServer", err)
	for _, method := range methodsOf(server.Methods()) {
		want := method.Path == bffv1.AccountServiceGetMeProcedure
		if got := strings.Contains(method.Cache, "note/{caller}"); got != want || strings.Count(method.Cache, "account/{caller}") > 1 {
			t.Errorf("%s is cached %s; it has the part's tags: %v, want %v, each once", method.Path, method.Cache, got, want)
		}
	}
	s.feedOwners["note"] = ""
	if _, err := s.newServer(Config{Logger: discard}); err == nil || !strings.Contains(err.Error(), `the tag "note/{caller}", and no feed`) {
		t.Errorf("without a feed of notes: got %v, want a refusal", err)
	}
}
