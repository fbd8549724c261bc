package users

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// A search selects the profiles whose email, last name or whole name begins with the
// query, each through an index, and merges the first of each. A prefix of the first
// name is a prefix of the whole name.
//
// The indexes on a field's first characters (a bucket: of 2 or 4, of the email also of 6
// or 8), the status and the order contain the profiles of a bucket in the order of the
// list. A query that is no longer than a bucket merges the few buckets that begin with
// it. A longer query matches part of one bucket: up to maxCandidates matches are sorted;
// more are frequent in their bucket, and are filtered from it in order. Emails have
// longer buckets because those of numbered accounts begin alike, in the order of time.
//
// No plan depends on the values of the arguments, on which Postgres' statistics may be
// missing or misleading: each statement has one plan, which Postgres keeps. Nor do they
// depend on the statistics themselves: searchSettings exclude the plans that read all
// matches to sort them, which look cheap where few are expected.

// maxCandidates is how many matches of a field are sorted.
const maxCandidates = 250

// searchField is a field that queries match. The collations are explicit for their
// case folding, which for names must cover more than ASCII whatever the database's own
// collation is.
type searchField struct {
	name  string
	key   string // the folded value
	query string // the query, folded alike
	// The operators of the index of the keys.
	notBefore, below, ascending string
	levels                      []int // the lengths of its buckets
}

var (
	emailField = searchField{
		"email", foldedEmail, `lower(@query COLLATE "C")`, ">=", "<", "", []int{2, 4, 6, 8},
	}
	nameField = searchField{
		"name", `lower((first_name || ' ' || last_name) COLLATE "und-x-icu")`, foldedQuery, "~>=~", "~<~", "USING ~<~", []int{2, 4},
	}
	lastNameField = searchField{
		"last_name", `lower(last_name COLLATE "und-x-icu")`, foldedQuery, "~>=~", "~<~", "USING ~<~", []int{2, 4},
	}
)

const (
	foldedEmail = `lower(email COLLATE "C")`
	foldedQuery = `lower(@query COLLATE "und-x-icu")`
)

// begins is the range of keys that begin with the query.
func (f searchField) begins() string { return f.from() + f.until() }

func (f searchField) from() string { return fmt.Sprintf(`%s %s %s`, f.key, f.notBefore, f.query) }

// until is the upper end of the range: the query followed by the greatest characters.
// The row comparison keeps Postgres from estimating the range as small, and then reading
// and sorting all of it instead of its beginning.
func (f searchField) until() string {
	return fmt.Sprintf(` AND (%[1]s, %[1]s) %[2]s (%[3]s || repeat(U&'\+10FFFF', 1024), '')`, f.key, f.below, f.query)
}

// searchSettings are of a search's transaction. Compilation (JIT) takes longer than a
// search, and begins where the estimates are high. Planning takes about as long, and is
// done once for each connection instead of for each of its first searches.
const searchSettings = `
	SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true),
		set_config('enable_sort', 'off', true), set_config('jit', 'off', true),
		set_config('plan_cache_mode', 'force_generic_plan', true)`

// search runs a statement of searchStatement. The settings go with it in one round trip:
// Postgres plans the statement after they are made, and forgets them at the end.
func (s *Service) search(ctx context.Context, statement string, args pgx.NamedArgs) (found []listedProfile, err error) {
	err = s.db.TransactBatch(ctx, func(batch *pgx.Batch) error {
		batch.Queue(searchSettings)
		batch.Queue(statement, args).Query(func(rows pgx.Rows) (err error) {
			found, err = pgx.CollectRows(rows, pgx.RowToStructByName[listedProfile])
			return err
		})
		return nil
	})
	return found, err
}

// withoutValues keeps the values of a statement's arguments from the planner.
var withoutValues = strings.NewReplacer(
	"@query", "(SELECT @query::text)",
	"@statuses", "(SELECT @statuses::text)",
	"@limit", "(SELECT @limit::bigint)",
	"@after_id", "(SELECT @after_id::uuid)",
	"@after_create_time", "(SELECT @after_create_time::timestamptz)",
	"@after_email", "(SELECT @after_email::text)",
)

// searchStatement returns the statement of a page of a list with a query.
func (l listing) searchStatement(after *position) string {
	order := l.sortOrder()
	var candidates, fields []string
	for _, field := range []searchField{emailField, nameField, lastNameField} {
		switch length := utf8.RuneCountInString(l.query); {
		case field.name == emailField.name && order == byEmail:
			fields = append(fields, l.matchesByEmail(after))
		case length <= slices.Max(field.levels):
			fields = append(fields, bucketMatches(field, order, length, after != nil))
		default:
			candidates = append(candidates, candidateMatches(field, order))
			fields = append(fields, sortedMatches(field, order, after != nil), bucketMatches(field, order, length, after != nil))
		}
	}
	with := "WITH "
	for _, candidate := range candidates {
		with += candidate + ", "
	}
	return withoutValues.Replace(with + fmt.Sprintf(`found AS (
		SELECT %[1]s, id FROM (%[2]s) AS matches %[3]s
	)
	SELECT p.* FROM found CROSS JOIN LATERAL (
		SELECT %[4]s FROM users.profiles WHERE id = found.id LIMIT 1) AS p
	ORDER BY p.%[1]s%[5]s, p.id%[5]s`, order.column, strings.Join(fields, " UNION "), order.first(order.column), listedColumns, order.direction))
}

