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
	"gatehouse/internal/schema/auditlog"
)

// Reader is the service name, for RoleName, of the read-only login role for people. The role
// is created only if Config.Reader is set.
const Reader = "reader"

// The reader is granted columns by type. Columns of type bytea hold hashes and encrypted
// values: they are hidden, except those of applied_schema and readableBytes. Columns of
// other types are visible, except secretTexts.

// readerSettings limit abandoned sessions: an idle transaction blocks vacuum. The grants
// alone restrict access.
var readerSettings = []database.Setting{
	{Name: "default_transaction_read_only", Value: "on"},
	{Name: "idle_in_transaction_session_timeout", Value: "1min"},
	{Name: "statement_timeout", Value: "1min"},
}

// readerColumns returns a query of all columns and whether the reader may read each.
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
	WHERE n.nspname IN (` + literals(services) + `) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND NOT ` + auditlog.IsClosed
}

func literals(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = literal(s)
	}
	return strings.Join(quoted, ", ")
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// readReader reads the role of the reader, if one is configured.
func (t *target) readReader(ctx context.Context) error {
	if t.Reader == (Role{}) {
		return nil
	}
	r := &serviceRole{Role: t.Reader, service: Reader}
	if r.Name == "" {
		r.Name = RoleName(t.database, Reader)
	}
	if r.Name == t.user || slices.ContainsFunc(t.roles, func(other serviceRole) bool { return other.Name == r.Name }) {
		return fmt.Errorf("the role %s can change tables, so it can't be the read-only login role. Name another role", r.Name)
	}
	if err := t.readRole(ctx, r); err != nil {
		return fmt.Errorf("read the role %s: %w", r.Name, err)
	}
	t.reader = r
	return nil
}

// readerChanges returns the statements for the reader. regrant reports that tables or roles
// will be created.
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

// readerGrants returns statements that revoke all privileges of the reader and grant it the
// columns. The list of columns is read on execution, after new tables were created.
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

// selectReaderDiffers compares the privileges of the reader with those that readerGrants
// grants.
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

const selectReaderExcessGrant = `
SELECT nspname || '.' || relname || '.' || attname
FROM (%s) columns
WHERE has_column_privilege($1, oid, attnum, 'INSERT') OR has_column_privilege($1, oid, attnum, 'UPDATE')
	OR has_table_privilege($1, oid, 'DELETE') OR NOT readable AND has_column_privilege($1, oid, attnum, 'SELECT')
LIMIT 1`

// checkReaderMemberships returns an error if the reader has privileges as a member of another
// role, which readerGrants does not revoke.
func (t *target) checkReaderMemberships(ctx context.Context) error {
	if t.reader == nil {
		return nil
	}
	var column string
	err := t.tx.QueryRowContext(ctx, fmt.Sprintf(selectReaderExcessGrant, readerColumns(t.services)), t.reader.Name).Scan(&column)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the grants of %s: %w", t.reader.Name, err)
	}
	return fmt.Errorf("the role %s has access to %s as a member of another role: revoke that membership", t.reader.Name, column)
}
