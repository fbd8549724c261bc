package schema_test

import (
	"errors"
	"testing"

	"gatehouse/internal/schema"
)

// catalog describes all objects of a database, so that a comparison of two results shows
// whether anything was written.
const catalog = `
SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
	SELECT format('schema %s %s', nspname, nspacl) AS line FROM pg_namespace WHERE nspname !~ '^pg_'
	UNION ALL
	SELECT format('relation %s %s %s %s', relnamespace::regnamespace, relname, relkind, relacl) FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_'
	UNION ALL
	SELECT format('role %s', rolname) FROM pg_roles WHERE rolname LIKE current_database() || '%'
) AS lines`

// Some database products, such as Supabase, have their own schema auth.
func TestAForeignSchemaWithTheNameOfAServiceIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		schema     string
		statements []string
	}{
		"tables in auth":         {"auth", []string{`CREATE SCHEMA auth`, `CREATE TABLE auth.users (id uuid PRIMARY KEY, email text)`}},
		"tables in both":         {"auth", []string{`CREATE SCHEMA auth`, `CREATE TABLE auth.users (id uuid)`, `CREATE SCHEMA users`, `CREATE TABLE users.profiles (id uuid)`}},
		"a function":             {"users", []string{`CREATE SCHEMA users`, `CREATE FUNCTION users.uid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'`}},
		"another applied_schema": {"users", []string{`CREATE SCHEMA users`, `CREATE TABLE users.applied_schema (version text)`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			exec(t, cfg.DatabaseURL, test.statements...)
			before := query[string](t, cfg.DatabaseURL, catalog)
			// No setting permits it.
			cfg.AllowDestructive, cfg.Shared = true, true
			_, errApply := schema.Apply(t.Context(), cfg)
			_, errPlan := schema.Plan(t.Context(), cfg)
			_, errStatus := schema.Status(t.Context(), cfg)
			for what, err := range map[string]error{"Apply": errApply, "Plan": errPlan, "Status": errStatus} {
				foreign, ok := errors.AsType[*schema.ForeignError](err)
				if !ok || foreign.Schema != test.schema {
					t.Errorf("%s = %v, want a ForeignError of %s", what, err, test.schema)
					continue
				}
				wantError(t, err, "belongs to another program", "CREATE DATABASE gatehouse")
			}
			if after := query[string](t, cfg.DatabaseURL, catalog); after != before {
				t.Errorf("something was written: before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// A database with one of our schemas is accepted although other tables were added, or the
// other schema was dropped.
func TestADatabaseWithOneOfOurSchemasIsAccepted(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	exec(t, cfg.DatabaseURL, `CREATE TABLE public.orders (id integer)`, `DROP SCHEMA users CASCADE`)
	apply(t, cfg)
	wantNothingPlanned(t, cfg)
}

func TestADatabaseWithOtherTablesIsSharedOnlyIfConfigured(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	exec(t, cfg.DatabaseURL, `CREATE TABLE public.orders (id integer PRIMARY KEY)`)
	before := query[string](t, cfg.DatabaseURL, catalog)
	_, err := schema.Apply(t.Context(), cfg)
	if foreign, ok := errors.AsType[*schema.ForeignError](err); !ok || foreign.Schema != "" {
		t.Fatalf("Apply = %v, want a ForeignError", err)
	}
	wantError(t, err, "public.orders", "GATEHOUSE_SHARE_DATABASE", "CREATE DATABASE gatehouse")
	if after := query[string](t, cfg.DatabaseURL, catalog); after != before {
		t.Errorf("something was written: before\n%s\nafter\n%s", before, after)
	}
	cfg.Shared = true
	apply(t, cfg)
	cfg.Shared = false // needed only once
	wantNothingPlanned(t, cfg)
}