// bucketMatches selects the first matches of a field by reading its buckets in order.
func bucketMatches(field searchField, order sortOrder, length int, hasAfter bool) string {
	level, only := slices.Max(field.levels), ""
	for _, l := range slices.Backward(field.levels) {
		if length <= l {
			level = l
		}
	}
	if length > level {
		only = fmt.Sprintf(`WHERE (SELECT count(*) FROM %s_candidates) > %d`, field.name, maxCandidates)
	}
	bucket := fmt.Sprintf(`left(%s COLLATE "C", %d)`, field.key, level)
	beginning := fmt.Sprintf(`left(%s COLLATE "C", %d)`, field.query, level)
	buckets := fmt.Sprintf(`(SELECT %s AS bucket) AS b`, beginning)
	if length < level {
		buckets = fmt.Sprintf(`(
			WITH RECURSIVE buckets (bucket) AS (
				(SELECT %[1]s FROM users.profiles WHERE %[1]s >= %[2]s ORDER BY %[1]s LIMIT 1)
				UNION ALL
				SELECT (SELECT %[1]s FROM users.profiles WHERE %[1]s > b.bucket ORDER BY %[1]s LIMIT 1)
				FROM buckets b WHERE starts_with(b.bucket, %[2]s)
			)
			SELECT bucket FROM buckets WHERE starts_with(bucket, %[2]s)) AS b`, bucket, beginning)
	}
	// left, unlike LIKE, keeps Postgres from choosing another index for it.
	return fmt.Sprintf(`(
		SELECT p.%[1]s, p.id FROM unnest(string_to_array(@statuses, ',')) AS wanted (status) CROSS JOIN %[2]s CROSS JOIN LATERAL (
			SELECT %[3]s AS %[1]s, id FROM users.profiles
			WHERE %[4]s AND left(%[5]s, char_length(%[6]s)) = %[6]s
			ORDER BY %[7]s%[8]s, status%[8]s, %[3]s%[8]s, id%[8]s
			LIMIT @limit) AS p
		%[9]s %[10]s)`,
		order.column, buckets, order.expression, order.inBucket(bucket, hasAfter), field.key, field.query, bucket, order.direction,
		only, order.first("p."+order.column))
}

// inBucket is the condition for the rows of a bucket and a status, or for those after a
// position. With an equality, the bucket would not be part of the order: Postgres could
// then use an index on the order alone, and filter the whole table.
func (o sortOrder) inBucket(bucket string, hasAfter bool) string {
	end := map[string]string{"<": ">=", ">": "<="}[o.compare]
	condition := fmt.Sprintf(`(%s, status) %s (b.bucket, wanted.status)`, bucket, end)
	if hasAfter {
		return condition + fmt.Sprintf(` AND (%s, status, %s, id) %s (b.bucket, wanted.status, %s, @after_id)`, bucket, o.expression, o.compare, o.position)
	}
	return condition + fmt.Sprintf(` AND (%s, status) %s= (b.bucket, wanted.status)`, bucket, o.compare)
}

// candidateMatches selects up to maxCandidates matches of a field, and one more.
func candidateMatches(field searchField, order sortOrder) string {
	return fmt.Sprintf(`%[1]s_candidates AS MATERIALIZED (
		SELECT %[2]s AS %[3]s, id, status FROM users.profiles WHERE %[4]s ORDER BY %[5]s %[6]s LIMIT %[7]d
	)`, field.name, order.expression, order.column, field.begins(), field.key, field.ascending, maxCandidates+1)
}

// sortedMatches selects the first of a field's candidates, unless they are too many.
func sortedMatches(field searchField, order sortOrder, hasAfter bool) string {
	return fmt.Sprintf(`(
		SELECT %[1]s, id FROM %[2]s_candidates
		WHERE (SELECT count(*) FROM %[2]s_candidates) <= %[3]d AND status = ANY (string_to_array(@statuses, ','))%[4]s %[5]s)`,
		order.column, field.name, maxCandidates, order.past(order.column, hasAfter), order.first(order.column))
}

// matchesByEmail selects the first matches of the email in order of email. Postgres
// begins at one of two lower bounds, so only the greater one is stated: the position can
// be that of a profile whose name matches, and whose email comes before the query.
func (l listing) matchesByEmail(after *position) string {
	begins := emailField.begins()
	if after != nil && after.foldedEmail >= foldASCII(l.query) {
		begins = "true" + byEmail.past(foldedEmail, true) + emailField.until()
	}
	return fmt.Sprintf(`(
		SELECT p.folded_email, p.id FROM unnest(string_to_array(@statuses, ',')) AS wanted (status) CROSS JOIN LATERAL (
			SELECT %[1]s AS folded_email, id FROM users.profiles WHERE status = wanted.status AND %[2]s %[3]s) AS p
		%[4]s)`, foldedEmail, begins, byEmail.first(foldedEmail), byEmail.first("p.folded_email"))
}

// foldASCII does what lower does by the collation "C".
func foldASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
