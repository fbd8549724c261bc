package schema_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ariga.io/atlas/schemahcl"
	"ariga.io/atlas/sql/postgres"
	atlas "ariga.io/atlas/sql/schema"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// The Atlas CLI reads atlas.hcl, which must lead to the same tables as Apply.
func TestAtlasHCLMatchesApply(t *testing.T) {
	t.Parallel()
	cfg := pgtest.SchemaConfig(t, pgtest.Empty(t))
	services, err := cfg.Services()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, cfg)
	environment := map[string]string{"DATABASE_URL": cfg.DatabaseURL, "ATLAS_DEV_URL": pgtest.Empty(t)}

	var project struct {
		Envs []*struct {
			Name    string   `spec:"name,name"`
			Src     []string `spec:"src"`
			URL     string   `spec:"url"`
			Dev     string   `spec:"dev"`
			Schemas []string `spec:"schemas"`
			Exclude []string `spec:"exclude"`
		} `spec:"env"`
	}
	getenv := function.New(&function.Spec{
		Params: []function.Parameter{{Name: "name", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.StringVal(environment[args[0].AsString()]), nil
		},
	})
	root := filepath.Join("..", "..")
	state := schemahcl.New(schemahcl.WithFunctions(map[string]function.Function{"getenv": getenv}))
	if err := state.EvalFiles([]string{filepath.Join(root, "atlas.hcl")}, &project, nil); err != nil {
		t.Fatal(err)
	}
	if len(project.Envs) != 1 || project.Envs[0].Name != "local" {
		t.Fatalf("atlas.hcl has the %d environments, want one named local", len(project.Envs))
	}
	env := project.Envs[0]
	if env.URL != environment["DATABASE_URL"] || env.Dev != environment["ATLAS_DEV_URL"] {
		t.Errorf("atlas.hcl's url and dev are %q and %q, want those of the environment", env.URL, env.Dev)
	}
	if slices.Sort(services); !slices.Equal(slices.Sorted(slices.Values(env.Schemas)), services) {
		t.Errorf("atlas.hcl's schemas are %q, want %q", env.Schemas, services)
	}
	wantClosedTablesExcluded(t, cfg, env.Schemas, env.Exclude)
	read := schema.Config{DatabaseURL: env.URL, DevURL: env.Dev, TablesOnly: true, Own: map[string]string{}}
	for _, src := range env.Src {
		file, ok := strings.CutPrefix(src, "file://")
		if !ok {
			t.Fatalf("atlas.hcl's src has %q, want a file", src)
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if folder := filepath.Dir(file); folder != "." {
			read.Own[folder] = string(text)
		} else {
			read.SQL = string(text)
		}
	}
	wantNothingPlanned(t, read)
}

// wantClosedTablesExcluded closes the audit log, and inspects the tables as the CLI does. It
// would drop a table that schema.sql does not declare.
func wantClosedTablesExcluded(t *testing.T, cfg schema.Config, schemas, exclude []string) {
	t.Helper()
	owner := pgtest.Connect(t, cfg.DatabaseURL)
	insert(t, owner, lastMonth, "old")
	if closeAudit(t, owner) == "" {
		t.Fatal("no table was closed")
	}
	conn, err := pgx.ParseConfig(cfg.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*conn)
	defer db.Close()
	driver, err := postgres.Open(db)
	if err != nil {
		t.Fatal(err)
	}
	realm, err := driver.InspectRealm(t.Context(), &atlas.InspectRealmOption{Schemas: schemas, Exclude: exclude})
	if err != nil {
		t.Fatal(err)
	}
	var audit []string
	for _, one := range realm.Schemas {
		for _, table := range one.Tables {
			if strings.HasPrefix(table.Name, "audit_events") {
				audit = append(audit, table.Name)
			}
		}
	}
	if !slices.Equal(audit, []string{"audit_events"}) {
		t.Errorf("the CLI sees the tables %q, want the open one", audit)
	}
}
