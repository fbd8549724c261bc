package users_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/pgtest"
	"gatehouse/users"
)

// planned is a service whose statements are recorded, to be explained.
type planned struct {
	*system
	database pgtest.Database
	sent     *pgtest.Recorder
	pool     *pgxpool.Pool
}

// startPlanned has one connection, which prepares every statement. Only the test
// analyzes and vacuums profiles.
func startPlanned(t *testing.T) planned {
	t.Helper()
	p := planned{database: pgtest.New(t), sent: &pgtest.Recorder{}}
	config, err := pgxpool.ParseConfig(p.database.Users)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.Tracer = p.sent
	config.MaxConns = 1
	if p.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.pool.Close)
	p.system = start(t, users.Config{DB: p.pool})
	p.exec(t, "ALTER TABLE users.profiles SET (autovacuum_enabled = false)")
	return p
}

func (p planned) exec(t *testing.T, statements ...string) {
	t.Helper()
	conn := pgtest.Connect(t, p.database.Owner)
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// statistics is what Postgres knows of the profiles.
type statistics struct {
	name       string
	statements []string
	// With a visibility map, an index-only scan reads no table.
	vacuumed bool
}

// allStatistics are to be tried in order, with the profiles that a statement inserts.
func allStatistics(insert string) []statistics {
	return []statistics{
		{"without statistics", []string{insert}, false},
		{"with statistics of an empty table", []string{"TRUNCATE users.profiles", "ANALYZE users.profiles", insert}, false},
		{"with statistics", []string{"ANALYZE users.profiles"}, false},
		{"with statistics, vacuumed", []string{"VACUUM ANALYZE users.profiles"}, true},
	}
}
