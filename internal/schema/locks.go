package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	atlas "ariga.io/atlas/sql/schema"
)

// Lock is the strongest lock that a statement takes on a table that existed before
// (https://www.postgresql.org/docs/current/explicit-locking.html). A transaction keeps its
// locks until it ends.
type Lock struct {
	// Table is schema.name.
	Table string
	// Mode is the name that Postgres' documentation gives it, such as ACCESS EXCLUSIVE.
	Mode string
	// Work says what the statement does to every row of the table while it holds the lock.
	// It is empty if the duration does not depend on the number of rows.
	Work string
	// Bytes is the size of the table, without its indexes.
	Bytes int64
	// Large reports that Bytes reaches Config.LargeTable.
	Large bool
}

// Lock modes of Postgres that a planned statement takes.
const (
	accessExclusive      = "ACCESS EXCLUSIVE"
	shareRowExclusive    = "SHARE ROW EXCLUSIVE"
	share                = "SHARE"
	shareUpdateExclusive = "SHARE UPDATE EXCLUSIVE"
)

// blocks says what waits for a lock of each mode.
var blocks = map[string]string{
	accessExclusive:      "blocks reads and writes",
	shareRowExclusive:    "blocks writes",
	share:                "blocks writes",
	shareUpdateExclusive: "blocks neither reads nor writes",
}

// What a statement does to every row.
const (
	buildsIndex = "builds an index"
	readsRows   = "reads every row"
	rewrites    = "rewrites every row"
)

// String describes the lock in one line.
func (l Lock) String() string {
	duration := "briefly"
	if l.Work != "" {
		duration = fmt.Sprintf("while it %s of %s", l.Work, megabytes(l.Bytes))
	}
	return fmt.Sprintf("%s on %s, which %s, %s", l.Mode, l.Table, blocks[l.Mode], duration)
}

