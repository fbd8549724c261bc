package schema

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/internal/database"
)

// SQLSTATEs (Postgres, appendix A) with an error text of their own.
const (
	invalidPassword       = "28P01"
	invalidAuthorization  = "28000"
	invalidCatalogName    = "3D000"
	undefinedTable        = "42P01"
	duplicateTable        = "42P07"
	deadlockDetected      = "40P01"
	insufficientPrivilege = "42501"
	lockNotAvailable      = "55P03"
	tooManyConnections    = "53300"
)

func hasCode(err error, codes ...string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}

func connectError(err error) error {
	switch {
	case errors.Is(err, database.ErrReadOnly):
		return fmt.Errorf("%w: name the server that takes writes in DATABASE_URL", err)
	case hasCode(err, invalidCatalogName):
		return fmt.Errorf("the database doesn't exist: create it with createdb: %w", err)
	case hasCode(err, invalidPassword, invalidAuthorization):
		return fmt.Errorf("the server refuses the user or the password: %w", err)
	case hasCode(err):
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	return fmt.Errorf("the server can't be reached: check that Postgres runs, and its address: %w", err)
}

func executeError(s statement, err error) error {
	switch {
	case hasCode(err, lockNotAvailable):
		return fmt.Errorf("another transaction held a lock on a table in ten attempts of 2 s. Nothing was changed. End that transaction (see pg_stat_activity) and try again: execute %q: %w", s.text, err)
	case hasCode(err, insufficientPrivilege):
		return fmt.Errorf("the user of DATABASE_URL lacks the privilege: execute %q: %w", s.text, err)
	}
	return fmt.Errorf("execute %q: %w", s.text, err)
}

func scratchError(err error) error {
	if hasCode(err, insufficientPrivilege) {
		return fmt.Errorf("the comparison needs a scratch database: grant CREATEDB to the user of DATABASE_URL, or name an empty database in ATLAS_DEV_URL: %w", err)
	}
	return fmt.Errorf("create a scratch database: %w", err)
}
