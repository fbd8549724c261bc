package users

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/page"
)

const defaultPageSize = 25

// The statement of a page is put together from these by [listing.statement].
const (
	selectProfiles = `
	SELECT ` + profileColumns + `, lower(email COLLATE "C") AS folded_email
	FROM users.profiles
	WHERE true`

	hasStatus = `
		AND status = @status`

	// Ways to match a query. The collations are named for their case folding,
	// which for names must reach beyond ASCII whatever the database's own
	// collation is. What begins the first name begins the whole name too.
	emailMatches = `
		AND lower(email COLLATE "C") LIKE lower(@query COLLATE "C") || '%'`
	nameMatches = `
		AND lower((first_name || ' ' || last_name) COLLATE "und-x-icu") LIKE lower(@query COLLATE "und-x-icu") || '%'`
	lastNameMatches = `
		AND lower(last_name COLLATE "und-x-icu") LIKE lower(@query COLLATE "und-x-icu") || '%'`

	// What comes after a page in each order, and the orders.
	pastNewestFirst = `
		AND (create_time, id) < (@after_create_time, @after_id)`
	pastOldestFirst = `
		AND (create_time, id) > (@after_create_time, @after_id)`
	pastByEmail = `
		AND (lower(email COLLATE "C"), id) > (@after_email, @after_id)`
	newestFirst = `
	ORDER BY create_time DESC, id DESC
	LIMIT @limit`
	oldestFirst = `
	ORDER BY create_time, id
	LIMIT @limit`
	byEmail = `
	ORDER BY folded_email, id
	LIMIT @limit`
)

// likeLiteral makes LIKE take text as it is.
var likeLiteral = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// ListProfiles returns one page of profiles. Walking the pages meets every
// profile that is there throughout exactly once, whatever else is made or
// deleted meanwhile; by email, unless its email changes. It returns
// PAGE_TOKEN_INVALID.
func (s *Service) ListProfiles(ctx context.Context, req *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
	if err := plain("query", req.GetQuery()); err != nil {
		return nil, err
	}
	list := listing{query: req.GetQuery(), status: statusColumn(req.GetStatus()), order: req.GetOrder()}
	if list.order == usersv1.ProfileOrder_PROFILE_ORDER_UNSPECIFIED {
		list.order = usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST
	}
	var after position
	if req.GetPageToken() != "" {
		var ok bool
		if after, ok = list.parse(req.GetPageToken()); !ok {
			return nil, page.ErrToken
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}

	args := []any{pgx.NamedArgs{
		"status":            list.status,
		"query":             likeLiteral.Replace(list.query),
		"after_id":          after.id,
		"after_create_time": after.createTime,
		"after_email":       after.foldedEmail,
		"limit":             size + 1, // one more shows that another page follows
	}}
	if list.query != "" {
		// Not as a prepared statement, which would come to have one plan for all
		// queries: to use a prefix's index, Postgres must know the prefix.
		args = append([]any{pgx.QueryExecModeCacheDescribe}, args...)
	}
	rows, err := s.db.Query(ctx, list.statement(req.GetPageToken() == ""), args...)
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[listedProfile])
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}

	res := &usersv1.ListProfilesResponse{}
	if len(found) > size {
		found = found[:size]
		res.NextPageToken = list.token(found[size-1].position())
	}
	for _, p := range found {
		res.Profiles = append(res.Profiles, p.message())
	}
	return res, nil
}

// listing is what the pages of one list have in common.
type listing struct {
	query  string
	status string
	order  usersv1.ProfileOrder
}

// statement returns the statement of the first page, or of one after a position.
//
// With a query it takes the first profiles of each way to match, and of these
// the first: then Postgres weighs each way's index against the order's. In one
// condition with OR it couldn't, and would, for the emails of some prefix by
// email, walk past all others.
func (l listing) statement(firstPage bool) string {
	past, order := pastNewestFirst, newestFirst
	switch l.order {
	case usersv1.ProfileOrder_PROFILE_ORDER_OLDEST_FIRST:
		past, order = pastOldestFirst, oldestFirst
	case usersv1.ProfileOrder_PROFILE_ORDER_EMAIL:
		past, order = pastByEmail, byEmail
	}
	profiles := selectProfiles
	if l.status != "" {
		profiles += hasStatus
	}
	if !firstPage {
		profiles += past
	}
	if l.query == "" {
		return profiles + order
	}
	return "(" + profiles + emailMatches + order + ") UNION " +
		"(" + profiles + nameMatches + order + ") UNION " +
		"(" + profiles + lastNameMatches + order + ")" + order
}

// listedProfile is a profile with all that an order may go by.
type listedProfile struct {
	profile
	FoldedEmail string
}

func (p listedProfile) position() position {
	return position{id: p.ID, createTime: p.CreateTime, foldedEmail: p.FoldedEmail}
}

// statusColumn returns a status as the column status has it; "" for none.
func statusColumn(status usersv1.ProfileStatus) string {
	switch status {
	case usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE:
		return "active"
	case usersv1.ProfileStatus_PROFILE_STATUS_DISABLED:
		return "disabled"
	default:
		return ""
	}
}
