package users_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

var (
	orders   = []usersv1.ProfileOrder{newestFirst, oldestFirst, byEmail}
	statuses = []usersv1.ProfileStatus{0, active, disabled}
)

// replanned counts the searches that Postgres doesn't keep a plan of after several runs.
const replanned = `
	SELECT count(*) FROM pg_prepared_statements
	WHERE statement LIKE '%found AS%' AND custom_plans + generic_plans > 6 AND generic_plans = 0`

// insertSkewed misleads an estimate: emails begin with first names, one person in a
// hundred is called Martin, a twentieth is disabled, and the oldest accounts are
// numbered.
const insertSkewed = `
	INSERT INTO users.profiles (id, first_name, last_name, create_time, email, status, account_version)
	SELECT gen_random_uuid(), first, last, '2026-01-01'::timestamptz + n * interval '1 minute',
		CASE WHEN n < 30000 THEN 'user' ELSE lower(first) END || n || '@example.com',
		CASE WHEN n % 19 = 0 THEN 'disabled' ELSE 'active' END, 1
	FROM (SELECT n,
		CASE WHEN n % 100 = 0 THEN 'Martin' ELSE substr('BCDFGHJKLMNPRSTVWZ', 1 + n * 7919 % 18, 1) || substr('aeiouy', 1 + n * 31 % 6, 1)
			|| (ARRAY['rta', 'lin', 'nette', 'x', 'rs', 'dolf'])[1 + n * 17 % 6] || n * 13 % 97 END AS first,
		CASE WHEN n % 25000 < 3000 THEN 'Customer' ELSE 'Lovelace' || n * 6101 % 5000 END AS last
		FROM generate_series(1, 60000) AS n) AS people`

func TestSearchesReadFewRowsOfSkewedData(t *testing.T) {
	t.Parallel()
	s := startPlanned(t)
	conn := pgtest.Connect(t, s.database.Users)
	// A connection keeps the plans that it made of a table without rows.
	empty := statistics{name: "while there are no profiles"}
	for _, state := range append([]statistics{empty}, allStatistics(insertSkewed)...) {
		s.exec(t, state.statements...)
		s.pool.Reset()
		for _, query := range []string{"m", "ma", "mar", "mart", "marti", "martin", "Martin L", "martin1", "customer", "cust", "lovelace1", "user", "user1", "user12", "user123", "z", "nobody"} {
			for _, order := range orders {
				for _, status := range []usersv1.ProfileStatus{0, disabled} {
					s.readsLittle(t, conn, state, &usersv1.ListProfilesRequest{Query: query, Order: order, Status: status})
				}
			}
		}
		var count int
		if err := s.pool.QueryRow(t.Context(), replanned).Scan(&count); err != nil || count != 0 {
			t.Errorf("%s: Postgres plans %d statements each time they run (%v), want 0", state.name, count, err)
		}
	}
}

// readsLittle explains the first two of a list's pages, and the seventh or the last.
func (p planned) readsLittle(t *testing.T, conn *pgx.Conn, state statistics, req *usersv1.ListProfilesRequest) {
	t.Helper()
	most := 1500
	if state.vacuumed {
		most = 1000
	}
	for depth := range 7 {
		p.sent.Forget()
		res, err := p.profiles.ListProfiles(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %v: %v", state.name, req, err)
		}
		if depth < 2 || res.GetNextPageToken() == "" || depth == 6 {
			for _, plans := range p.sent.Explain(t, conn) {
				for _, plan := range plans {
					if plan.Reads("Seq Scan") || plan.Reads("Bitmap Heap Scan") || plan.Blocks() > most || plan.Rows() > 1500 {
						t.Errorf("%s: page %d of {%v} reads %d blocks and %d rows by\n%s", state.name, depth, req, plan.Blocks(), plan.Rows(), plan)
					}
				}
			}
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			return
		}
	}
}

