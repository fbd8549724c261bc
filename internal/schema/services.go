package schema

import (
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

var schemaLine = regexp.MustCompile(`(?m)^CREATE SCHEMA ([a-z][a-z0-9_]*);`)

// Services returns the services that the text of a schema.sql declares. Each has a schema of
// its name with a table applied_schema.
func Services(text string) ([]string, error) {
	var names []string
	for _, found := range schemaLine.FindAllStringSubmatch(text, -1) {
		names = append(names, found[1])
	}
	if len(names) == 0 {
		return nil, errors.New("schema.sql declares no schema: it needs a line like 'CREATE SCHEMA auth;'")
	}
	return names, nil
}

// Rules for tables and columns, as schema.table and schema.table.column. By default a service
// may change all rows of its tables.
var (
	// appendOnly are the tables whose rows a service may neither update nor delete.
	appendOnly = []string{"auth.audit_events"}
	// readableBytes are the columns of type bytea that the reader may read.
	readableBytes = []string{"auth.signing_keys.public_key", "auth.audit_events.refusal_key"}
	// secretTexts are the columns of other types that the reader may not read.
	secretTexts = []string{"auth.accounts.password_hash", "auth.accounts.factor_password_hash"}
)

// identifiers returns an SQL list of the services' schemas.
func identifiers(services []string) string {
	quoted := make([]string, len(services))
	for i, service := range services {
		quoted[i] = pgx.Identifier{service}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}

// selectApplied returns a query of columns of the table applied_schema of every service.
func selectApplied(services []string, columns string) string {
	selects := make([]string, len(services))
	for i, service := range services {
		selects[i] = "SELECT " + columns + " FROM " + pgx.Identifier{service, "applied_schema"}.Sanitize()
	}
	return strings.Join(selects, " UNION ALL ")
}