func megabytes(bytes int64) string {
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// refused reports whether the lock keeps callers of a large table waiting.
func (l *Lock) refused() bool {
	return l != nil && l.Large && l.Work != "" && l.Mode != shareUpdateExclusive
}

// LockingError is the error of Apply for statements that block a large table until every row
// is processed. Nothing was changed.
type LockingError struct {
	// Changes describes each statement with its lock.
	Changes []string
}

func (e *LockingError) Error() string {
	return "refused, because callers of a large table would wait: " + strings.Join(e.Changes, "; ") +
		". Apply it while nothing uses the table and permit it with --allow-locking"
}

// locking describes the statements that Apply refuses without AllowLocking.
func locking(statements []statement) []string {
	var refused []string
	for _, s := range statements {
		if s.lock.refused() && !s.concurrent {
			refused = append(refused, fmt.Sprintf("%s takes %s", s.text, s.lock))
		}
	}
	return refused
}

// defaultLargeTable is 64 MiB: some 300,000 profiles, whose index is built in about a second.
const defaultLargeTable = 64 << 20

const selectTableSizes = `
SELECT format('%s.%s', n.nspname, c.relname), pg_relation_size(c.oid)
	+ (SELECT coalesce(sum(pg_relation_size(h.inhrelid)), 0)::bigint FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1::text[]) AND c.relkind = 'r'`

// tableSizes returns the sizes of the existing tables in bytes, by schema.name. That of an open
// table includes its closed tables, which a change of its columns reaches.
func (t *target) tableSizes(ctx context.Context) (map[string]int64, error) {
	rows, err := t.tx.QueryContext(ctx, selectTableSizes, t.services)
	if err != nil {
		return nil, fmt.Errorf("read the sizes of the tables: %w", err)
	}
	defer rows.Close()
	sizes := map[string]int64{}
	for rows.Next() {
		var name string
		var bytes int64
		if err := rows.Scan(&name, &bytes); err != nil {
			return nil, fmt.Errorf("read the sizes of the tables: %w", err)
		}
		sizes[name] = bytes
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the sizes of the tables: %w", err)
	}
	return sizes, nil
}

// locks fills in the lock of each statement, and marks the indexes to build concurrently.
type locks struct {
	sizes map[string]int64
	large int64
}

func (t *target) readLocks(ctx context.Context) (*locks, error) {
	sizes, err := t.tableSizes(ctx)
	large := t.LargeTable
	if large == 0 {
		large = defaultLargeTable
	}
	return &locks{sizes: sizes, large: large}, err
}

// on returns a lock on a table, or nil if the table does not exist yet.
func (l *locks) on(table, mode, work string) *Lock {
	bytes, exists := l.sizes[table]
	if !exists {
		return nil
	}
	return &Lock{Table: table, Mode: mode, Work: work, Bytes: bytes, Large: bytes >= l.large}
}

// planned returns the statement of a change that Atlas has planned. An index of a large
// table is built concurrently, unless the same plan drops its predecessor: between the two
// nothing would keep the rows unique.
func (l *locks) planned(c *migrate.Change, dropped []string) statement {
	s := statement{sql: c.Cmd, args: c.Args, text: c.Cmd}
	switch source := c.Source.(type) {
	case *atlas.DropTable:
		s.lock = l.on(tableName(source.T), accessExclusive, "")
	case *atlas.ModifyTable:
		s.lock = l.modified(c.Cmd, source)
	}
	if name, rest, ok := cutCreateIndex(c.Cmd); ok && s.lock.refused() && !slices.Contains(dropped, name) {
		s.concurrent = true
		s.lock.Mode = shareUpdateExclusive
		s.text = concurrentIndex(c.Cmd, rest)
		s.sql = s.text
	}
	return s
}

func tableName(t *atlas.Table) string { return t.Schema.Name + "." + t.Name }

// modified returns the lock of one of the statements that change a table.
func (l *locks) modified(sql string, change *atlas.ModifyTable) *Lock {
	table := tableName(change.T)
	switch {
	case strings.HasPrefix(sql, "CREATE "):
		return l.on(table, share, buildsIndex)
	case strings.HasPrefix(sql, "COMMENT "):
		return l.on(table, shareUpdateExclusive, "")
	case !strings.HasPrefix(sql, "ALTER TABLE"):
		return l.on(table, accessExclusive, "") // DROP INDEX
	}
	mode, work := shareRowExclusive, ""
	for _, c := range change.Changes {
		m, w := alteration(c)
		if m == accessExclusive {
			mode = m
		}
		if rank[w] > rank[work] {
			work = w
		}
	}
	return l.on(table, mode, work)
}

// rank orders what a statement does by its cost.
var rank = map[string]int{"": 0, readsRows: 1, buildsIndex: 2, rewrites: 3}

// alteration returns the lock mode and the work of a part of ALTER TABLE.
func alteration(c atlas.Change) (mode, work string) {
	switch c := c.(type) {
	case *atlas.AddColumn:
		if rewritesFor(c.C) {
			return accessExclusive, rewrites
		}
		return accessExclusive, ""
	case *atlas.ModifyColumn:
		return accessExclusive, columnWork(c)
	case *atlas.AddIndex, *atlas.AddPrimaryKey:
		return accessExclusive, buildsIndex
	case *atlas.AddCheck, *atlas.ModifyCheck:
		return accessExclusive, readsRows
	case *atlas.AddForeignKey:
		return shareRowExclusive, readsRows
	case *atlas.DropColumn, *atlas.DropIndex, *atlas.DropPrimaryKey, *atlas.DropForeignKey, *atlas.DropCheck:
		return accessExclusive, ""
	}
	return accessExclusive, rewrites // an alteration that this function does not know
}

// rewritesFor reports whether a new column needs a value in every row. Postgres stores a
// default once for all existing rows, unless its expression is volatile.
func rewritesFor(c *atlas.Column) bool {
	for _, attribute := range c.Attrs {
		switch attribute.(type) {
		case *atlas.GeneratedExpr, *postgres.Identity:
			return true
		}
	}
	if _, serial := c.Type.Type.(*postgres.SerialType); serial {
		return true
	}
	expression, ok := c.Default.(*atlas.RawExpr)
	if !ok {
		return false
	}
	// Of the functions, only now() is known to be stable.
	return strings.Contains(strings.ReplaceAll(strings.ToLower(expression.X), "now()", ""), "(")
}

func columnWork(c *atlas.ModifyColumn) string {
	switch {
	case c.Change.Is(atlas.ChangeType) && !keepsRows(c.From.Type.Type, c.To.Type.Type):
		return rewrites
	case c.Change.Is(atlas.ChangeNull) && !c.To.Type.Null:
		return readsRows
	}
	return ""
}

// keepsRows reports whether Postgres changes a column from one type to the other without
// rewriting the rows: longer texts, and decimals with more digits before the point.
func keepsRows(from, to atlas.Type) bool {
	switch from := from.(type) {
	case *atlas.StringType:
		return widens(from, to)
	case *atlas.DecimalType:
		to, ok := to.(*atlas.DecimalType)
		return ok && widens(from, to) && (to.Precision == 0 || to.Scale == from.Scale)
	}
	return false
}

// cutCreateIndex splits a statement that creates an index into the index's name and what
// follows CREATE INDEX.
func cutCreateIndex(text string) (name, rest string, ok bool) {
	rest, ok = strings.CutPrefix(text, "CREATE INDEX ")
	if !ok {
		rest, ok = strings.CutPrefix(text, "CREATE UNIQUE INDEX ")
	}
	name, _, _ = strings.Cut(rest, " ")
	return strings.Trim(name, `"`), rest, ok
}

func concurrentIndex(text, rest string) string {
	return strings.TrimSuffix(text, rest) + "CONCURRENTLY " + rest
}

// droppedIndexes returns the names of the indexes that a plan drops.
func droppedIndexes(plan *migrate.Plan) []string {
	var names []string
	for _, c := range plan.Changes {
		if rest, ok := strings.CutPrefix(c.Cmd, "DROP INDEX "); ok {
			_, name, _ := strings.Cut(rest, ".")
			names = append(names, strings.Trim(name, `"`))
		}
	}
	return names
}

const selectInvalidIndexes = `
SELECT n.nspname, c.relname, i.indrelid::regclass, EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1::text[]) AND NOT i.indisvalid
ORDER BY 1, 2`

// errBuilding means that another process is building an index concurrently.
var errBuilding = errors.New("another process builds an index of the services' tables: try again when it has finished")

// forgetInvalid removes the indexes whose concurrent build did not finish from the inspected
// state, and returns the statements that drop them. They are then built again.
func forgetInvalid(ctx context.Context, tx *sql.Tx, services []string, current *atlas.Realm) ([]statement, error) {
	rows, err := tx.QueryContext(ctx, selectInvalidIndexes, services)
	if err != nil {
		return nil, fmt.Errorf("list the invalid indexes: %w", err)
	}
	defer rows.Close()
	invalid := map[string]bool{}
	var drops []statement
	for rows.Next() {
		var schema, name, table string
		var building bool
		if err := rows.Scan(&schema, &name, &table, &building); err != nil {
			return nil, fmt.Errorf("list the invalid indexes: %w", err)
		}
		if building {
			return nil, errBuilding
		}
		invalid[schema+"."+name] = true
		text := fmt.Sprintf(`DROP INDEX "%s"."%s"`, schema, name)
		drops = append(drops, statement{sql: text, text: text, lock: &Lock{Table: table, Mode: accessExclusive}})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list the invalid indexes: %w", err)
	}
	for _, s := range current.Schemas {
		for _, table := range s.Tables {
			table.Indexes = slices.DeleteFunc(table.Indexes, func(i *atlas.Index) bool { return invalid[s.Name+"."+i.Name] })
		}
	}
	return drops, nil
}
