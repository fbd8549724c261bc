package users_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

const (
	active   = usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE
	disabled = usersv1.ProfileStatus_PROFILE_STATUS_DISABLED

	newestFirst = usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST
	oldestFirst = usersv1.ProfileOrder_PROFILE_ORDER_OLDEST_FIRST
	byEmail     = usersv1.ProfileOrder_PROFILE_ORDER_EMAIL
)

func TestListProfilesPagesAre25LongUnlessSaid(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	for range 101 {
		s.apply(t, account{})
	}

	for _, test := range []struct {
		size int32
		want []int
	}{
		{0, []int{25, 25, 25, 25, 1}},
		{1, slices.Repeat([]int{1}, 101)},
		{100, []int{100, 1}},
	} {
		var got []int
		for page := range s.pages(t, &usersv1.ListProfilesRequest{PageSize: test.size}) {
			got = append(got, len(page))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("page_size %d: got pages of %d, want %d", test.size, got, test.want)
		}
	}
	for _, size := range []int32{-1, 101} {
		_, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{PageSize: size})
		wantError(t, fmt.Sprintf("page_size %d", size), err, connect.CodeInvalidArgument, "INVALID_ARGUMENT")
	}
}

func TestTheLastFullPageHasNoNextToken(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	for count := range 3 {
		res, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{PageSize: 2})
		if err != nil || len(res.GetProfiles()) != count || res.GetNextPageToken() != "" {
			t.Errorf("of %d profiles, 2 a page: got %v, %v, want all and no token", count, res, err)
		}
		s.apply(t, account{})
	}
}

func TestListProfilesOrders(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// Made in another order than listed in any; b and c at the same time, d and
	// e with the same email but for its case.
	ids := []string{newID(t), newID(t), newID(t), newID(t), newID(t)}
	a, b, c, d, e := ids[0], ids[1], ids[2], ids[3], ids[4]
	s.applied(t, present(c, 1, account{email: "m@x.test", createTime: at.Add(time.Microsecond)}))
	s.applied(t, present(e, 1, account{email: "A@x.test", createTime: at.Add(-time.Hour)}))
	s.applied(t, present(a, 1, account{email: "Z@x.test", createTime: at.Add(time.Hour)}))
	s.applied(t, present(d, 1, account{email: "a@x.test", createTime: at, status: disabled}))
	s.applied(t, present(b, 1, account{email: "b@x.test", createTime: at.Add(time.Microsecond), status: disabled}))

	for _, test := range []struct {
		order  usersv1.ProfileOrder
		status usersv1.ProfileStatus
		want   []string
	}{
		{0, 0, []string{a, c, b, d, e}},
		{newestFirst, 0, []string{a, c, b, d, e}},
		{oldestFirst, 0, []string{e, d, b, c, a}},
		{byEmail, 0, []string{d, e, b, c, a}},
		{newestFirst, active, []string{a, c, e}},
		{oldestFirst, disabled, []string{d, b}},
		{byEmail, active, []string{e, c, a}},
	} {
		for size := range int32(6) {
			req := &usersv1.ListProfilesRequest{Order: test.order, Status: test.status, PageSize: size}
			if got := s.list(t, req); !slices.Equal(got, test.want) {
				t.Errorf("%v: got %q, want %q", req, got, test.want)
			}
		}
	}
}

