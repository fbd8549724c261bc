package users_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

// Among 50,000 profiles, no call may read a table from end to end, nor more than
// 300 blocks of anything: for a page of 25, that is a dozen for each profile.
func TestEveryStatementIsServedByAnIndex(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := pgxpool.ParseConfig(db.Users)
	if err != nil {
		t.Fatal(err)
	}
	statements := &recorder{}
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
		statements.forget()
		if err := call.make(); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
		if len(statements.all()) == 0 {
			t.Errorf("%s: no statement was seen", call.name)
		}
		for _, statement := range statements.all() {
			for _, plan := range explain(t, conn, statement) {
				if plan.reads("Seq Scan") || plan.blocks() > 300 {
					t.Errorf("%s reads %d blocks by\n%s\n%s", call.name, plan.blocks(), statement.SQL, plan)
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

// plan is what Postgres did for a statement.
type plan struct {
	NodeType     string `json:"Node Type"`
	RelationName string `json:"Relation Name"`
	IndexName    string `json:"Index Name"`
	Hit          int    `json:"Shared Hit Blocks"`
	Read         int    `json:"Shared Read Blocks"`
	Removed      int    `json:"Rows Removed by Filter"`
	Plans        []plan `json:"Plans"`
}

// explain runs a statement again, and takes it back: with its values and, where
// it was a prepared one, also by the plan for any values, which Postgres may
// come to keep.
func explain(t *testing.T, conn *pgx.Conn, statement pgx.TraceQueryStartData) []plan {
	t.Helper()
	plans := []plan{explained(t, conn, statement.SQL, statement.Args...)}
	args, prepared := statement.Args[0].(pgx.NamedArgs)
	if !prepared {
		return plans
	}
	sql, values, err := args.RewriteQuery(t.Context(), conn, statement.SQL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Prepare(t.Context(), "any_values", sql); err != nil {
		t.Fatal(err)
	}
	defer conn.Deallocate(t.Context(), "any_values")
	var literals []string
	for _, value := range values {
		literals = append(literals, literal(value))
	}
	return append(plans, explained(t, conn, "EXECUTE any_values ("+strings.Join(literals, ", ")+")"))
}

func explained(t *testing.T, conn *pgx.Conn, sql string, args ...any) plan {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	var text []byte
	if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&text); err != nil {
		t.Fatalf("explain %s: %v", sql, err)
	}
	var plans []struct{ Plan plan }
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) != 1 {
		t.Fatalf("explain %s: %v: %s", sql, err, text)
	}
	return plans[0].Plan
}

func literal(value any) string {
	switch value := value.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return "'" + value.Format(time.RFC3339Nano) + "'"
	default:
		return "'" + strings.ReplaceAll(fmt.Sprint(value), "'", "''") + "'"
	}
}

func (p plan) blocks() int { return p.Hit + p.Read }

func (p plan) reads(nodeType string) bool {
	for _, part := range p.Plans {
		if part.reads(nodeType) {
			return true
		}
	}
	return p.NodeType == nodeType
}

func (p plan) String() string {
	text := fmt.Sprintf("%s %s %s: %d blocks, %d rows removed", p.NodeType, p.RelationName, p.IndexName, p.blocks(), p.Removed)
	for _, part := range p.Plans {
		text += "\n  " + strings.ReplaceAll(part.String(), "\n", "\n  ")
	}
	return text
}

// recorder keeps the statements that were sent, less the limits of
// transactions.
type recorder struct {
	mu         sync.Mutex
	statements []pgx.TraceQueryStartData
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	switch verb, _, _ := strings.Cut(data.SQL, " "); verb {
	case "begin", "commit", "rollback":
		return ctx
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements = append(r.statements, data)
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements = nil
}

func (r *recorder) all() []pgx.TraceQueryStartData {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statements
}
