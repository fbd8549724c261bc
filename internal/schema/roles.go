package schema

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"golang.org/x/text/secure/precis"

	"gatehouse/internal/database"
	"gatehouse/internal/schema/auditlog"
)

// Role is the login role of a service. It has access to the schema of its service only.
type Role struct {
	// Name is the name of the role; RoleName(database, service) if it is empty.
	Name string
	// Password is set when the role is created, and when the role can't log in with it. If
	// it is empty, the password stays as it is.
	Password string
}

// Postgres truncates longer names.
const maxNameBytes = 63

// RoleName returns the default name of a service's login role. Roles belong to a whole
// server, so the name contains that of the database, truncated and hashed if it is too
// long.
func RoleName(database, service string) string {
	name := database + "_" + service
	if len(name) <= maxNameBytes {
		return name
	}
	sum := sha256.Sum256([]byte(database))
	tail := "_" + hex.EncodeToString(sum[:4]) + "_" + service
	head := database[:maxNameBytes-len(tail)]
	for !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	return head + tail
}

// serviceRole is a Role and its state in the database.
type serviceRole struct {
	Role
	service string
	exists  bool
	// attributes are the attributes to set.
	attributes []string
	// passwordValid reports that the password need not be set. It is valid after the
	// passwordChecks of the target.
	passwordValid bool
}

func (r serviceRole) ident() string { return pgx.Identifier{r.Name}.Sanitize() }

// applyRoles creates or corrects the roles, grants and functions.
func (t *target) applyRoles(ctx context.Context) ([]string, error) {
	changes, err := t.roleChanges(ctx, false)
	if err != nil || len(changes) == 0 {
		return nil, err
	}
	if err := t.execute(ctx, changes); err != nil {
		return nil, err
	}
	return texts(changes), errors.Join(t.checkMemberships(ctx), t.checkReaderMemberships(ctx))
}

// roleChanges returns the statements of applyRoles, which run after all tables were created.
// regrant reports that tables will be created.
func (t *target) roleChanges(ctx context.Context, regrant bool) ([]statement, error) {
	if t.TablesOnly {
		return nil, nil
	}
	t.passwordChecks.Wait()
	var changes []statement
	for _, r := range t.roles {
		change, err := r.changes()
		if err != nil {
			return nil, err
		}
		changes = append(changes, change...)
		regrant = regrant || !r.exists
	}
	if !regrant {
		var err error
		if regrant, err = t.grantsDiffer(ctx); err != nil {
			return nil, err
		}
	}
	if regrant {
		// A table that is closed after the list was read would get the privileges of the open one.
		if err := auditlog.HoldOpen(ctx, t.tx); err != nil {
			return nil, err
		}
		closed, err := auditlog.Closed(ctx, t.tx, t.services)
		if err != nil {
			return nil, err
		}
		changes = append(changes, t.grants(closed)...)
	}
	reader, err := t.readerChanges(ctx, regrant)
	if err != nil {
		return nil, err
	}
	functions, err := t.functionChanges(ctx)
	if err != nil {
		return nil, err
	}
	accountLog, err := t.accountLogChanges(ctx)
	if err != nil {
		return nil, err
	}
	events, err := t.eventChanges(ctx)
	return slices.Concat(changes, reader, functions, accountLog, events), err
}

const selectRole = `
SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls
FROM pg_catalog.pg_roles
WHERE rolname = $1`

// readRoles reads the roles of the services. It starts goroutines that check their passwords,
// for which roleChanges waits.
func (t *target) readRoles(ctx context.Context) error {
	if t.TablesOnly {
		return nil
	}
	t.roles = nil
	for _, service := range t.services {
		t.roles = append(t.roles, serviceRole{Role: t.Roles[service], service: service})
	}
	for i := range t.roles {
		r := &t.roles[i]
		if r.Name == "" {
			r.Name = RoleName(t.database, r.service)
		}
		if r.Name == t.user {
			return fmt.Errorf("the role %s owns the tables, so it can't be the login role of %s. Name another role", r.Name, r.service)
		}
		for _, other := range t.roles[:i] {
			if r.Name == other.Name {
				return fmt.Errorf("%s and %s have the same login role %s: name one for each", other.service, r.service, r.Name)
			}
		}
	}
	for i := range t.roles {
		if err := t.readRole(ctx, &t.roles[i]); err != nil {
			return fmt.Errorf("read the role %s: %w", t.roles[i].Name, err)
		}
	}
	return t.readReader(ctx)
}

