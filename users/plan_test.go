package users_test

import (
	"fmt"
	"testing"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
)

// Among 50,000 profiles, no call may read a table from end to end, nor more than
// 700 blocks of anything: for a page of 25, that is a dozen for each profile, and a
// few hundred matches of a query that are sorted.
func TestEveryStatementIsServedByAnIndex(t *testing.T) {
	t.Parallel()
	s := startPlanned(t)
	s.exec(t, "INSERT INTO users.tombstones (id, account_version) SELECT gen_random_uuid(), 1 FROM generate_series(1, 50000)", "VACUUM ANALYZE users.tombstones")
	conn := pgtest.Connect(t, s.database.Users)
	for _, state := range allStatistics(insertPersons) {
		s.exec(t, state.statements...)
		id := s.apply(t, account{email: "zoë@example.com", firstName: "Zoë", lastName: "Quine", status: disabled})
		for _, call := range append(s.listCalls(t), s.profileCalls(t, id)...) {
			s.sent.Forget()
			if err := call.make(); err != nil {
				t.Fatalf("%s: %s: %v", state.name, call.name, err)
			}
			explained := s.sent.Explain(t, conn)
			if len(explained) == 0 {
				t.Errorf("%s: %s: no statement was seen", state.name, call.name)
			}
			for sql, plans := range explained {
				for _, plan := range plans {
					if plan.Reads("Seq Scan") || plan.Blocks() > 700 {
						t.Errorf("%s: %s reads %d blocks by\n%s\n%s", state.name, call.name, plan.Blocks(), sql, plan)
					}
				}
			}
		}
	}
}

// listCalls read the first two pages of lists.
func (p planned) listCalls(t *testing.T) (calls []call) {
	for _, order := range orders {
		for _, status := range statuses {
			for _, query := range []string{"", "p", "person4", "person49999@example.com", "zoë", "quine", "ada", "ada lovelace4000", "nobody"} {
				calls = append(calls, call{fmt.Sprintf("list %v %v %q", order, status, query), func() error {
					req := &usersv1.ListProfilesRequest{Order: order, Status: status, Query: query}
					res, err := p.profiles.ListProfiles(t.Context(), req)
					if req.PageToken = res.GetNextPageToken(); err == nil && req.GetPageToken() != "" {
						_, err = p.profiles.ListProfiles(t.Context(), req)
					}
					return err
				}})
			}
		}
	}
	return calls
}

// profileCalls are of a profile, which the last one deletes.
func (p planned) profileCalls(t *testing.T, id string) []call {
	return []call{{"get", func() error {
		_, err := p.profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: id})
		return err
	}}, {"update", func() error {
		_, err := p.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id}, "locale"))
		return err
	}}, {"apply a present account", func() error {
		_, err := p.relay.ApplyAccount(t.Context(), present(id, 2, account{}))
		return err
	}}, {"apply a deleted account", func() error {
		_, err := p.relay.ApplyAccount(t.Context(), deleted(id, 3))
		return err
	}}}
}

type call struct {
	name string
	make func() error
}

// insertPersons makes 50,000 profiles, one in nine disabled.
const insertPersons = `
	INSERT INTO users.profiles (id, first_name, last_name, create_time, email, status, account_version)
	SELECT gen_random_uuid(), (ARRAY['Ada', 'Émile', 'Grace', 'Linus'])[1 + n % 4], 'Lovelace' || n * 7919 % 50000,
		'2026-01-01'::timestamptz + n * interval '1 minute', 'person' || n * 6101 % 50000 || '@example.com',
		CASE WHEN n % 9 = 0 THEN 'disabled' ELSE 'active' END, 1
	FROM generate_series(1, 50000) AS n`
