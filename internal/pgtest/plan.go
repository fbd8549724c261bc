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
	plans := []Plan{explained(t, conn, statement.SQL, statement.Args...)}
	if len(statement.Args) == 0 {
		return plans
	}
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

func explained(t testing.TB, conn *pgx.Conn, sql string, args ...any) Plan {
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

// Forget discards the recorded statements.
func (r *Recorder) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements = nil
}

// All are the statements since then.
func (r *Recorder) All() []pgx.TraceQueryStartData {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statements
}