func (t *target) readRole(ctx context.Context, r *serviceRole) error {
	var login, super, createDB, createRole, replication, bypass bool
	err := t.tx.QueryRowContext(ctx, selectRole, r.Name).Scan(&login, &super, &createDB, &createRole, &replication, &bypass)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	r.exists = true
	for _, a := range []struct {
		wrong     bool
		attribute string
	}{
		{!login, "LOGIN"},
		{super, "NOSUPERUSER"},
		{createDB, "NOCREATEDB"},
		{createRole, "NOCREATEROLE"},
		{replication, "NOREPLICATION"},
		{bypass, "NOBYPASSRLS"},
	} {
		if a.wrong {
			r.attributes = append(r.attributes, a.attribute)
		}
	}
	t.passwordChecks.Go(func() { r.passwordValid = r.Password == "" || t.canSignIn(ctx, r.Role) })
	return nil
}

// canSignIn checks a password by logging in. Only superusers can read the stored verifier,
// and a copy of ours would miss a manual change.
func (t *target) canSignIn(ctx context.Context, r Role) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cfg := t.conn.Copy()
	cfg.User, cfg.Password = r.Name, r.Password
	cfg.ValidateConnect = nil // the reader's sessions are read-only, which is no reason to set the password
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		// Postgres returns these after it accepted the password, or without checking it.
		// After any other error, setting the password does no harm.
		return hasCode(err, insufficientPrivilege, tooManyConnections)
	}
	conn.Close(ctx)
	return true
}

// changes returns the statements that create or alter the role. They contain a SCRAM verifier
// instead of the password, so that no statement log contains the password.
func (r serviceRole) changes() ([]statement, error) {
	command, attributes := "ALTER ROLE ", r.attributes
	if !r.exists {
		command, attributes = "CREATE ROLE ", []string{"LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"}
	}
	command += r.ident()
	text := strings.Join(append([]string{command}, attributes...), " ")
	if r.passwordValid || r.Password == "" {
		if len(attributes) == 0 {
			return nil, nil
		}
		return []statement{{sql: text, text: text}}, nil
	}
	verifier, err := scramVerifier(r.Password)
	if err != nil {
		return nil, err
	}
	return []statement{{sql: text + " PASSWORD '" + verifier + "'", text: text + " PASSWORD '********'"}}, nil
}

