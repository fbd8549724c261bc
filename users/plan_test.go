package users_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

// Among 50,000 profiles, no call may read a table from end to end, nor more than
// 700 blocks of anything: for a page of 25, that is a dozen for each profile, and a
// few hundred matches of a query that are sorted.
func TestEveryStatementIsServedByAnIndex(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := pgxpool.ParseConfig(db.Users)
	if err != nil {
		t.Fatal(err)
	}
	statements := &pgtest.Recorder{}
	config.ConnConfig.Tracer = statements
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s := start(t, users.Config{DB: pool})
	populate(t, db)
	id := s.apply(t, account{email: "zoë@example.com", firstName: "Zoë", lastName: "Quine", status: disabled})
	conn := pgtest.Connect(t, db.Users)

	var calls []call
	for _, order := range []usersv1.ProfileOrder{newestFirst, oldestFirst, byEmail} {
		for _, status := range []usersv1.ProfileStatus{0, active, disabled} {
			for _, query := range []string{"", "p", "person4", "person49999@example.com", "zoë", "quine", "ada", "ada lovelace4000", "nobody"} {
				calls = append(calls, call{fmt.Sprintf("list %v %v %q", order, status, query), func() error {
					req := &usersv1.ListProfilesRequest{Order: order, Status: status, Query: query}
					res, err := s.profiles.ListProfiles(t.Context(), req)
					if req.PageToken = res.GetNextPageToken(); err == nil && req.GetPageToken() != "" {
						_, err = s.profiles.ListProfiles(t.Context(), req)
					}
					return err
				}})
			}
		}
	}
	calls = append(calls, call{"get", func() error {
		_, err := s.profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: id})
		return err
	}}, call{"update", func() error {
		_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id}, "locale"))
		return err
	}}, call{"apply a present account", func() error {
		_, err := s.relay.ApplyAccount(t.Context(), present(id, 2, account{}))
		return err
	}}, call{"apply a deleted account", func() error {
		_, err := s.relay.ApplyAccount(t.Context(), deleted(id, 3))
		return err
	}})
	for _, call := range calls {
		statements.Forget()
		if err := call.make(); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
		if len(statements.All()) == 0 {
			t.Errorf("%s: no statement was seen", call.name)
		}
		for _, statement := range statements.All() {
			for _, plan := range pgtest.Explain(t, conn, statement) {
				if plan.Reads("Seq Scan") || plan.Blocks() > 700 {
					t.Errorf("%s reads %d blocks by\n%s\n%s", call.name, plan.Blocks(), statement.SQL, plan)
				}
			}
		}
	}
}

type call struct {
	name string
	make func() error
}

// populate makes 50,000 profiles and as many tombstones, one profile in nine
// disabled.
func populate(t testing.TB, db pgtest.Database) {
	t.Helper()
	for _, statement := range []string{
		`INSERT INTO users.profiles (id, first_name, last_name, create_time, email, status, account_version)
		SELECT gen_random_uuid(), (ARRAY['Ada', 'Émile', 'Grace', 'Linus'])[1 + n % 4], 'Lovelace' || n * 7919 % 50000,
			'2026-01-01'::timestamptz + n * interval '1 minute', 'person' || n * 6101 % 50000 || '@example.com',
			CASE WHEN n % 9 = 0 THEN 'disabled' ELSE 'active' END, 1
		FROM generate_series(1, 50000) AS n`,
		`INSERT INTO users.tombstones (id, account_version)
		SELECT gen_random_uuid(), 1 FROM generate_series(1, 50000)`,
		`VACUUM ANALYZE users.profiles, users.tombstones`,
	} {
		if _, err := pgtest.Connect(t, db.Owner).Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
