package schema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
	"gatehouse/internal/schema/auditlog"
)

// Querier is a pool, a connection or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Ready returns an error if the applied number of a service's schema is smaller than number,
// that of the binary. The login role of the service has the privileges that it needs.
func Ready(ctx context.Context, db Querier, service string, number int) error {
	var stored int
	err := db.QueryRow(ctx, selectApplied([]string{service}, "number")).Scan(&stored)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || hasCode(err, undefinedTable, insufficientPrivilege):
		return fmt.Errorf("the schema %s was never applied: run `gatehouse schema apply` (%w)", service, err)
	case err != nil:
		return fmt.Errorf("read the number of the schema %s: %w", service, err)
	case stored < number:
		return fmt.Errorf("the schema %s has number %d and this binary needs %d: run `gatehouse schema apply`", service, stored, number)
	}
	return nil
}

const selectNames = `
SELECT current_database(), current_user, current_setting('server_encoding')`

const selectSource = `
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = ANY ($1::text[])),
	(SELECT count(*) = cardinality($1::text[]) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = ANY ($1::text[]) AND c.relname = 'applied_schema')`

func (t *target) readState(ctx context.Context) error {
	var encoding string
	if err := t.tx.QueryRowContext(ctx, selectNames).Scan(&t.database, &t.user, &encoding); err != nil {
		return fmt.Errorf("look up the schemas: %w", err)
	}
	if err := database.EncodingError(t.database, encoding); err != nil {
		return err
	}
	for _, s := range t.sources {
		if err := t.readSource(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) readSource(ctx context.Context, s *source) error {
	if err := t.tx.QueryRowContext(ctx, selectSource, s.services).Scan(&s.fresh, &s.hasState); err != nil {
		return fmt.Errorf("look up the schemas: %w", err)
	}
	if !s.hasState {
		return nil
	}
	// The numbers differ after a restore of some of the schemas. The largest one protects
	// the schemas of a newer version.
	numbers := "SELECT coalesce(max(number), 0) FROM (" + selectApplied(s.services, "number") + ") AS applied"
	if err := t.tx.QueryRowContext(ctx, numbers).Scan(&s.stored); err != nil {
		return fmt.Errorf("read the schema's number: %w", err)
	}
	return nil
}

const countMatches = `
SELECT count(*) FILTER (WHERE number = $1 AND source_hash = $2 AND catalog_hash = $3),
	count(*) FILTER (WHERE number = $1 AND source_hash <> $2)
FROM (%s) AS applied`

// changed returns the sources whose text or tables have changed since the last Apply.
func (t *target) changed(ctx context.Context) ([]*source, error) {
	var changed []*source
	for _, s := range t.sources {
		same, err := t.unchanged(ctx, s)
		if err != nil {
			return nil, err
		}
		if !same {
			changed = append(changed, s)
		}
	}
	return changed, nil
}

func (t *target) unchanged(ctx context.Context, s *source) (bool, error) {
	if !s.hasState {
		return false, nil
	}
	catalog, err := t.catalogHash(ctx, s)
	if err != nil {
		return false, err
	}
	var same, edited int
	err = t.tx.QueryRowContext(ctx, fmt.Sprintf(countMatches, selectApplied(s.services, "number, source_hash, catalog_hash")), s.number, s.hash[:], catalog).Scan(&same, &edited)
	if err != nil {
		return false, fmt.Errorf("read the applied schema: %w", err)
	}
	if edited > 0 {
		t.log.Warn("schema: schema.sql changed without a new number, so older binaries do not detect it", "file", s.file(), "number", s.number)
	}
	return same == len(s.services), nil
}

// selectCatalogHash hashes one line for each object that Atlas supports and for each storage
// parameter. Grants, and triggers, of which some have a row among the constraints, are
// compared separately.
const selectCatalogHash = `
WITH ours AS (
	SELECT oid, nspname FROM pg_catalog.pg_namespace WHERE nspname = ANY ($1::text[])
), relations AS (
	SELECT c.oid, c.relkind, c.relpersistence, c.reloptions, format('%I.%I', n.nspname, c.relname) AS name
	FROM pg_catalog.pg_class c JOIN ours n ON n.oid = c.relnamespace
	WHERE NOT ` + auditlog.IsOfClosed + `
), lines AS (
	SELECT format('schema %s %s', nspname, obj_description(oid, 'pg_namespace')) AS line FROM ours
	UNION ALL
	SELECT format('relation %s %s %s %s', name, relkind, relpersistence, obj_description(oid, 'pg_class')) FROM relations
	UNION ALL
	SELECT format('storage %s %s', name, array_to_string(reloptions, ',')) FROM relations WHERE relkind = 'r'
	UNION ALL
	SELECT format('column %s.%I %s %s %s %s%s %s %s', r.name, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
		a.attcollation::regcollation, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum))
	FROM relations r
	JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
	WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
	UNION ALL
	SELECT format('constraint %s %I %s', r.name, c.conname, pg_get_constraintdef(c.oid))
	FROM relations r JOIN pg_catalog.pg_constraint c ON c.conrelid = r.oid AND c.contype <> 't'
	UNION ALL
	SELECT format('index %s %s', pg_get_indexdef(i.indexrelid), i.indisvalid)
	FROM relations r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
	UNION ALL
	SELECT format('enum %I.%I %s', n.nspname, t.typname, string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder))
	FROM ours n JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid
	GROUP BY n.nspname, t.typname
)
SELECT sha256(convert_to(string_agg(line, E'\n' ORDER BY line COLLATE "C"), 'UTF8')) FROM lines`

func (t *target) catalogHash(ctx context.Context, s *source) ([]byte, error) {
	var hash []byte
	if err := t.tx.QueryRowContext(ctx, selectCatalogHash, s.services).Scan(&hash); err != nil {
		return nil, fmt.Errorf("hash the catalog: %w", err)
	}
	return hash, nil
}

const upsertState = `
INSERT INTO %s.applied_schema (number, source_hash, catalog_hash) VALUES ($1, $2, $3)
ON CONFLICT ((true)) DO UPDATE
SET number = excluded.number, source_hash = excluded.source_hash, catalog_hash = excluded.catalog_hash, apply_time = now()`

// storeState stores the applied number and hashes, for Ready and the next Apply.
func (t *target) storeState(ctx context.Context, s *source) error {
	catalog, err := t.catalogHash(ctx, s)
	if err != nil {
		return err
	}
	for _, service := range s.services {
		if _, err := t.tx.ExecContext(ctx, fmt.Sprintf(upsertState, pgx.Identifier{service}.Sanitize()), s.number, s.hash[:], catalog); err != nil {
			return fmt.Errorf("store the applied schema: %w", err)
		}
	}
	return nil
}