// A page reads its own rows, neither those of the pages before it, nor those between it
// and the emails that match: the first 200 profiles match by name only, and 7,000 don't
// match. The emails are long, so that an index holds few in a block.
func TestALaterPageBeginsAtItsPosition(t *testing.T) {
	t.Parallel()
	s := startPlanned(t)
	s.exec(t, `
		INSERT INTO users.profiles (id, last_name, create_time, email, status, account_version)
		SELECT gen_random_uuid(), CASE WHEN n <= 200 OR n > 7200 THEN 'Userine' ELSE 'Quine' END, '2026-01-01'::timestamptz + n * interval '1 minute',
			CASE WHEN n <= 200 THEN 'a' WHEN n > 7200 THEN 'user' ELSE 'b' END || n || repeat(md5(n::text), 10), 'active', 1
		FROM generate_series(1, 14200) AS n`,
		"VACUUM ANALYZE users.profiles")
	conn := pgtest.Connect(t, s.database.Users)
	for _, query := range []string{"", "u", "user"} {
		for _, order := range orders {
			req := &usersv1.ListProfilesRequest{Query: query, Order: order, PageSize: 100}
			most := map[int]int{} // blocks that a plan of a page reads
			for page := 1; page <= 60; page++ {
				s.sent.Forget()
				res, err := s.profiles.ListProfiles(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if page == 2 || page == 10 || page == 60 {
					for _, plans := range s.sent.Explain(t, conn) {
						for _, plan := range plans {
							most[page] = max(most[page], plan.Blocks())
						}
					}
				}
				req.PageToken = res.GetNextPageToken()
			}
			if max(most[2], most[60]) > most[10]+100 || most[10] == 0 {
				t.Errorf("query %q, %v: blocks by page: %v, want about as many for each", query, order, most)
			}
		}
	}
}

// person is a profile as a search sees it.
type person struct {
	id                     uuid.UUID
	first, last, email     string
	created                time.Time
	status                 usersv1.ProfileStatus
	foldedName, foldedLast string
	foldedEmail            string
}

// The pages of every search are the sorted list of all that match.
func TestSearchesFindWhatASortedListHolds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := start(t, users.Config{DB: pgtest.Pool(t, db.Users)})
	people := randomPeople(1200)
	_, err := pgtest.Connect(t, db.Owner).CopyFrom(t.Context(), pgx.Identifier{"users", "profiles"},
		[]string{"id", "first_name", "last_name", "create_time", "email", "status", "account_version"},
		pgx.CopyFromSlice(len(people), func(i int) ([]any, error) {
			p := people[i]
			status := map[usersv1.ProfileStatus]string{active: "active", disabled: "disabled"}[p.status]
			return []any{p.id, p.first, p.last, p.created, p.email, status, 1}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}

	queries := []string{"a", "m", " ", "é", "王", "ma", "mar", "mart", "marti", "MARTIN", "martin ", "martin m", "martinmartin", "%", "_", `\`, "nobody", "\U0010FFFF"}
	for range 30 {
		p := people[rand.IntN(len(people))]
		text := []rune([]string{p.email, p.first + " " + p.last, p.last}[rand.IntN(3)])
		if query := string(text[:rand.IntN(len(text)+1)]); query != "" {
			queries = append(queries, strings.ToUpper(query))
		}
	}
	for _, query := range queries {
		for _, order := range orders {
			for _, status := range statuses {
				var want []string
				for _, p := range sorted(people, order) {
					if (status == 0 || p.status == status) && p.matches(query) {
						want = append(want, p.id.String())
					}
				}
				req := &usersv1.ListProfilesRequest{Query: query, Order: order, Status: status, PageSize: 1 + rand.Int32N(100)}
				if len(want) > 100 {
					req.PageSize = 20 + rand.Int32N(80)
				}
				if got := s.list(t, req); !slices.Equal(got, want) {
					t.Errorf("{%v}: got %d of %d profiles, or another order:\n%q\nwant\n%q", req, len(got), len(want), got, want)
				}
			}
		}
	}
}

// A token that an earlier version made names the same place.
func TestPageTokensOfEarlierVersionsAreAccepted(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ids := []string{"01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"}
	for i, id := range ids {
		s.applied(t, present(id, 1, account{email: fmt.Sprintf("ada%d@example.com", i), firstName: "Ada", createTime: at.Add(time.Duration(i) * time.Hour)}))
	}
	for order, token := range map[usersv1.ProfileOrder]string{oldestFirst: "Tqrk6BoAnyrbVAWJvylpnAGQAAAAAHAAgAAAAAAAAAEABkdIRiBAAA",
		byEmail: "1YrMafqQ3gAAYU8D6MOY0AGQAAAAAHAAgAAAAAAAAAFhZGEwQGV4YW1wbGUuY29t",
	} {
		req := &usersv1.ListProfilesRequest{Query: "ada", Order: order, PageSize: 1}
		first, err := s.profiles.ListProfiles(t.Context(), req)
		if err != nil || first.GetNextPageToken() != token {
			t.Errorf("%v: got the token %q (%v), want %q", order, first.GetNextPageToken(), err, token)
		}
		req.PageToken = token
		next, err := s.profiles.ListProfiles(t.Context(), req)
		if err != nil || len(next.GetProfiles()) != 1 || next.GetProfiles()[0].GetId() != ids[1] {
			t.Errorf("%v: the next page is %v (%v), want %s", order, next, err, ids[1])
		}
	}
}

// randomPeople share times, emails, names and the beginnings of names. More of them are
// called Martin than a search sorts.
func randomPeople(count int) []person {
	parts := []string{"", "a", "ma", "mar", "martin", "é", "ß", "王", "小明", " ", "'", "%", "_", "x", "Ö", "lu", "dwig", "\U0010FFFF"}
	word := func() string {
		text := ""
		for range rand.IntN(4) {
			text += parts[rand.IntN(len(parts))]
		}
		return text
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var people []person
	for i := range count {
		p := person{id: uuid.New(), first: word(), last: word(), created: begin.Add(time.Duration(rand.IntN(count/3)) * time.Microsecond), status: active}
		if i%3 == 0 {
			p.first = "Martin"
		}
		if rand.IntN(4) == 0 {
			p.status = disabled
		}
		p.email = fmt.Sprintf("%s%d@example.com", strings.TrimSpace(p.first), rand.IntN(50))
		p.foldedName, p.foldedLast, p.foldedEmail = strings.ToLower(p.first+" "+p.last), strings.ToLower(p.last), asciiLower(p.email)
		people = append(people, p)
	}
	return people
}

func (p person) matches(query string) bool {
	folded := strings.ToLower(query)
	return strings.HasPrefix(p.foldedEmail, asciiLower(query)) || strings.HasPrefix(p.foldedName, folded) || strings.HasPrefix(p.foldedLast, folded)
}

func sorted(people []person, order usersv1.ProfileOrder) []person {
	return slices.SortedFunc(slices.Values(people), func(a, b person) int {
		byID := bytes.Compare(a.id[:], b.id[:])
		switch order {
		case newestFirst:
			return -cmp.Or(a.created.Compare(b.created), byID)
		case oldestFirst:
			return cmp.Or(a.created.Compare(b.created), byID)
		default:
			return cmp.Or(strings.Compare(a.foldedEmail, b.foldedEmail), byID)
		}
	})
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
