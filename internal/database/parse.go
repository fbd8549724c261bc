// Package database opens the services' connections to Postgres. It defines the settings of
// a session, whether the server must accept writes, which errors are retried, and which
// PG… environment variables have an effect.
package database

import (
	"os"
	"regexp"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ignoredVariables are the environment variables of libpq that would change the server or
// the session although the URL names a server. The other variables only provide what the
// URL omits: host, port, user, database, password, and the files and modes of TLS.
var ignoredVariables = []string{
	"PGSERVICE", "PGOPTIONS", "PGTARGETSESSIONATTRS", "PGTZ", "PGAPPNAME", "PGCONNECT_TIMEOUT",
	"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION",
}

// socketVariables concern TLS and authentication over a network. They are ignored for a
// socket, as of the embedded Postgres, where they could only cause failures.
var socketVariables = []string{"PGSSLNEGOTIATION", "PGSSLCERTMODE", "PGSSLSNI", "PGCHANNELBINDING", "PGREQUIREAUTH"}

var namesSocket = regexp.MustCompile(`(?i)[?&\s]host=('?/|%2f)|^host=('?/|%2f)`)

// pgx can't parse without the environment, which belongs to the whole process.
var environment sync.Mutex

// withoutEnvironment runs parse without the ignored variables in the environment.
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

// ParseConfig is pgx.ParseConfig without the environment variables that would override the
// URL. It accepts and ignores the parameters of a pool, such as pool_max_conns.
func ParseConfig(url string) (*pgx.ConnConfig, error) {
	config, err := parsePoolConfig(url)
	if err != nil {
		return nil, err
	}
	return config.ConnConfig, nil
}

// parsePoolConfig is pgxpool.ParseConfig without the same environment variables.
func parsePoolConfig(url string) (config *pgxpool.Config, err error) {
	withoutEnvironment(url, func() { config, err = pgxpool.ParseConfig(url) })
	return config, err
}

// IgnoredVariables returns the names of the environment variables that have no effect, for
// the environment of a program that uses libpq.
func IgnoredVariables() []string { return slices.Clone(ignoredVariables) }
