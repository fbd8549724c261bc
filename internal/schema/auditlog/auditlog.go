// Package auditlog defines the tables of the audit log and the functions that change them.
//
// The audit log consists of one open table, auth.audit_events, and a closed table for each
// earlier month, which inherits from it. Every statement on auth.audit_events reads all of
// them, and writes to the open one. auth.close_audit creates a closed table by renaming the
// open one, without reading its rows; auth.prune_audit drops it.
//
// Declarative partitions would not serve: a unique index must contain the partition key, and
// an older version of auth names the index of the refusals, which has no time that every
// event has, in ON CONFLICT. Nor does an insert ever need a partition that is missing, and
// dropping a closed table takes no lock on the open one.
//
// Atlas sees the closed tables as ordinary ones. schema.sql does not declare them, so they are
// excluded from every comparison. A change of the columns of the open table reaches them by
// inheritance.
package auditlog

import (
	"context"
	"database/sql"
	"fmt"
)

// IsClosed is the condition that a pg_class c is a closed table.
const IsClosed = `EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid AND h.inhparent = to_regclass('auth.audit_events'))`

// IsOfClosed is the condition that a pg_class c is a closed table or an index of one.
const IsOfClosed = `EXISTS (
	SELECT FROM pg_catalog.pg_inherits h LEFT JOIN pg_catalog.pg_index x ON x.indrelid = h.inhrelid
	WHERE h.inhparent = to_regclass('auth.audit_events') AND c.oid IN (h.inhrelid, x.indexrelid))`

const selectClosed = `
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1::text[]) AND c.relkind = 'r' AND ` + IsClosed + `
ORDER BY 1, 2`

// Closed returns the closed tables in the services' schemas, as schema and name.
func Closed(ctx context.Context, tx *sql.Tx, services []string) ([][2]string, error) {
	closed, err := pairs(ctx, tx, selectClosed, services)
	if err != nil {
		return nil, fmt.Errorf("list the closed tables: %w", err)
	}
	return closed, nil
}

// HoldOpen prevents the closing of the open table, if there is one, until tx ends.
func HoldOpen(ctx context.Context, tx *sql.Tx) error {
	var exists bool
	err := tx.QueryRowContext(ctx, `SELECT to_regclass('auth.audit_events') IS NOT NULL`).Scan(&exists)
	if err == nil && exists {
		_, err = tx.ExecContext(ctx, `LOCK TABLE ONLY auth.audit_events IN ACCESS SHARE MODE`)
	}
	if err != nil {
		return fmt.Errorf("lock the audit log: %w", err)
	}
	return nil
}

// MissingIndexes returns the closed tables that lack an index of the open one, and the
// statements that build it concurrently, or drop one of the same name before. A unique index is left out: what it keeps unique is
// written to the open table.
func MissingIndexes(ctx context.Context, tx *sql.Tx, services []string) ([][2]string, error) {
	missing, err := pairs(ctx, tx, selectMissingIndexes, services)
	if err != nil {
		return nil, fmt.Errorf("compare the indexes of the closed tables: %w", err)
	}
	return missing, nil
}

func pairs(ctx context.Context, tx *sql.Tx, query string, services []string) ([][2]string, error) {
	rows, err := tx.QueryContext(ctx, query, services)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found [][2]string
	for rows.Next() {
		var one [2]string
		if err := rows.Scan(&one[0], &one[1]); err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, rows.Err()
}

// The index of the same name has an older definition. Postgres would refuse the new one.
const selectMissingIndexes = `
SELECT n.nspname || '.' || c.relname, build.statement
FROM pg_catalog.pg_inherits h
JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = h.inhparent AND i.indisvalid AND NOT i.indisunique
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
CROSS JOIN LATERAL (
	SELECT substr(d, strpos(d, ' USING ')) AS definition, replace(x.relname, 'audit_events', c.relname) AS name FROM pg_get_indexdef(x.oid) d
) AS wanted
CROSS JOIN LATERAL (
	SELECT 1 AS step, format('DROP INDEX CONCURRENTLY IF EXISTS %I.%I', n.nspname, wanted.name) AS statement
	FROM pg_catalog.pg_index own JOIN pg_catalog.pg_class o ON o.oid = own.indexrelid
	WHERE own.indrelid = h.inhrelid AND own.indisvalid AND o.relname = wanted.name
	UNION ALL
	SELECT 2, format('CREATE INDEX CONCURRENTLY %I ON %I.%I', wanted.name, n.nspname, c.relname) || wanted.definition
) AS build
WHERE h.inhparent = to_regclass('auth.audit_events') AND n.nspname = ANY ($1::text[])
	AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_index own CROSS JOIN LATERAL pg_get_indexdef(own.indexrelid) d
		WHERE own.indrelid = h.inhrelid AND own.indisvalid AND substr(d, strpos(d, ' USING ')) = wanted.definition)
ORDER BY 1, wanted.name, build.step`
