package pgtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Plan is what Postgres did for a statement.
type Plan struct {
	NodeType     string `json:"Node Type"`
	RelationName string `json:"Relation Name"`
	IndexName    string `json:"Index Name"`
	Hit          int    `json:"Shared Hit Blocks"`
	Read         int    `json:"Shared Read Blocks"`
	// Of each loop.
	Returned float64 `json:"Actual Rows"`
	Removed  float64 `json:"Rows Removed by Filter"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []Plan  `json:"Plans"`
}

// Explain runs a statement again, and takes it back: with its values and, where
// it was a prepared one, also by the plan for any values, which Postgres may
// come to keep.
func Explain(t testing.TB, conn *pgx.Conn, statement pgx.TraceQueryStartData) []Plan {
	t.Helper()
	return explainAfter(t, conn, nil, statement)
}

// explainAfter is Explain for a statement after others of its transaction.
func explainAfter(t testing.TB, conn *pgx.Conn, before []pgx.TraceQueryStartData, statement pgx.TraceQueryStartData) []Plan {
	t.Helper()
	plans := []Plan{explained(t, conn, before, statement.SQL, statement.Args...)}
	if len(statement.Args) == 0 {
		return plans
	}
	args, prepared := statement.Args[0].(pgx.QueryRewriter)
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
	return append(plans, explained(t, conn, before, "EXECUTE any_values ("+strings.Join(literals, ", ")+")"))
}

func explained(t testing.TB, conn *pgx.Conn, before []pgx.TraceQueryStartData, sql string, args ...any) Plan {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	for _, earlier := range before {
		if _, err := tx.Exec(t.Context(), earlier.SQL, earlier.Args...); err != nil {
			t.Fatalf("%s: %v", earlier.SQL, err)
		}
	}
	var text []byte
	if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&text); err != nil {
		t.Fatalf("explain %s: %v", sql, err)
	}
	var plans []struct{ Plan Plan }
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) != 1 {
		t.Fatalf("explain %s: %v: %s", sql, err, text)
	}
	return plans[0].Plan
}

func literal(value any) string {
	switch value := value.(type) {
	case nil:
		return "NULL"
	case *string:
		if value == nil {
			return "NULL"
		}
		return literal(*value)
	case time.Time:
		return "'" + value.Format(time.RFC3339Nano) + "'"
	default:
		return "'" + strings.ReplaceAll(fmt.Sprint(value), "'", "''") + "'"
	}
}

// Blocks is how many blocks it read.
func (p Plan) Blocks() int { return p.Hit + p.Read }

// Rows is how many rows it read from tables and indexes.
func (p Plan) Rows() int {
	rows := 0
	if p.RelationName != "" {
		rows = int((p.Returned + p.Removed) * p.Loops)
	}
	for _, part := range p.Plans {
		rows += part.Rows()
	}
	return rows
}

// Reads reports whether a part of it is of a type, such as "Seq Scan".
func (p Plan) Reads(nodeType string) bool {
	for _, part := range p.Plans {
		if part.Reads(nodeType) {
			return true
		}
	}
	return p.NodeType == nodeType
}

func (p Plan) String() string {
	text := fmt.Sprintf("%s %s %s: %d blocks, %v loops, %v rows returned, %v removed",
		p.NodeType, p.RelationName, p.IndexName, p.Blocks(), p.Loops, p.Returned, p.Removed)
	for _, part := range p.Plans {
		text += "\n  " + strings.ReplaceAll(part.String(), "\n", "\n  ")
	}
	return text
}

// Recorder keeps the statements that were sent, less the limits of
// transactions.
type Recorder struct {
	mu         sync.Mutex
	statements []pgx.TraceQueryStartData
	batches    [][]pgx.TraceQueryStartData
}

// TraceQueryStart implements pgx.QueryTracer.
func (r *Recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	switch verb, _, _ := strings.Cut(data.SQL, " "); verb {
	case "begin", "commit", "rollback":
		return ctx
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements = append(r.statements, data)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (r *Recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (r *Recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	var statements []pgx.TraceQueryStartData
	for _, query := range data.Batch.QueuedQueries {
		statements = append(statements, pgx.TraceQueryStartData{SQL: query.SQL, Args: query.Arguments})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, statements)
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (r *Recorder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (r *Recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// Forget discards the recorded statements.
func (r *Recorder) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements, r.batches = nil, nil
}

// Explain explains what was recorded, each statement of a batch after those before it,
// which may have changed settings. The plans are by statement.
func (r *Recorder) Explain(t testing.TB, conn *pgx.Conn) map[string][]Plan {
	t.Helper()
	plans := map[string][]Plan{}
	for _, statement := range r.All() {
		plans[statement.SQL] = append(plans[statement.SQL], Explain(t, conn, statement)...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, statements := range r.batches {
		for i, statement := range statements {
			plans[statement.SQL] = append(plans[statement.SQL], explainAfter(t, conn, statements[:i], statement)...)
		}
	}
	return plans
}

// All are the statements since then that were sent on their own, not in a batch.
func (r *Recorder) All() []pgx.TraceQueryStartData {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statements
}
