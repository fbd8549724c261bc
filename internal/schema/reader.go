package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// Reader is what RoleName calls the login role of people who look at the tables.
// It is made only when Config.Reader is given.
const Reader = "reader"

// The reader is granted single columns, so that a new column is hidden until
// somebody decides otherwise: of type bytea, in which hashes and sealed values are
// kept, the reader gets the hashes of applied_schema and those of readableBytes
// only; of the other types all but secretTexts.

// readerSettings end what a person has left open: an idle transaction keeps
// Postgres from cleaning up. What the reader may do, its grants say.
var readerSettings = []database.Setting{
	{Name: "default_transaction_read_only", Value: "on"},
	{Name: "idle_in_transaction_session_timeout", Value: "1min"},
	{Name: "statement_timeout", Value: "1min"},
}

// readerColumns is a query of every column, and whether the reader is granted it.
func readerColumns(services []string) string {
	return `
	SELECT n.nspname, c.oid, c.relname, c.relacl, a.attname, a.attnum, a.attacl,
		CASE a.atttypid WHEN 'bytea'::regtype
			THEN c.relname = 'applied_schema' OR n.nspname || '.' || c.relname || '.' || a.attname IN (` + literals(readableBytes) + `)
			ELSE n.nspname || '.' || c.relname || '.' || a.attname NOT IN (` + literals(secretTexts) + `)
		END AS readable
	FROM pg_catalog.pg_attribute a
	JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname IN (` + literals(services) + `) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped`
}

func literals(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = literal(s)
	}
	return strings.Join(quoted, ", ")
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// readReader reads the role of the reader, if there is to be one.
func (t *target) readReader(ctx context.Context) error {
	if t.Reader == (Role{}) {
		return nil
	}
	r := &serviceRole{Role: t.Reader, service: Reader}
	if r.Name == "" {
		r.Name = RoleName(t.database, Reader)
	}
	if r.Name == t.user || slices.ContainsFunc(t.roles, func(other serviceRole) bool { return other.Name == r.Name }) {
		return fmt.Errorf("the role %s can change tables, and can't be the login role that only reads as well", r.Name)
	}
	if err := t.readRole(ctx, r); err != nil {
		return fmt.Errorf("read the role %s: %w", r.Name, err)
	}
	t.reader = r
	return nil
}

// readerChanges are the statements for the reader; regrant tells that tables are
// still to come.
func (t *target) readerChanges(ctx context.Context, regrant bool) ([]statement, error) {
	if t.reader == nil {
		return nil, nil
	}
	changes, err := t.reader.changes()
	if err != nil {
		return nil, err
	}
	if regrant = regrant || !t.reader.exists; !regrant {
		if regrant, err = t.readerDiffers(ctx); err != nil {
			return nil, err
		}
	}
	if regrant {
		changes = append(changes, t.readerGrants()...)
	}
	return changes, nil
}

// readerGrants take everything from the reader and give it the columns. Which
// ones there are is asked when it is executed, since tables may be made before.
func (t *target) readerGrants() []statement {
	role, name, schemas := t.reader.ident(), pgx.Identifier{t.database}.Sanitize(), identifiers(t.services)
	lines := []string{
		"REVOKE ALL ON SCHEMA " + schemas + " FROM " + role,
		"REVOKE ALL ON ALL TABLES IN SCHEMA " + schemas + " FROM " + role,
		"REVOKE ALL ON ALL SEQUENCES IN SCHEMA " + schemas + " FROM " + role,
		"GRANT CONNECT ON DATABASE " + name + " TO " + role,
		"GRANT USAGE ON SCHEMA " + schemas + " TO " + role,
	}
	for _, setting := range readerSettings {
		lines = append(lines, "ALTER ROLE "+role+" IN DATABASE "+name+" SET "+setting.Name+" = "+literal(setting.Value))
	}
	body := `
DECLARE grants text;
BEGIN
	FOR grants IN
		SELECT format('GRANT SELECT (%s) ON %I.%I TO %I', string_agg(quote_ident(attname), ', ' ORDER BY attnum), nspname, relname, ` + literal(t.reader.Name) + `)
		FROM (` + readerColumns(t.services) + `) columns WHERE readable GROUP BY nspname, relname
	LOOP
		EXECUTE grants;
	END LOOP;
END`
	lines = append(lines, "DO "+literal(body))
	statements := make([]statement, len(lines))
	for i, line := range lines {
		statements[i] = statement{sql: line, text: line}
	}
	return statements
}

// Privileges of the reader as the catalog holds them, compared with those that
// readerGrants gives.
const selectReaderDiffers = `
WITH reader AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1), columns AS (%s)
SELECT EXISTS (
	SELECT FROM columns, reader
	WHERE CASE WHEN readable THEN 'SELECT' ELSE '' END <> (
		SELECT coalesce(string_agg(a.privilege_type, ',' ORDER BY a.privilege_type), '') FROM aclexplode(attacl) a WHERE a.grantee = reader.oid
	) OR EXISTS (SELECT FROM aclexplode(relacl) a WHERE a.grantee = reader.oid)
) OR EXISTS (
	SELECT FROM pg_catalog.pg_namespace, reader
	WHERE nspname = ANY ($3::text[]) AND 'USAGE' IS DISTINCT FROM (
		SELECT string_agg(a.privilege_type, ',') FROM aclexplode(nspacl) a WHERE a.grantee = reader.oid
	)
) OR EXISTS (
	SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a, reader
	WHERE n.nspname = ANY ($3::text[]) AND c.relkind NOT IN ('r', 'p') AND a.grantee = reader.oid
) OR NOT EXISTS (
	SELECT FROM reader
	JOIN pg_catalog.pg_db_role_setting s ON s.setrole = reader.oid AND s.setconfig @> $2::text[]
	JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
	WHERE has_database_privilege(reader.oid, current_database(), 'CONNECT')
)`

func (t *target) readerDiffers(ctx context.Context) (bool, error) {
	var lines []string
	for _, setting := range readerSettings {
		lines = append(lines, setting.Name+"="+setting.Value)
	}
	var differ bool
	if err := t.tx.QueryRowContext(ctx, fmt.Sprintf(selectReaderDiffers, readerColumns(t.services)), t.reader.Name, lines, t.services).Scan(&differ); err != nil {
		return false, fmt.Errorf("read the grants of %s: %w", t.reader.Name, err)
	}
	return differ, nil
}

const selectReaderReach = `
SELECT nspname || '.' || relname || '.' || attname
FROM (%s) columns
WHERE has_column_privilege($1, oid, attnum, 'INSERT') OR has_column_privilege($1, oid, attnum, 'UPDATE')
	OR has_table_privilege($1, oid, 'DELETE') OR NOT readable AND has_column_privilege($1, oid, attnum, 'SELECT')
LIMIT 1`

// checkReaderReach finds what revoking from the reader itself can't take away.
func (t *target) checkReaderReach(ctx context.Context) error {
	if t.reader == nil {
		return nil
	}
	var column string
	err := t.tx.QueryRowContext(ctx, fmt.Sprintf(selectReaderReach, readerColumns(t.services)), t.reader.Name).Scan(&column)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the grants of %s: %w", t.reader.Name, err)
	}
	return fmt.Errorf("the role %s reaches %s as a member of another role: revoke that membership", t.reader.Name, column)
}
