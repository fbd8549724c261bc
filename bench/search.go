package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	usersv1 "gatehouse/gen/users/v1"
)

// searches are the times of pages of ListProfiles, which are those of ListUsers without
// the accounts.
type searches struct {
	profiles   int
	pages      []searchPage
	unfiltered map[usersv1.ProfileOrder][]time.Duration
}

type searchPage struct {
	request *usersv1.ListProfilesRequest
	depth   int
	times   []time.Duration
}

// searchQueries range from every fifth profile to none. One person in a hundred is
// called Martin.
var (
	searchQueries = []string{"", "m", "mar", "martin", "martin m", "lovelace1", "user1", "user123", "nobody"}
	searchDepths  = []int{1, 2, 20}
	searchOrders  = []usersv1.ProfileOrder{
		usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST, usersv1.ProfileOrder_PROFILE_ORDER_OLDEST_FIRST, usersv1.ProfileOrder_PROFILE_ORDER_EMAIL,
	}
	searchStatuses = []usersv1.ProfileStatus{usersv1.ProfileStatus_PROFILE_STATUS_UNSPECIFIED, usersv1.ProfileStatus_PROFILE_STATUS_DISABLED}
)

// searchCalls is how often each page is read.
const searchCalls = 100

// Emails begin with first names, or are numbered in the order of time.
const insertSearched = `
	INSERT INTO users.profiles (id, first_name, last_name, create_time, email, status, account_version)
	SELECT gen_random_uuid(), first, last, '2020-01-01'::timestamptz + n * interval '1 minute',
		CASE WHEN n %% 3 = 0 THEN 'user' ELSE lower(first) END || n || '@example.com', CASE WHEN n %% 19 = 0 THEN 'disabled' ELSE 'active' END, 1
	FROM (SELECT n,
		CASE WHEN n %% 100 = 1 THEN 'Martin' ELSE substr('BCDFGHJKLMNPRSTVWZ', 1 + (n * 7919 %% 18)::int, 1) || substr('aeiouy', 1 + (n * 31 %% 6)::int, 1)
			|| (ARRAY['rta', 'lin', 'nette', 'x', 'rs', 'dolf'])[1 + n * 17 %% 6] || chr(97 + (n * 13 %% 26)::int) END AS first,
		CASE WHEN n %% 20 = 0 THEN 'Lovelace' || n * 6101 %% 50000 ELSE initcap(substr(md5(n::text), 1, 7)) END AS last
		FROM generate_series(1::bigint, %d) AS n) AS people`

// measureSearch reads the pages in turn with unfiltered ones.
func (r *results) measureSearch(ctx context.Context, h *stack, o options, progress io.Writer) error {
	m := &r.searches
	m.profiles, m.unfiltered = o.searched, map[usersv1.ProfileOrder][]time.Duration{}
	fmt.Fprintln(progress, "search: inserting", o.searched, "profiles")
	for _, statement := range []string{fmt.Sprintf(insertSearched, o.searched), "VACUUM ANALYZE users.profiles"} {
		if err := execute(ctx, h.database.URL(databaseName), statement); err != nil {
			return fmt.Errorf("insert profiles: %w", err)
		}
	}
	key, err := hex.DecodeString(h.setting("GATEHOUSE_INTERNAL_KEY"))
	if err != nil {
		return err
	}
	client, token := usersv1.NewProfileServiceClient(bareClient(h.setting("USERS_URL"))), &internalToken{callee: "users", master: key}
	list := func(request *usersv1.ListProfilesRequest) (string, time.Duration, error) {
		began := time.Now()
		response, err := client.ListProfiles(token.identify(ctx), request)
		return response.GetNextPageToken(), time.Since(began), err
	}
	for _, query := range searchQueries {
		fmt.Fprintf(progress, "search: %q\n", query)
		for _, status := range searchStatuses {
			for _, order := range searchOrders {
				request := &usersv1.ListProfilesRequest{Query: query, Status: status, Order: order}
				if err := m.measure(request, list); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measure reads the pages of one list.
func (m *searches) measure(request *usersv1.ListProfilesRequest, list func(*usersv1.ListProfilesRequest) (string, time.Duration, error)) error {
	for depth := 1; depth <= slices.Max(searchDepths); depth++ {
		next, _, err := list(request)
		if err != nil {
			return err
		}
		if slices.Contains(searchDepths, depth) {
			page := searchPage{depth: depth, request: &usersv1.ListProfilesRequest{Query: request.GetQuery(), Status: request.GetStatus(), Order: request.GetOrder()}}
			for range searchCalls {
				_, without, err := list(&usersv1.ListProfilesRequest{Order: request.GetOrder()})
				if err != nil {
					return err
				}
				_, took, err := list(request)
				if err != nil {
					return err
				}
				page.times = append(page.times, took)
				m.unfiltered[request.GetOrder()] = append(m.unfiltered[request.GetOrder()], without)
			}
			slices.Sort(page.times)
			m.pages = append(m.pages, page)
		}
		if request.PageToken = next; next == "" {
			break
		}
	}
	return nil
}

// setting returns a setting of a gateway in its own process.
func (h *stack) setting(name string) string {
	return settingOf(slices.Concat(h.environment["bff"], h.peers), name)
}

func (m *searches) print(t *table) {
	if len(m.pages) == 0 {
		return
	}
	t.row(fmt.Sprintf("Pages of %d profiles, ms: p50, p99", m.profiles), "page 1", "page 2", "page 20")
	slowest, factor := 0.0, 0.0
	unfiltered := map[usersv1.ProfileOrder]float64{}
	for _, order := range searchOrders {
		times := slices.Sorted(slices.Values(m.unfiltered[order]))
		unfiltered[order] = percentileOf(times, 99)
		t.row("  unfiltered, "+orderName(order), fmt.Sprintf("%.2f, %.2f", percentileOf(times, 50), unfiltered[order]))
	}
	for i := 0; i < len(m.pages); {
		first := m.pages[i].request
		cells := []string{fmt.Sprintf("  %q%s, %s", first.GetQuery(), map[bool]string{true: ", disabled"}[first.GetStatus() != 0], orderName(first.GetOrder()))}
		for begin := i; i < len(m.pages) && (i == begin || m.pages[i].depth > 1); i++ {
			p99 := percentileOf(m.pages[i].times, 99)
			slowest, factor = max(slowest, p99), max(factor, p99/unfiltered[first.GetOrder()])
			cells = append(cells, fmt.Sprintf("%.2f, %.2f", percentileOf(m.pages[i].times, 50), p99))
		}
		t.row(cells...)
	}
	t.judged("≤ 3", factor <= 3, "  the highest p99 ÷ that of the unfiltered page", fmt.Sprintf("%.2f", factor))
	t.judged("≤ 30", slowest <= 30, "  the highest p99, ms", fmt.Sprintf("%.1f", slowest))
}

func orderName(order usersv1.ProfileOrder) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(order.String(), "PROFILE_ORDER_"), "_", " "))
}