// scramVerifier returns the verifier that Postgres stores for a password (RFC 5803, RFC
// 7677).
func scramVerifier(password string) (string, error) {
	if p, err := precis.OpaqueString.String(password); err == nil {
		password = p
	}
	const rounds = 4096
	var salt [16]byte
	rand.Read(salt[:])
	salted, err := pbkdf2.Key(sha256.New, password, salt[:], rounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive a SCRAM verifier: %w", err)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, b64(salt[:]), b64(stored[:]), b64(mac(salted, "Server Key"))), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// selectGrantsDiffer compares the privileges with those that grants returns. The role
// without a service is PUBLIC. $1 and $2 are the services and their roles, $3 the
// append-only tables, $4 and $5 services and their session settings.
const selectGrantsDiffer = `
WITH grantees (service, role) AS (
	SELECT service, r.oid FROM unnest($1::text[], $2::text[]) AS given (service, name)
	JOIN pg_catalog.pg_roles r ON r.rolname = given.name
	UNION ALL
	SELECT '', 0
), objects (schema, kind, name, acl, closed) AS (
	SELECT nspname, 'n', '', nspacl, false FROM pg_catalog.pg_namespace WHERE nspname = ANY ($1::text[])
	UNION ALL
	SELECT n.nspname, c.relkind, c.relname, c.relacl, ` + auditlog.IsClosed + `
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = ANY ($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
)
SELECT EXISTS (
	SELECT FROM objects o CROSS JOIN grantees g
	WHERE CASE
			WHEN g.service <> o.schema OR o.closed THEN ''
			WHEN o.kind IN ('n', 'S') THEN 'USAGE'
			WHEN o.name = 'applied_schema' THEN 'SELECT'
			WHEN o.schema || '.' || o.name = ANY ($3::text[]) THEN 'INSERT,SELECT'
			ELSE 'DELETE,INSERT,SELECT,UPDATE'
		END <> (
			SELECT coalesce(string_agg(a.privilege_type, ',' ORDER BY a.privilege_type), '')
			FROM aclexplode(o.acl) a
			WHERE a.grantee = g.role
		)
) OR EXISTS (
	SELECT FROM grantees g
	WHERE g.service <> '' AND NOT has_database_privilege(g.role, current_database(), 'CONNECT')
) OR EXISTS (
	SELECT FROM grantees g JOIN unnest($4::text[], $5::text[]) AS wanted (service, line) ON wanted.service = g.service
	WHERE NOT EXISTS (
		SELECT FROM pg_catalog.pg_db_role_setting s
		JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
		WHERE s.setrole = g.role AND s.setconfig @> ARRAY[wanted.line]
	)
)`

func (t *target) grantsDiffer(ctx context.Context) (bool, error) {
	var names, services, lines []string // the catalog writes a setting as name=value
	for _, r := range t.roles {
		names = append(names, r.Name)
		for _, setting := range database.SessionSettings(r.service) {
			services = append(services, r.service)
			lines = append(lines, setting.Name+"="+setting.Value)
		}
	}
	var differ bool
	err := t.tx.QueryRowContext(ctx, selectGrantsDiffer, t.services, names, appendOnly, services, lines).Scan(&differ)
	if err != nil {
		return false, fmt.Errorf("read the grants: %w", err)
	}
	return differ, nil
}

// grants returns statements that revoke all privileges of PUBLIC and of the services' roles,
// and grant each role those that its service needs. They run in one transaction, so a
// running service is not interrupted. Grants to other roles are kept.
//
// The session settings are set for the roles, which works behind a pooler too: a pooler
// refuses most settings from clients.
//
// A service has no privileges on closed tables: it reads them through the open one.
func (t *target) grants(closed [][2]string) []statement {
	name := pgx.Identifier{t.database}.Sanitize()
	all, schemas := "PUBLIC", identifiers(t.services)
	for _, r := range t.roles {
		all += ", " + r.ident()
	}
	lines := []string{
		"REVOKE ALL ON SCHEMA " + schemas + " FROM " + all,
		"REVOKE ALL ON ALL TABLES IN SCHEMA " + schemas + " FROM " + all,
		"REVOKE ALL ON ALL SEQUENCES IN SCHEMA " + schemas + " FROM " + all,
	}
	for _, r := range t.roles {
		role, schema := r.ident(), pgx.Identifier{r.service}.Sanitize()
		lines = append(lines,
			"GRANT CONNECT ON DATABASE "+name+" TO "+role,
			"GRANT USAGE ON SCHEMA "+schema+" TO "+role,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "+schema+" TO "+role,
			"GRANT USAGE ON ALL SEQUENCES IN SCHEMA "+schema+" TO "+role,
			"REVOKE INSERT, UPDATE, DELETE ON "+schema+".applied_schema FROM "+role,
		)
		for _, setting := range database.SessionSettings(r.service) {
			lines = append(lines, "ALTER ROLE "+role+" IN DATABASE "+name+" SET "+setting.Name+" = '"+setting.Value+"'")
		}
		for _, table := range appendOnly {
			if strings.HasPrefix(table, r.service+".") {
				lines = append(lines, "REVOKE UPDATE, DELETE ON "+table+" FROM "+role)
			}
		}
		for _, table := range closed {
			if table[0] == r.service {
				lines = append(lines, "REVOKE ALL ON "+pgx.Identifier(table[:]).Sanitize()+" FROM "+role)
			}
		}
	}
	statements := make([]statement, len(lines))
	for i, line := range lines {
		statements[i] = statement{sql: line, text: line}
	}
	return statements
}

const selectExcessGrant = `
SELECT r.rolname
FROM unnest($1::text[], $2::text[]) AS given (service, name)
JOIN pg_catalog.pg_roles r ON r.rolname = given.name
JOIN pg_catalog.pg_namespace n ON n.nspname = ANY ($1::text[]) AND n.nspname <> given.service
WHERE has_schema_privilege(r.oid, n.oid, 'USAGE')
LIMIT 1`

// checkMemberships returns an error if a role has access to another service's schema as a
// member of another role, which grants does not revoke.
func (t *target) checkMemberships(ctx context.Context) error {
	var role string
	var names []string
	for _, r := range t.roles {
		names = append(names, r.Name)
	}
	err := t.tx.QueryRowContext(ctx, selectExcessGrant, t.services, names).Scan(&role)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the grants: %w", err)
	}
	return fmt.Errorf("the role %s has access to another service's schema as a member of another role: revoke that membership", role)
}
