package users_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
	"gatehouse/users/attributes"
)

func TestAttributesArePatched(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{firstName: "Ada"})
	if first := s.get(t, id); first.GetAttributes() != "" || first.GetAppAttributes() != "" {
		t.Errorf("a new profile has attributes %q and %q", first.GetAttributes(), first.GetAppAttributes())
	}
	for _, step := range []struct {
		change            *usersv1.Profile
		paths             []string
		attributes, owned string
	}{
		{&usersv1.Profile{Attributes: `{"theme": "dark", "ui": {"zoom": 2, "dense": true}}`}, []string{"attributes"}, `{"theme":"dark","ui":{"dense":true,"zoom":2}}`, ""},
		{&usersv1.Profile{AppAttributes: `{"plan":"pro"}`, Attributes: `{"ignored":1}`}, []string{"app_attributes"}, `{"theme":"dark","ui":{"dense":true,"zoom":2}}`, `{"plan":"pro"}`},
		{&usersv1.Profile{Attributes: `{"ui":{"dense":null},"theme":"light"}`, FirstName: "Augusta"}, []string{"attributes", "first_name", "attributes"}, `{"theme":"light","ui":{"zoom":2}}`, `{"plan":"pro"}`},
		// As a gateway that does not know attributes sends it.
		{&usersv1.Profile{FirstName: "Augusta", LastName: "King"}, []string{"first_name", "last_name"}, `{"theme":"light","ui":{"zoom":2}}`, `{"plan":"pro"}`},
		{&usersv1.Profile{Attributes: `{}`}, []string{"attributes"}, `{"theme":"light","ui":{"zoom":2}}`, `{"plan":"pro"}`},
		{&usersv1.Profile{}, []string{"attributes"}, "", `{"plan":"pro"}`},
		{&usersv1.Profile{AppAttributes: `{"plan":null}`, Attributes: `{"a":1}`}, []string{"app_attributes", "attributes"}, `{"a":1}`, ""},
	} {
		before := s.get(t, id)
		step.change.Id = id
		res, err := s.profiles.UpdateProfile(t.Context(), update(step.change, step.paths...))
		if err != nil {
			t.Fatalf("%v: %v", step.change, err)
		}
		got := res.GetProfile()
		if got.GetAttributes() != step.attributes || got.GetAppAttributes() != step.owned {
			t.Errorf("%v of %q: got %q and %q, want %q and %q", step.change, step.paths, got.GetAttributes(), got.GetAppAttributes(), step.attributes, step.owned)
		}
		if got.GetEtag() == before.GetEtag() {
			t.Errorf("%v: the etag stayed %q", step.change, got.GetEtag())
		}
		list, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{Query: id})
		if err != nil || len(list.GetProfiles()) != 1 || list.GetProfiles()[0].GetAttributes() != step.attributes || list.GetProfiles()[0].GetAppAttributes() != step.owned {
			t.Errorf("%v: listed as %v, %v", step.change, list.GetProfiles(), err)
		}
	}
	// A later account event leaves them alone, and a deletion deletes them.
	s.applied(t, present(id, 2, account{}))
	if got := s.get(t, id).GetAttributes(); got != `{"a":1}` {
		t.Errorf("after an account event: %q", got)
	}
	s.applied(t, deleted(id, 3))
	var left int
	if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM users.profiles WHERE id = $1`, id).Scan(&left); err != nil || left != 0 {
		t.Errorf("after the deletion %d profiles are left, %v", left, err)
	}
}

func TestPatchesOfDifferentKeysAreAllKept(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{})
	const writers, each = 8, 5
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() {
			for n := range each {
				patch := fmt.Sprintf(`{"w%d":{"n%d":true}}`, writer, n)
				if _, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Attributes: patch}, "attributes")); err != nil {
					t.Errorf("%s: %v", patch, err)
				}
			}
		})
	}
	group.Wait()
	var got map[string]map[string]bool
	if err := json.Unmarshal([]byte(s.get(t, id).GetAttributes()), &got); err != nil {
		t.Fatal(err)
	}
	for writer := range writers {
		if keys := got[fmt.Sprintf("w%d", writer)]; len(keys) != each {
			t.Errorf("writer %d: kept %v, want %d keys", writer, keys, each)
		}
	}
}

func TestOfPatchesOfOneVersionOneCounts(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users), Schema: schema(t, `{"properties":{"attributes":{"type":"object"}}}`)})
	id := s.apply(t, account{})
	etag := s.get(t, id).GetEtag()
	const writers = 6
	results := make(chan error, writers)
	for writer := range writers {
		go func() {
			_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Etag: etag, Attributes: fmt.Sprintf(`{"w%d":1}`, writer)}, "attributes"))
			results <- err
		}()
	}
	succeeded := 0
	for range writers {
		if err := <-results; err == nil {
			succeeded++
		} else {
			wantError(t, "a patch of a version that has passed", err, connect.CodeAborted, "ETAG_MISMATCH")
		}
	}
	if succeeded != 1 {
		t.Errorf("%d patches succeeded, want 1", succeeded)
	}
	_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: newID(t), Attributes: `{}`}, "attributes"))
	wantError(t, "an unknown profile", err, connect.CodeNotFound, "PROFILE_NOT_FOUND")
}

func TestAttributesHaveALimitAndAreStoredAsChecked(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{})
	patch := func(name, text string) error {
		t.Helper()
		_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Attributes: text}, name))
		return err
	}
	// Postgres would print such a number with its 301 digits.
	numbers := `{"n":[` + strings.TrimSuffix(strings.Repeat("1e300,", 2000), ",") + `]}`
	if err := patch("attributes", numbers); err != nil {
		t.Fatal(err)
	}
	if got := s.get(t, id).GetAttributes(); len(got) > attributes.MaxBytes {
		t.Errorf("%d bytes are returned as %d", len(numbers), len(got))
	}
	if err := patch("attributes", `{"n":null}`); err != nil {
		t.Fatal(err)
	}
	full := `{"a":"` + strings.Repeat("x", attributes.MaxBytes-len(`{}`)-len(`{"a":""}`)) + `"}`
	if err := patch("attributes", full); err != nil {
		t.Errorf("%d bytes with the other object's {}: %v", len(full), err)
	}
	wantError(t, "one byte more", patch("attributes", `{"a":"`+strings.Repeat("x", len(full)-7)+`"}`), connect.CodeInvalidArgument, "ATTRIBUTES_TOO_LARGE")
	wantError(t, "NUL", patch("attributes", `{"b":"\u0000"}`), connect.CodeInvalidArgument, "ATTRIBUTES_INVALID")
	wantError(t, "no object", patch("attributes", `[]`), connect.CodeInvalidArgument, "ATTRIBUTES_INVALID")
	wantError(t, "a field below", patch("attributes.a", `{}`), connect.CodeInvalidArgument, "UPDATE_MASK_INVALID")
	if got := s.get(t, id).GetAttributes(); got != full {
		t.Errorf("refused changes left %d bytes, want the %d from before", len(got), len(full))
	}
}

func TestASchemaAppliesToChangesOnly(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).Users
	before := start(t, users.Config{DB: pgtest.Pool(t, db)})
	id := before.apply(t, account{})
	if _, err := before.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Attributes: `{"theme":"blue","zoom":2}`}, "attributes")); err != nil {
		t.Fatal(err)
	}
	s := start(t, users.Config{DB: pgtest.Pool(t, db), Schema: schema(t, `{
		"properties": {"attributes": {"properties": {"theme": {"enum": ["light", "dark"]}}}, "app_attributes": {"required": ["plan"]}}}`)})
	if got := s.get(t, id).GetAttributes(); got != `{"theme":"blue","zoom":2}` {
		t.Errorf("read with the schema: %q", got)
	}
	change := func(p *usersv1.Profile, path string) error {
		p.Id = id
		_, err := s.profiles.UpdateProfile(t.Context(), update(p, path))
		return err
	}
	for _, fine := range []struct {
		profile *usersv1.Profile
		path    string
	}{
		{&usersv1.Profile{FirstName: "Ada"}, "first_name"},
		{&usersv1.Profile{Attributes: `{"zoom":3}`}, "attributes"},
		{&usersv1.Profile{AppAttributes: `{"quota":3}`}, "app_attributes"},
	} {
		if err := change(fine.profile, fine.path); err != nil {
			t.Errorf("%v: %v", fine.profile, err)
		}
	}
	err := change(&usersv1.Profile{Attributes: `{"theme":"red"}`}, "attributes")
	wantError(t, "another theme", err, connect.CodeInvalidArgument, "ATTRIBUTES_INVALID")
	if got := invalidFields(err); len(got) != 1 || got[0] != "attributes.theme" {
		t.Errorf("another theme: violations of %q", got)
	}
	if err := change(&usersv1.Profile{Attributes: `{"theme":"dark"}`}, "attributes"); err != nil {
		t.Errorf("a theme of the schema: %v", err)
	}
	_, err = s.profiles.CheckAttributes(t.Context(), &usersv1.CheckAttributesRequest{Attributes: `{"theme":"red"}`})
	wantError(t, "check a new user's", err, connect.CodeInvalidArgument, "ATTRIBUTES_INVALID")
	if _, err := s.profiles.CheckAttributes(t.Context(), &usersv1.CheckAttributesRequest{Attributes: `{"theme":"dark"}`, AppAttributes: `{"plan":"pro"}`}); err != nil {
		t.Errorf("check a new user's: %v", err)
	}
	_, err = usersv1.NewProfileServiceClient(s.client(t, "auth")).CheckAttributes(t.Context(), &usersv1.CheckAttributesRequest{})
	wantError(t, "auth checks attributes", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
}

func schema(t *testing.T, document string) *attributes.Schema {
	t.Helper()
	compiled, err := attributes.Compile([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func TestAChangeOfAttributesWritesItsAuditEvent(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	audit := usersv1.NewAuditServiceClient(s.client(t, "auth"))
	id, actor := s.apply(t, account{}), newID(t)
	change := func(text string) error {
		req := update(&usersv1.Profile{Id: id, Attributes: text}, "attributes")
		req.Actor = &usersv1.Actor{AccountId: actor, SessionId: newID(t), IpAddress: "203.0.113.7", UserAgent: "Quasar/9", RequestId: "r1"}
		_, err := s.profiles.UpdateProfile(t.Context(), req)
		return err
	}
	pending := func() []*usersv1.AttributesChanged {
		t.Helper()
		res, err := audit.ListPendingEvents(t.Context(), &usersv1.ListPendingEventsRequest{PageSize: 100})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetEvents()
	}
	if err := change(`{"theme":"dark"}`); err != nil {
		t.Fatal(err)
	}
	for _, nothing := range []string{`{"theme":"dark"}`, `{}`, `{"a":"\u0000"}`} { // the same, nothing, refused
		_ = change(nothing)
	}
	many := map[string]int{}
	for n := range 60 {
		many[fmt.Sprintf("k%02d", n)] = n
	}
	text, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	if err := change(string(text)); err != nil {
		t.Fatal(err)
	}
	events := pending()
	if len(events) != 2 || len(events[0].GetChanged()) != 1 || events[0].GetChanged()[0] != "attributes.theme" || len(events[1].GetChanged()) != 50 {
		t.Fatalf("pending: %v, want one of the theme and one of 50 names", events)
	}
	first := events[0]
	if first.GetAccountId() != id || first.GetActor().GetAccountId() != actor || first.GetActor().GetIpAddress() != "203.0.113.7" || first.GetActor().GetRequestId() != "r1" || !first.GetCreateTime().IsValid() {
		t.Errorf("the event is %v", first)
	}
	for range 2 {
		if _, err := audit.ConfirmEvents(t.Context(), &usersv1.ConfirmEventsRequest{Ids: []string{first.GetId()}}); err != nil {
			t.Fatal(err)
		}
	}
	s.applied(t, deleted(id, 2))
	if left := pending(); len(left) != 1 || len(left[0].GetChanged()) != 0 || left[0].GetActor().GetIpAddress() != "" || left[0].GetAccountId() != id {
		t.Errorf("after the deletion: %v, want the second event without names and address", left)
	}
	_, err = usersv1.NewAuditServiceClient(s.client(t, "bff")).ListPendingEvents(t.Context(), &usersv1.ListPendingEventsRequest{})
	wantError(t, "the bff lists events", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
}
