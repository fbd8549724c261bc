// Package database opens the services' connections to Postgres, and is the one
// place that says what they rely on: the settings of a session, whether the
// server takes writes, which errors ask for another try, and what the PG…
// environment may do.
package database

import (
	"os"
	"regexp"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ignoredVariables are those of libpq's environment variables that would change
// where a URL leads or what a session does, although the URL names a server. The
// others only fill in what a URL leaves out: host, port, user, database,
// password, and the files and modes of TLS.
var ignoredVariables = []string{
	"PGSERVICE", "PGOPTIONS", "PGTARGETSESSIONATTRS", "PGTZ", "PGAPPNAME", "PGCONNECT_TIMEOUT",
	"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION",
}

// socketVariables are about TLS and signing in over a network. By a socket
// folder, which is how the embedded Postgres is reached, they could only be in
// the way.
var socketVariables = []string{"PGSSLNEGOTIATION", "PGSSLCERTMODE", "PGSSLSNI", "PGCHANNELBINDING", "PGREQUIREAUTH"}

var namesSocket = regexp.MustCompile(`(?i)[?&\s]host=('?/|%2f)|^host=('?/|%2f)`)

// pgx can't parse without the environment, which belongs to the whole process.
var environment sync.Mutex

// withoutEnvironment hides the ignored variables from the parsing of a URL.
func withoutEnvironment(url string, parse func()) {
	environment.Lock()
	defer environment.Unlock()
	hidden := ignoredVariables
	if namesSocket.MatchString(url) {
		hidden = slices.Concat(hidden, socketVariables)
	}
	for _, name := range hidden {
		if value, ok := os.LookupEnv(name); ok {
			_ = os.Unsetenv(name)
			defer os.Setenv(name, value)
		}
	}
	parse()
}

// ParseConfig is pgx.ParseConfig without the environment variables that would
// change what the URL says. It takes a pool's parameters too, such as
// pool_max_conns, which are nothing to one connection.
func ParseConfig(url string) (*pgx.ConnConfig, error) {
	config, err := parsePoolConfig(url)
	if err != nil {
		return nil, err
	}
	return config.ConnConfig, nil
}

// parsePoolConfig is pgxpool.ParseConfig, likewise.
func parsePoolConfig(url string) (config *pgxpool.Config, err error) {
	withoutEnvironment(url, func() { config, err = pgxpool.ParseConfig(url) })
	return config, err
}
