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

// [listing.statement] composes the statement of a page from these.
const (
	selectProfiles = `
	SELECT ` + profileColumns + `, lower(email COLLATE "C") AS folded_email
	FROM users.profiles
	WHERE true`

	hasStatus = `
		AND status = @status`

	// Conditions that match a query. The collations are explicit for their case
	// folding, which for names must cover more than ASCII whatever the database's
	// own collation is. A prefix of the first name is a prefix of the whole name.
	emailMatches = `
		AND lower(email COLLATE "C") LIKE lower(@query COLLATE "C") || '%'`
	nameMatches = `
		AND lower((first_name || ' ' || last_name) COLLATE "und-x-icu") LIKE lower(@query COLLATE "und-x-icu") || '%'`
	lastNameMatches = `
		AND lower(last_name COLLATE "und-x-icu") LIKE lower(@query COLLATE "und-x-icu") || '%'`

	// Conditions for the rows after a page, and the orders.
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

// likeLiteral escapes the wildcards of LIKE.
var likeLiteral = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// ListProfiles returns one page of profiles. The pages contain every profile that
// exists throughout exactly once, whatever is created or deleted meanwhile; in order
// of email, unless its email changes. Errors: PAGE_TOKEN_INVALID.
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
		// Not prepared, which would end in one generic plan for all queries: to use
		// an index for a prefix, Postgres must know the prefix.
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

// listing is the query of all pages of a list.
type listing struct {
	query  string
	status string
	order  usersv1.ProfileOrder
}

// statement returns the statement of the first page, or of one after a position.
//
// With a query it selects the first profiles of each condition, and of these the
// first: Postgres then compares each condition's index with the order's. With one
// OR condition it could not, and would scan all profiles for some prefixes.
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

// listedProfile is a profile with the columns of every order.
type listedProfile struct {
	profile
	FoldedEmail string
}

func (p listedProfile) position() position {
	return position{id: p.ID, createTime: p.CreateTime, foldedEmail: p.FoldedEmail}
}

// statusColumn returns the value of the column status; "" without one.
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
