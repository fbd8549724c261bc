package schema_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// sampleText returns the schema.sql of the service sample, with more declarations.
func sampleText(number int, more string) string {
	return fmt.Sprintf(`-- schema number: %d

CREATE SCHEMA sample;

CREATE TABLE sample.sample (
    id    uuid NOT NULL,
    title text NOT NULL,
    CONSTRAINT sample_pkey PRIMARY KEY (id)
);

CREATE TABLE sample.applied_schema (
    number        integer     NOT NULL,
    source_hash   bytea       NOT NULL,
    catalog_hash  bytea       NOT NULL,
    apply_time    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT applied_schema_number_positive CHECK (number > 0)
);
CREATE UNIQUE INDEX applied_schema_one_row ON sample.applied_schema ((true));
%s`, number, more)
}

// withText returns cfg with the schema.sql of the service sample.
func withText(cfg schema.Config, text string) schema.Config {
	cfg.Roles = maps.Clone(cfg.Roles)
	cfg.Roles["sample"] = schema.Role{Password: "for sample"}
	cfg.Own = map[string]string{"sample": text}
	return cfg
}

func TestTheTablesOfAServicesOwnSchemaAreCreated(t *testing.T) {
	t.Parallel()
	older := appliedConfig(t)
	cfg := withText(older, sampleText(1, ""))
	result := apply(t, cfg)
	if result.Own["sample"].Number != 1 || !slices.Contains(result.Statements, "CREATE SCHEMA sample") {
		t.Errorf("Apply = %+v, want the schema sample with number 1", result)
	}
	if slices.ContainsFunc(result.Statements, func(s string) bool { return strings.Contains(s, "CREATE TABLE auth.") }) {
		t.Errorf("it created tables of auth: %q", result.Statements)
	}
	wantNothingPlanned(t, cfg)
	// A binary without the service accepts the database.
	wantNothingPlanned(t, older)
	conn := pgtest.Connect(t, serviceURL(t, cfg, "sample"))
	if err := schema.Ready(t.Context(), conn, "sample", 1); err != nil {
		t.Error(err)
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO sample.sample (id, title) VALUES (gen_random_uuid(), 'one')`); err != nil {
		t.Errorf("the service's role can't write its table: %v", err)
	}
	for role, sql := range map[string]string{"sample": `SELECT FROM auth.accounts`, "auth": `SELECT FROM sample.sample`, "users": `SELECT FROM sample.sample`} {
		if _, err := pgtest.Connect(t, serviceURL(t, cfg, role)).Exec(t.Context(), sql); err == nil {
			t.Errorf("the role of %s can execute %s", role, sql)
		}
	}
}

// A service that is deployed alone has a newer or older schema.sql than the other services.
func TestEachSchemaIsAppliedByItsOwnNumber(t *testing.T) {
	t.Parallel()
	column := `ALTER TABLE sample.sample ADD COLUMN body text;`
	badges := `CREATE TABLE auth.badges (id uuid NOT NULL);`
	base := appliedConfig(t)
	first := withText(base, sampleText(1, ""))
	apply(t, first)

	service := withText(base, sampleText(2, column))
	if result := apply(t, service); result.Own["sample"].Number != 2 || len(result.Statements) != 1 {
		t.Errorf("Apply of a newer service = %+v, want one statement", result)
	}
	rest := withText(with(base, 1002, badges), sampleText(1, "")) // of a binary with the older service
	result := apply(t, rest)
	if own := result.Own["sample"]; result.Number != 1002 || result.Newer || own.Number != 2 || !own.Newer {
		t.Errorf("Apply of a newer schema.sql = %+v, want 1002 applied and the newer tables of the service unchanged", result)
	}
	if result := apply(t, withText(base, sampleText(3, column+`ALTER TABLE sample.sample ADD COLUMN author uuid;`))); !result.Newer || result.Number != 1002 || result.Own["sample"].Newer || result.Own["sample"].Number != 3 {
		t.Errorf("Apply of a service with an older schema.sql at the root = %+v, want 3 applied and the other tables unchanged", result)
	}
	state, err := schema.Status(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if own := state.Own["sample"]; own.Stored != 3 || own.Number != 1 || !own.Newer() || len(state.Pending.Statements) != 0 {
		t.Errorf("Status of the first binary = %+v, want a newer service and nothing pending", state)
	}
	columns := query[int](t, base.DatabaseURL, `SELECT count(*)::int FROM information_schema.columns WHERE table_schema = 'sample' AND table_name = 'sample'`)
	tables := query[int](t, base.DatabaseURL, `SELECT count(*)::int FROM pg_tables WHERE schemaname = 'auth' AND tablename = 'badges'`)
	if columns != 4 || tables != 1 {
		t.Errorf("sample has %d columns, want 4; auth has %d tables of badges, want 1", columns, tables)
	}
}

// Either all of both schemas is applied or nothing.
func TestSchemasAreAppliedAtomically(t *testing.T) {
	t.Parallel()
	base := appliedConfig(t)
	apply(t, withText(base, sampleText(1, "")))
	before := query[string](t, base.DatabaseURL, catalog)
	dropped := strings.Replace(sampleText(2, ""), "    title text NOT NULL,\n", "", 1)
	_, err := schema.Apply(t.Context(), withText(with(base, 1002, `CREATE TABLE auth.badges (id uuid NOT NULL);`), dropped))
	if _, ok := errors.AsType[*schema.DestructiveError](err); !ok {
		t.Fatalf("Apply = %v, want a DestructiveError", err)
	}
	if after := query[string](t, base.DatabaseURL, catalog); after != before {
		t.Errorf("something was written: before\n%s\nafter\n%s", before, after)
	}
}

func TestAForeignSchemaWithTheNameOfASampleServiceIsRefused(t *testing.T) {
	t.Parallel()
	base := appliedConfig(t)
	exec(t, base.DatabaseURL, `CREATE SCHEMA sample`, `CREATE TABLE sample.pages (id integer)`)
	_, err := schema.Apply(t.Context(), withText(base, sampleText(1, "")))
	if foreign, ok := errors.AsType[*schema.ForeignError](err); !ok || foreign.Schema != "sample" {
		t.Errorf("Apply = %v, want a ForeignError of sample", err)
	}
}

func TestAServicesSchemaDeclaresItsOwnSchemaOnly(t *testing.T) {
	t.Parallel()
	base := configFor(t, "postgres://nobody@localhost:1/nothing") // never connected to
	for name, test := range map[string]struct{ service, text, problem string }{
		"another service's schema": {"letters", sampleText(1, ""), "may declare only letters"},
		"two schemas":              {"sample", sampleText(1, "CREATE SCHEMA letters;\n"), "may declare only sample"},
		"one of schema.sql":        {"auth", "-- schema number: 1\nCREATE SCHEMA auth;\n", "both declare the schema auth"},
		"no number":                {"sample", "CREATE SCHEMA sample;\n", "sample/schema.sql"},
	} {
		cfg := base
		cfg.Own = map[string]string{test.service: test.text}
		if _, err := schema.Apply(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: Apply = %v, want %q", name, err, test.problem)
		}
	}
}
