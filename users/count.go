package users

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	usersv1 "gatehouse/gen/users/v1"
)

// countedExactly is how many profiles are counted one by one. A larger number is what
// Postgres estimates, so that counting costs the same for any number.
const countedExactly = 1000

// Each count reads an index and stops. The estimate is -1 in a table that was never
// analyzed.
const countProfiles = `
	SELECT
		(SELECT count(*) FROM (SELECT 1 FROM users.profiles ORDER BY create_time LIMIT @most) AS few)::int AS profiles,
		(SELECT count(*) FROM (SELECT 1 FROM users.profiles WHERE status = 'disabled' ORDER BY create_time LIMIT @most) AS few)::int AS disabled,
		(SELECT least(reltuples, 2000000000)::int FROM pg_catalog.pg_class WHERE oid = 'users.profiles'::regclass) AS estimate`

// CountProfiles implements usersv1.ProfileServiceHandler.
func (s *Service) CountProfiles(ctx context.Context, _ *usersv1.CountProfilesRequest) (*usersv1.CountProfilesResponse, error) {
	var all, disabled, estimate int32
	err := s.db.QueryRow(ctx, countProfiles, pgx.NamedArgs{"most": countedExactly + 1}).Scan(&all, &disabled, &estimate)
	if err != nil {
		return nil, fmt.Errorf("count the profiles: %w", err)
	}
	return &usersv1.CountProfilesResponse{All: countOf(all, estimate), Disabled: countOf(disabled, 0)}, nil
}

// countOf returns what is known about a number of which at most countedExactly+1 were
// counted.
func countOf(counted, estimate int32) *usersv1.Count {
	switch {
	case counted <= countedExactly:
		return &usersv1.Count{Value: counted, Precision: usersv1.CountPrecision_COUNT_PRECISION_EXACT}
	case estimate > countedExactly:
		return &usersv1.Count{Value: estimate, Precision: usersv1.CountPrecision_COUNT_PRECISION_ESTIMATE}
	}
	return &usersv1.Count{Value: countedExactly, Precision: usersv1.CountPrecision_COUNT_PRECISION_MORE}
}
