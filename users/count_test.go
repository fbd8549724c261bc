package users_test

import (
	"testing"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

const (
	exact    = usersv1.CountPrecision_COUNT_PRECISION_EXACT
	estimate = usersv1.CountPrecision_COUNT_PRECISION_ESTIMATE
	more     = usersv1.CountPrecision_COUNT_PRECISION_MORE
)

func TestCountProfilesIsExactUntilAThousandAndThenAnEstimate(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	s := start(t, users.Config{DB: pgtest.Pool(t, database.Users)})
	db := pgtest.Pool(t, database.Owner)
	insert := func(from, to int, status string) {
		t.Helper()
		const statement = `INSERT INTO users.profiles (id, create_time, email, status, account_version)
			SELECT gen_random_uuid(), now(), n || '@example.com', $3, 1 FROM generate_series($1::int, $2::int) AS n`
		if _, err := db.Exec(t.Context(), statement, from, to, status); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, all int32, precision usersv1.CountPrecision, disabledOnes int32, disabledPrecision usersv1.CountPrecision) {
		t.Helper()
		got, err := s.profiles.CountProfiles(t.Context(), &usersv1.CountProfilesRequest{})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if got.GetAll().GetValue() != all || got.GetAll().GetPrecision() != precision {
			t.Errorf("%s: got %v in all, want %d (%v)", when, got.GetAll(), all, precision)
		}
		if got.GetDisabled().GetValue() != disabledOnes || got.GetDisabled().GetPrecision() != disabledPrecision {
			t.Errorf("%s: got %v disabled, want %d (%v)", when, got.GetDisabled(), disabledOnes, disabledPrecision)
		}
	}
	check("without a profile", 0, exact, 0, exact)
	insert(1, 998, "active")
	insert(999, 1000, "disabled")
	check("with a thousand", 1000, exact, 2, exact)
	insert(1001, 4000, "disabled")
	if _, err := db.Exec(t.Context(), "UPDATE pg_catalog.pg_class SET reltuples = -1 WHERE oid = 'users.profiles'::regclass"); err != nil {
		t.Fatal(err)
	}
	check("in a table that was never analyzed", 1000, more, 1000, more)
	if _, err := db.Exec(t.Context(), "ANALYZE users.profiles"); err != nil {
		t.Fatal(err)
	}
	check("after ANALYZE", 4000, estimate, 1000, more)
}
