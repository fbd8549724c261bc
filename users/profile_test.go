package users_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

func TestGetProfileReturnsWhatTheAccountStartedWith(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	made := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)
	id := s.apply(t, account{firstName: "Ada", lastName: "Lovelace", locale: "en-GB", createTime: made})

	got := s.get(t, strings.ToUpper(id))
	want := &usersv1.Profile{
		Id: id, FirstName: "Ada", LastName: "Lovelace", Locale: "en-GB",
		CreateTime: timestamppb.New(made), UpdateTime: got.GetUpdateTime(), Etag: got.GetEtag(),
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got.GetUpdateTime() == nil || got.GetEtag() == "" || len(got.GetEtag()) > 64 {
		t.Errorf("got update_time %v and etag %q, want both, the etag of at most 64 characters", got.GetUpdateTime(), got.GetEtag())
	}
}

func TestGetProfileOfAnUnknownIDIsNotFound(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})

	_, err := s.profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: newID(t)})
	wantError(t, "GetProfile", err, connect.CodeNotFound, "PROFILE_NOT_FOUND")
}

func TestUpdateProfileChangesOnlyTheMaskedFields(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{firstName: "Ada", lastName: "Byron", locale: "en"})
	sent := &usersv1.Profile{Id: id, FirstName: "Augusta", LastName: "Lovelace", Locale: ""}

	for _, step := range []struct {
		paths                       []string
		firstName, lastName, locale string
	}{
		{[]string{"last_name"}, "Ada", "Lovelace", "en"},
		{[]string{"locale"}, "Ada", "Lovelace", ""},
		{[]string{"first_name", "last_name", "first_name"}, "Augusta", "Lovelace", ""},
		{[]string{"first_name", "last_name", "locale"}, "Augusta", "Lovelace", ""}, // as it is
	} {
		before := s.get(t, id)
		res, err := s.profiles.UpdateProfile(t.Context(), update(sent, step.paths...))
		if err != nil {
			t.Fatalf("%q: %v", step.paths, err)
		}
		got := res.GetProfile()
		if got.GetFirstName() != step.firstName || got.GetLastName() != step.lastName || got.GetLocale() != step.locale {
			t.Errorf("%q: got %v, want %q %q, locale %q", step.paths, got, step.firstName, step.lastName, step.locale)
		}
		if got.GetEtag() == before.GetEtag() || !got.GetUpdateTime().AsTime().After(before.GetUpdateTime().AsTime()) {
			t.Errorf("%q: got %v after %v, want another etag and a later update_time", step.paths, got, before)
		}
		if !proto.Equal(got.GetCreateTime(), before.GetCreateTime()) {
			t.Errorf("%q: create_time went from %v to %v", step.paths, before.GetCreateTime(), got.GetCreateTime())
		}
		if now := s.get(t, id); !proto.Equal(now, got) {
			t.Errorf("%q: got %v, but read back %v", step.paths, got, now)
		}
	}
}

func TestUpdateProfileRefusesAMaskThatItCantFollow(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{firstName: "Ada"})
	before := s.get(t, id)

	for _, test := range []struct {
		paths []string
		named string
	}{
		{nil, "names no field to change"},
		{[]string{"email"}, `"email"`},
		{[]string{"first_name", "id"}, `"id"`},
		{[]string{"*"}, `"*"`},
		{[]string{""}, `""`},
		{[]string{"profile.first_name"}, `"profile.first_name"`},
		{[]string{"firstName"}, `"firstName"`},
		{[]string{strings.Repeat("x", 100_000)}, `xxx"`},
	} {
		_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: "Eve"}, test.paths...))
		wantError(t, test.named, err, connect.CodeInvalidArgument, "UPDATE_MASK_INVALID")
		faults := badRequest(err).GetFieldViolations()
		if len(faults) != 1 || faults[0].GetField() != "update_mask" || !strings.Contains(faults[0].GetDescription(), test.named) {
			t.Errorf("%s: got violations %v, want one of update_mask that says %s", test.named, faults, test.named)
		}
		if len(err.Error()) > 400 {
			t.Errorf("%s: the error is %d bytes long", test.named, len(err.Error()))
		}
	}
	if after := s.get(t, id); !proto.Equal(before, after) {
		t.Errorf("a refused update changed %v to %v", before, after)
	}
}

func TestUpdateProfileRefusesAStaleEtag(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{})
	first := s.get(t, id)
	second, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: "Ada", Etag: first.GetEtag()}, "first_name"))
	if err != nil {
		t.Fatalf("update with the current etag: %v", err)
	}

	current := second.GetProfile().GetEtag()
	for _, etag := range []string{first.GetEtag(), "x", "1", "2", `"` + current + `"`, current + "\n", current + "=", strings.Repeat("A", 64)} {
		_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: "Eve", Etag: etag}, "first_name"))
		wantError(t, "etag "+etag, err, connect.CodeAborted, "ETAG_MISMATCH")
	}
	if got := s.get(t, id); !proto.Equal(got, second.GetProfile()) {
		t.Errorf("a refused update changed %v to %v", second.GetProfile(), got)
	}
}

func TestUpdateProfileOfAnUnknownIDIsNotFound(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	known := s.get(t, s.apply(t, account{}))

	for _, etag := range []string{"", known.GetEtag(), "nonsense"} {
		_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: newID(t), Etag: etag}, "locale"))
		wantError(t, "etag "+etag, err, connect.CodeNotFound, "PROFILE_NOT_FOUND")
	}
}

func TestOfParallelUpdatesWithOneEtagExactlyOneSucceeds(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{})

	for range 10 {
		etag := s.get(t, id).GetEtag()
		const callers = 20
		errs := make([]error, callers)
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				_, errs[i] = s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: "Ada", Etag: etag}, "first_name"))
			})
		}
		all.Wait()
		succeeded := 0
		for _, err := range errs {
			if err == nil {
				succeeded++
				continue
			}
			wantError(t, "a call that came too late", err, connect.CodeAborted, "ETAG_MISMATCH")
		}
		if succeeded != 1 {
			t.Errorf("%d of %d updates with etag %s succeeded, want 1", succeeded, callers, etag)
		}
	}
}