func TestListProfilesFindsWhatBeginsWithTheQuery(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	names := map[string]string{}
	for name, a := range map[string]account{
		"ada":     {email: "Ada.L@Example.com", firstName: "Ada", lastName: "Lovelace"},
		"adam":    {email: "first.man@example.com", firstName: "Adam", lastName: "von Eden", status: disabled},
		"émile":   {email: "emile@example.com", firstName: "Émile", lastName: "ÇELIK"},
		"percent": {email: "p%q@example.com", firstName: "100%", lastName: `back\slash`},
		"under":   {email: "p_q@example.com", firstName: "under_score", lastName: "_"},
		"nameless": {
			email: "zzz@example.com",
		},
	} {
		names[s.apply(t, a)] = name
	}

	for _, test := range []struct {
		query  string
		status usersv1.ProfileStatus
		want   []string
	}{
		{"ada", 0, []string{"ada", "adam"}},
		{"ADA", 0, []string{"ada", "adam"}},
		{"ada", disabled, []string{"adam"}},
		{"ada ", 0, []string{"ada"}},
		{"ada love", 0, []string{"ada"}},
		{"ada  love", 0, nil},
		{"aDa.l@eXample.COM", 0, []string{"ada"}},
		{"da", 0, nil},
		{"LOVE", 0, []string{"ada"}},
		{"eden", 0, nil},
		{"von e", 0, []string{"adam"}},
		{"ém", 0, []string{"émile"}},
		{"ÉM", 0, []string{"émile"}},
		{"çel", 0, []string{"émile"}},
		{"émile çelik", 0, []string{"émile"}},
		{"%", 0, nil},
		{"_", 0, []string{"under"}},
		{`\`, 0, nil},
		{"p%", 0, []string{"percent"}},
		{"p_", 0, []string{"under"}},
		{"p", 0, []string{"percent", "under"}},
		{"100%", 0, []string{"percent"}},
		{"100% back", 0, []string{"percent"}},
		{`back\s`, 0, []string{"percent"}},
		{"back%", 0, nil},
		{`%\`, 0, nil},
		{"zzz", 0, []string{"nameless"}},
		{" ", 0, []string{"nameless"}}, // an empty first name, then the space
		{"'; DROP TABLE users.profiles --", 0, nil},
	} {
		for _, order := range []usersv1.ProfileOrder{newestFirst, oldestFirst, byEmail} {
			var got []string
			for _, id := range s.list(t, &usersv1.ListProfilesRequest{Query: test.query, Status: test.status, Order: order, PageSize: 1}) {
				got = append(got, names[id])
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("query %q, status %v, %v: got %q, want %q", test.query, test.status, order, got, test.want)
			}
		}
	}
}

func TestListProfilesRefusesControlCharactersInTheQuery(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	for _, query := range []string{"\x00", "a\nb", "\x1b[31m", "\x7f", "\u0085"} {
		_, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{Query: query})
		wantError(t, fmt.Sprintf("query %q", query), err, connect.CodeInvalidArgument, "INVALID_ARGUMENT")
		if got := invalidFields(err); !slices.Equal(got, []string{"query"}) {
			t.Errorf("query %q: got violations of %q, want of query", query, got)
		}
	}
}

func TestListProfilesRefusesAPageTokenOfAnotherQuery(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	for i := range 3 {
		s.apply(t, account{email: fmt.Sprintf("a%d@example.com", i)})
	}

	lists := []*usersv1.ListProfilesRequest{
		{},
		{Query: "a"},
		{Query: "A"},
		{Status: active},
		{Query: "a", Status: active},
		{Order: oldestFirst},
		{Order: byEmail},
		{Order: byEmail, Query: "a"},
	}
	for _, from := range lists {
		from.PageSize = 1
		res, err := s.profiles.ListProfiles(t.Context(), from)
		if err != nil || res.GetNextPageToken() == "" {
			t.Fatalf("%v: got %v, %v, want a token", from, res, err)
		}
		for _, to := range lists {
			_, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{
				PageToken: res.GetNextPageToken(), Query: to.GetQuery(), Status: to.GetStatus(), Order: to.GetOrder(),
			})
			if from == to {
				if err != nil {
					t.Errorf("a token of %v given back: %v", from, err)
				}
				continue
			}
			wantError(t, fmt.Sprintf("a token of {%v} for {%v}", from, to), err, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
		}
	}

	res, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{PageToken: res.GetNextPageToken(), Order: newestFirst, PageSize: 50}); err != nil {
		t.Errorf("a token of the default order for the same order by name, with another page_size: %v", err)
	}
}

func TestListProfilesRefusesADamagedPageToken(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	for range 2 {
		s.apply(t, account{})
	}

	for _, order := range []usersv1.ProfileOrder{newestFirst, byEmail} {
		res, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{Order: order, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		whole := res.GetNextPageToken()
		damaged := []string{"x", "AAAA", "?", strings.Repeat("A", 64), strings.Repeat("A", 1024), whole + "=", whole + "A", whole + "AAAA", whole + "\n", "\n" + whole}
		for i := range len(whole) {
			damaged = append(damaged, whole[:i]+whole[i+1:])
			for _, other := range []byte("AB_-z9+") {
				if other != whole[i] {
					damaged = append(damaged, whole[:i]+string(other)+whole[i+1:])
				}
			}
		}
		for _, token := range damaged {
			_, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{Order: order, PageToken: token})
			wantError(t, fmt.Sprintf("%v with token %q", order, token), err, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
			if got := invalidFields(err); !slices.Equal(got, []string{"page_token"}) {
				t.Errorf("token %q: got violations of %q, want of page_token", token, got)
			}
		}
	}
}

func TestAPageTokenOfTheLongestEmailIsAccepted(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	long := strings.Repeat("a", 242) + "@example.com"
	want := []string{s.apply(t, account{email: long}), s.apply(t, account{email: long}), s.apply(t, account{email: long})}

	if got := s.list(t, &usersv1.ListProfilesRequest{Order: byEmail, PageSize: 1}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Whatever is created and deleted while the pages are read, each profile that exists
// throughout is on exactly one of them.
func TestWalkingThePagesIsStableWhileProfilesComeAndGo(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	anyAccount := func() account {
		return account{
			email:      fmt.Sprintf("%c%d@example.com", 'a'+rand.IntN(26), rand.IntN(1000)),
			firstName:  "Walker",
			createTime: begin.Add(time.Duration(rand.IntN(20)) * time.Microsecond),
		}
	}
	throughout := map[string]bool{}
	for range 60 {
		throughout[s.apply(t, anyAccount())] = true
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	for range 2 {
		churn.Go(func() {
			var passing []string
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := newID(t)
				if _, err := s.relay.ApplyAccount(t.Context(), present(id, 1, anyAccount())); err != nil {
					t.Errorf("make a profile: %v", err)
				}
				if passing = append(passing, id); len(passing) < 20 {
					continue
				}
				i := rand.IntN(len(passing))
				if _, err := s.relay.ApplyAccount(t.Context(), deleted(passing[i], 2)); err != nil {
					t.Errorf("delete a profile: %v", err)
				}
				passing = slices.Delete(passing, i, i+1)
			}
		})
	}
	defer churn.Wait()
	defer close(stop)

	for _, order := range []usersv1.ProfileOrder{newestFirst, oldestFirst, byEmail} {
		for _, query := range slices.Repeat([]string{"", "w", "walker"}, 4) {
			met := map[string]int{}
			for _, id := range s.list(t, &usersv1.ListProfilesRequest{Order: order, Query: query, PageSize: 1 + rand.Int32N(9)}) {
				if met[id]++; met[id] > 1 {
					t.Errorf("%v, query %q: %s came %d times", order, query, id, met[id])
				}
			}
			for id := range throughout {
				if met[id] == 0 {
					t.Errorf("%v, query %q: %s was there throughout and is missing", order, query, id)
				}
			}
		}
	}
}

// pages walks the pages of a list.
func (s *system) pages(t testing.TB, req *usersv1.ListProfilesRequest) func(yield func([]*usersv1.Profile) bool) {
	t.Helper()
	return func(yield func([]*usersv1.Profile) bool) {
		page := &usersv1.ListProfilesRequest{PageSize: req.GetPageSize(), Query: req.GetQuery(), Status: req.GetStatus(), Order: req.GetOrder()}
		for {
			res, err := s.profiles.ListProfiles(t.Context(), page)
			if err != nil {
				t.Fatalf("list {%v}: %v", page, err)
			}
			if !yield(res.GetProfiles()) || res.GetNextPageToken() == "" {
				return
			}
			if page.GetPageToken() == res.GetNextPageToken() {
				t.Fatalf("list {%v}: the next page begins where this one does", page)
			}
			page.PageToken = res.GetNextPageToken()
		}
	}
}

// list returns the ids on all pages of a list.
func (s *system) list(t testing.TB, req *usersv1.ListProfilesRequest) []string {
	t.Helper()
	var ids []string
	for page := range s.pages(t, req) {
		for _, p := range page {
			ids = append(ids, p.GetId())
		}
	}
	return ids
}
