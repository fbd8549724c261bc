package users

import (
	"cmp"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/page"
)

const defaultPageSize = 25

// [listing.statement] composes the statement of a page from these.
const (
	listedColumns = profileColumns + `, ` + foldedEmail + ` AS folded_email`

	selectProfiles = `
	SELECT ` + listedColumns + `
	FROM users.profiles
	WHERE true`

	hasStatus = `
		AND status = @status`
)

// allStatuses are the values of the column status.
const allStatuses = "active,disabled"

// sortOrder is an order of a list. An index contains the expression and the id.
type sortOrder struct {
	column     string // the name of the expression in a result
	expression string
	direction  string
	compare    string // how a row after a position compares with it
	position   string // the argument that the expression is compared with
}

var (
	newestFirst = sortOrder{"create_time", "create_time", " DESC", "<", "@after_create_time"}
	oldestFirst = sortOrder{"create_time", "create_time", "", ">", "@after_create_time"}
	byEmail     = sortOrder{"folded_email", foldedEmail, "", ">", "@after_email"}
)

// past is the condition for the rows after a page; empty for the first page.
func (o sortOrder) past(expression string, hasAfter bool) string {
	if !hasAfter {
		return ""
	}
	return fmt.Sprintf(`
		AND (%s, id) %s (%s, @after_id)`, expression, o.compare, o.position)
}

// first sorts and limits a selection.
func (o sortOrder) first(expression string) string {
	return fmt.Sprintf(`
	ORDER BY %[1]s%[2]s, id%[2]s
	LIMIT @limit`, expression, o.direction)
}

func (l listing) sortOrder() sortOrder {
	switch l.order {
	case usersv1.ProfileOrder_PROFILE_ORDER_OLDEST_FIRST:
		return oldestFirst
	case usersv1.ProfileOrder_PROFILE_ORDER_EMAIL:
		return byEmail
	default:
		return newestFirst
	}
}

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
	var after *position
	if req.GetPageToken() != "" {
		found, ok := list.parse(req.GetPageToken())
		if !ok {
			return nil, page.ErrToken
		}
		after = &found
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}

	args := pgx.NamedArgs{
		"status":   list.status,
		"statuses": cmp.Or(list.status, allStatuses),
		"query":    list.query,
		"limit":    size + 1, // one more shows that another page follows
	}
	if after != nil {
		args["after_id"], args["after_create_time"], args["after_email"] = after.id, after.createTime, after.foldedEmail
	}
	found, err := s.selectPage(ctx, list, after, args)
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

// selectPage runs the statement of a page, in one round trip.
func (s *Service) selectPage(ctx context.Context, list listing, after *position, args pgx.NamedArgs) ([]listedProfile, error) {
	if list.query != "" {
		return s.search(ctx, list.searchStatement(after), args)
	}
	rows, err := s.db.Query(ctx, list.statement(after), args)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[listedProfile])
}

// listing is the query of all pages of a list.
type listing struct {
	query  string
	status string
	order  usersv1.ProfileOrder
}

// statement returns the statement of the first page, or of the one after a position,
// of a list without a query.
func (l listing) statement(after *position) string {
	order, profiles := l.sortOrder(), selectProfiles
	if l.status != "" {
		profiles += hasStatus
	}
	return profiles + order.past(order.expression, after != nil) + order.first(order.column)
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
