package schema

import (
	"context"
	"fmt"
	"strings"
)

// ForeignError is returned instead of touching what somebody else made: for a
// schema that has one of our names and not our mark, or for a database that
// holds other tables while Config.Shared isn't set. Nothing was written.
type ForeignError struct {
	Database string
	// Schema is the service's schema that has another owner; "" when the database
	// could be shared, but Config.Shared isn't set.
	Schema string
	// Services are the services whose schemas Apply would create.
	Services []string
	// Relations are some of the database's relations, as schema.name.
	Relations []string
}

func (e *ForeignError) Error() string {
	if e.Schema != "" {
		return fmt.Sprintf("the schema %s in the database %s is somebody else's: it isn't empty and has no table %s.applied_schema, which marks ours. Nothing was changed. %s",
			e.Schema, e.Database, e.Schema, e.own())
	}
	return fmt.Sprintf("the database %s holds tables that aren't Gatehouse's (%s). Nothing was changed. %s; or, to keep the schemas %s in this one as well, set GATEHOUSE_SHARE_DATABASE=true (--share-database)",
		e.Database, strings.Join(e.Relations, ", "), e.own(), strings.Join(e.Services, " and "))
}

// CheckOwnership returns a *ForeignError where Apply would, and changes nothing.
func CheckOwnership(ctx context.Context, cfg Config) error {
	t, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	t.close()
	return nil
}

// own is how to make a database for Gatehouse alone.
func (e *ForeignError) own() string {
	name := "gatehouse"
	if e.Database == name {
		name = "gatehouse_accounts"
	}
	return `Make a database of its own: psql "$DATABASE_URL" --command 'CREATE DATABASE ` + name + `', and name that one in DATABASE_URL`
}

// Our mark on a schema is the table applied_schema. The catalogs are read, not
// the table, since its owner may be anybody.
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

// What an extension made counts for nobody: many servers install some into
// every database.
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

// checkOwnership refuses a database in which somebody else would be disturbed.
func (t *target) checkOwnership(ctx context.Context) error {
	rows, err := t.tx.QueryContext(ctx, selectOwnership, t.services)
	if err != nil {
		return fmt.Errorf("look for whose the schemas are: %w", err)
	}
	defer rows.Close()
	ours := false
	for rows.Next() {
		var name string
		var marked, empty bool
		if err := rows.Scan(&name, &marked, &empty); err != nil {
			return fmt.Errorf("look for whose the schemas are: %w", err)
		}
		if !marked && !empty {
			return &ForeignError{Database: t.database, Schema: name, Services: t.services}
		}
		ours = ours || marked
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for whose the schemas are: %w", err)
	}
	if ours || t.Shared {
		return nil
	}
	return t.checkOthers(ctx)
}

// checkOthers refuses a database that holds anything, in which nothing of ours
// is yet.
func (t *target) checkOthers(ctx context.Context) error {
	rows, err := t.tx.QueryContext(ctx, selectOtherRelations)
	if err != nil {
		return fmt.Errorf("look for what others keep in the database: %w", err)
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("look for what others keep in the database: %w", err)
		}
		found = append(found, name)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for what others keep in the database: %w", err)
	}
	if len(found) == 0 {
		return nil
	}
	if len(found) > 3 {
		found[3] = "…"
	}
	return &ForeignError{Database: t.database, Relations: found, Services: t.services}
}
