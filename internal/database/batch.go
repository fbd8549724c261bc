package database

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"gatehouse/internal/batch"
)

// batchedQuery is the first query of one member of a round (package batch).
type batchedQuery struct {
	sql       string
	arguments []any
	rows      *readRows // nil if the query must be sent alone
}

// queryInBatch sends a query in one round trip with those of the other members. It returns
// nil rows if the query must be sent alone.
func (p *Pool) queryInBatch(ctx context.Context, member *batch.Member, sql string, arguments []any) (pgx.Rows, error) {
	query := &batchedQuery{sql: sql, arguments: arguments}
	_, err := member.Do(ctx, p.Pool, query, func(queries []any) { p.sendBatch(ctx, queries) })
	if err != nil || query.rows == nil {
		return nil, err
	}
	return query.rows, nil
}

// sendBatch sends the queries and reads all results. If one fails, Postgres rolls back the
// whole batch, and each query is sent again alone, with retries.
func (p *Pool) sendBatch(ctx context.Context, queries []any) {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return
	}
	defer conn.Release()
	var sent pgx.Batch
	for _, one := range queries {
		query := one.(*batchedQuery)
		sent.Queue(query.sql, query.arguments...)
	}
	results := conn.SendBatch(ctx, &sent)
	read := make([]*readRows, 0, len(queries))
	for range queries {
		rows, _ := results.Query() // rows.Err returns its error
		found := readAll(rows)
		if err = rows.Err(); err != nil {
			break
		}
		read = append(read, found)
	}
	closed := results.Close()
	if err := errors.Join(err, closed); err != nil {
		_ = p.resetIfUnusable(err)
		return
	}
	for i, one := range queries {
		one.(*batchedQuery).rows = read[i]
	}
}

// readRows are the rows of a query, copied from the connection.
type readRows struct {
	fields []pgconn.FieldDescription
	tag    pgconn.CommandTag
	rows   [][][]byte
	next   int // index of the row after the current one
	types  *pgtype.Map
	err    error
}

// readAll reads and closes rows.
func readAll(rows pgx.Rows) *readRows {
	defer rows.Close()
	read := &readRows{}
	for rows.Next() {
		if read.fields == nil {
			read.fields = slices.Clone(rows.FieldDescriptions())
		}
		read.rows = append(read.rows, cloneValues(rows.RawValues()))
	}
	rows.Close()
	read.tag = rows.CommandTag()
	return read
}

// cloneValues copies the values of a row, which the connection overwrites.
func cloneValues(values [][]byte) [][]byte {
	size := 0
	for _, value := range values {
		size += len(value)
	}
	buffer, cloned := make([]byte, 0, size), make([][]byte, len(values))
	for i, value := range values {
		if value == nil { // NULL
			continue
		}
		start := len(buffer)
		buffer = append(buffer, value...)
		cloned[i] = buffer[start:len(buffer):len(buffer)]
	}
	return cloned
}

// typeMaps are reused because they cache decoding plans. The map of a connection must not be
// used after the connection was released.
var typeMaps = sync.Pool{New: func() any { return pgtype.NewMap() }}

// Close implements pgx.Rows.
func (r *readRows) Close() {
	r.next = len(r.rows) + 1
	if r.types != nil {
		typeMaps.Put(r.types)
		r.types = nil
	}
}

// Err implements pgx.Rows.
func (r *readRows) Err() error { return r.err }

// CommandTag implements pgx.Rows.
func (r *readRows) CommandTag() pgconn.CommandTag { return r.tag }

// FieldDescriptions implements pgx.Rows.
func (r *readRows) FieldDescriptions() []pgconn.FieldDescription { return r.fields }

// Conn implements pgx.Rows. The connection was already released.
func (r *readRows) Conn() *pgx.Conn { return nil }

// TypeMap implements pgx.Rows.
func (r *readRows) TypeMap() *pgtype.Map {
	if r.types == nil {
		r.types = typeMaps.Get().(*pgtype.Map)
	}
	return r.types
}

// Next implements pgx.Rows.
func (r *readRows) Next() bool {
	if r.next >= len(r.rows) {
		r.Close()
		return false
	}
	r.next++
	return true
}

var errNoRow = errors.New("there is no current row")

// Scan implements pgx.Rows.
func (r *readRows) Scan(destinations ...any) error {
	values := r.RawValues()
	if values == nil {
		return r.fail(errNoRow)
	}
	if len(destinations) == 1 {
		if scanner, ok := destinations[0].(pgx.RowScanner); ok {
			return r.fail(scanner.ScanRow(r))
		}
	}
	return r.fail(pgx.ScanRow(r.TypeMap(), r.fields, values, destinations...))
}

// fail closes the rows after a decoding error, like pgx.
func (r *readRows) fail(err error) error {
	if err != nil {
		r.err = err
		r.Close()
	}
	return err
}

// Values implements pgx.Rows.
func (r *readRows) Values() ([]any, error) {
	raw := r.RawValues()
	if raw == nil {
		return nil, r.fail(errNoRow)
	}
	values := make([]any, len(raw))
	for i := range raw {
		if err := r.TypeMap().Scan(r.fields[i].DataTypeOID, r.fields[i].Format, raw[i], &values[i]); err != nil {
			return nil, r.fail(err)
		}
	}
	return values, nil
}

// RawValues implements pgx.Rows.
func (r *readRows) RawValues() [][]byte {
	if r.next == 0 || r.next > len(r.rows) {
		return nil
	}
	return r.rows[r.next-1]
}
