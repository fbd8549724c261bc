package schema

import (
	"context"
	"fmt"
	"strings"
)

// ForeignError reports objects of another program: a schema that has the name of a service
// and no table applied_schema, or tables in a database that Config.Shared does not permit to
// share. Nothing was changed.
type ForeignError struct {
	Database string
	// Schema is the schema of another program that has the name of a service. It is empty
	// if the database could be shared with Config.Shared.
	Schema string
	// Services are the services whose schemas Apply would create.
	Services []string
	// Relations are some of the database's relations, as schema.name.
	Relations []string
}

func (e *ForeignError) Error() string {
	if e.Schema != "" {
		return fmt.Sprintf("the schema %s in the database %s belongs to another program: it isn't empty and has no table %s.applied_schema. Nothing was changed. %s",
			e.Schema, e.Database, e.Schema, e.advice())
	}
	return fmt.Sprintf("the database %s holds tables that aren't Gatehouse's (%s). Nothing was changed. %s. Or, to create the schemas %s in this database, set GATEHOUSE_SHARE_DATABASE=true (--share-database)",
		e.Database, strings.Join(e.Relations, ", "), e.advice(), strings.Join(e.Services, " and "))
}

// CheckOwnership returns the *ForeignError that Apply would return. It changes nothing.
func CheckOwnership(ctx context.Context, cfg Config) error {
	t, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	t.close()
	return nil
}

// advice says how to create a database for Gatehouse.
func (e *ForeignError) advice() string {
	name := "gatehouse"
	if e.Database == name {
		name = "gatehouse_accounts"
	}
	return `Create a separate database: psql "$DATABASE_URL" --command 'CREATE DATABASE ` + name + `', and set DATABASE_URL to it`
}

// A schema of ours has a table applied_schema. This reads the catalog and not the table,
// which may belong to another user.
const selectOwnership = `
SELECT n.nspname,
	EXISTS (
		SELECT FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('number', 'source_hash', 'catalog_hash')
		WHERE c.relnamespace = n.oid AND c.relname = 'applied_schema' AND c.relkind = 'r'
		GROUP BY c.oid HAVING count(*) = 3),
	NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_type y WHERE y.typnamespace = n.oid)
FROM pg_catalog.pg_namespace n
WHERE n.nspname = ANY ($1::text[])
ORDER BY n.nspname`

// Objects of extensions are excluded: many servers install some into every database.
const selectOtherRelations = `
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
	AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relkind <> 'r', n.nspname, c.relname
LIMIT 4`

// checkOwnership returns a *ForeignError if Apply would touch objects of another program.
func (t *target) checkOwnership(ctx context.Context) error {
	rows, err := t.tx.QueryContext(ctx, selectOwnership, t.services)
	if err != nil {
		return fmt.Errorf("read the ownership of the schemas: %w", err)
	}
	defer rows.Close()
	ours := false
	for rows.Next() {
		var name string
		var marked, empty bool
		if err := rows.Scan(&name, &marked, &empty); err != nil {
			return fmt.Errorf("read the ownership of the schemas: %w", err)
		}
		if !marked && !empty {
			return &ForeignError{Database: t.database, Schema: name, Services: t.services}
		}
		ours = ours || marked
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the ownership of the schemas: %w", err)
	}
	if ours || t.Shared {
		return nil
	}
	return t.checkEmpty(ctx)
}

// checkEmpty returns a *ForeignError if the database contains relations.
func (t *target) checkEmpty(ctx context.Context) error {
	rows, err := t.tx.QueryContext(ctx, selectOtherRelations)
	if err != nil {
		return fmt.Errorf("list the relations of the database: %w", err)
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("list the relations of the database: %w", err)
		}
		found = append(found, name)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list the relations of the database: %w", err)
	}
	if len(found) == 0 {
		return nil
	}
	if len(found) > 3 {
		found[3] = "…"
	}
	return &ForeignError{Database: t.database, Relations: found, Services: t.services}
}
