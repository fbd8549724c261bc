package schema

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// function is an SQL function that performs, as the owner of the tables, a restricted
// operation for a service whose role lacks the privilege. Atlas does not support functions,
// so they are created here, with the grants.
type function struct {
	name      string // without its schema, functionSchema
	arguments string // their types
	header    string // their names and types, and the result
	body      string
}

// functionSchema is the schema of the functions, and the service that may call them.
const functionSchema = "auth"

// auth may insert into and read its audit log; these functions are the only way to change it.
var functions = []function{
	{
		// An event's ID begins with its time in milliseconds (UUIDv7), so the primary key
		// serves as the index. A call deletes at most 10,000 rows; the caller repeats it
		// until it deletes fewer.
		name: "prune_audit", arguments: "interval",
		header: "(keep interval) RETURNS bigint",
		body: `
	WITH oldest AS (
		SELECT now() - greatest(coalesce(keep, '30 days'), '30 days') AS kept
	), old AS (
		SELECT e.id FROM auth.audit_events e
		WHERE e.id < (SELECT lpad(to_hex(floor(extract(epoch FROM kept) * 1000)::bigint), 12, '0') || repeat('0', 20) FROM oldest)::uuid
			AND e.create_time < (SELECT kept FROM oldest)
		ORDER BY e.id LIMIT 10000
	), gone AS (
		DELETE FROM auth.audit_events e USING old WHERE e.id = old.id RETURNING e.id
	)
	SELECT count(*) FROM gone`,
	},
	{
		// Actions of the account, and actions on it without an actor, are attributed to its
		// person, so their client info is erased. That of an administrator who acted on the
		// account is kept. The names of changed attributes are erased for all actors.
		name: "erase_audit", arguments: "uuid",
		header: "(account uuid) RETURNS bigint",
		body: `
	WITH erased AS (
		UPDATE auth.audit_events e SET
			ip_address = CASE WHEN e.actor_id = account OR e.actor_id IS NULL THEN '' ELSE e.ip_address END,
			user_agent = CASE WHEN e.actor_id = account OR e.actor_id IS NULL THEN '' ELSE e.user_agent END,
			changed = CASE WHEN e.account_id = account THEN '{}' ELSE e.changed END
		WHERE ((e.actor_id = account OR e.account_id = account AND e.actor_id IS NULL)
				AND (e.ip_address <> '' OR e.user_agent <> '')
				OR e.account_id = account AND e.changed <> '{}')
			AND NOT EXISTS (SELECT FROM auth.accounts a WHERE a.id = account)
		RETURNING e.id
	)
	SELECT count(*) FROM erased`,
	},
	{
		// The event that already records a refusal of the same kind, account or network,
		// and minute counts the further ones.
		name: "count_refusal", arguments: "bytea, timestamp with time zone",
		header: "(key bytea, minute timestamp with time zone) RETURNS bigint",
		body: `
	WITH counted AS (
		UPDATE auth.audit_events e SET count = e.count + 1
		WHERE e.refusal_key = key AND e.refusal_minute = minute AND e.count < 2147483647
		RETURNING e.id
	)
	SELECT count(*) FROM counted`,
	},
}

func (f function) signature() string { return functionSchema + "." + f.name + "(" + f.arguments + ")" }

// functionPath keeps a caller from substituting tables or operators in a function, which
// runs with the privileges of its owner.
const functionPath = "pg_catalog, pg_temp"

// selectFunctionDiffers compares the definition, the grants and the owner of a function with
// those that the statements below create.
const selectFunctionDiffers = `
SELECT NOT EXISTS (
	SELECT FROM pg_catalog.pg_proc p
	JOIN pg_catalog.pg_class c ON c.oid = to_regclass('auth.audit_events') AND c.relowner = p.proowner
	WHERE p.oid = to_regprocedure($1)
		AND p.prosrc = $2 AND p.prosecdef
		AND p.proconfig = ARRAY['search_path=' || $3]
		AND '(' || pg_get_function_arguments(p.oid) || ') RETURNS ' || pg_get_function_result(p.oid) = $4
		AND (
			SELECT array_agg(coalesce(r.rolname, '') ORDER BY r.rolname)
			FROM aclexplode(p.proacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
			WHERE a.privilege_type = 'EXECUTE' AND a.grantee <> p.proowner
		) = ARRAY[$5::name]
)`

const selectAuditOwner = `
SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = to_regclass('auth.audit_events')
UNION ALL
SELECT current_user LIMIT 1`

// functionChanges returns the statements that create the functions that are missing or
// differ, and grant them to auth's role only.
func (t *target) functionChanges(ctx context.Context) ([]statement, error) {
	i := slices.IndexFunc(t.roles, func(r serviceRole) bool { return r.service == functionSchema })
	if i < 0 {
		return nil, nil
	}
	role := t.roles[i]
	var owner string
	if err := t.tx.QueryRowContext(ctx, selectAuditOwner).Scan(&owner); err != nil {
		return nil, fmt.Errorf("read the owner of the audit log: %w", err)
	}
	var changes []statement
	for _, f := range functions {
		var differs bool
		err := t.tx.QueryRowContext(ctx, selectFunctionDiffers, f.signature(), f.body, functionPath, f.header, role.Name).Scan(&differs)
		if err != nil {
			return nil, fmt.Errorf("read the function %s: %w", f.name, err)
		}
		if !differs {
			continue
		}
		for _, line := range f.statements(role.ident()) {
			changes = append(changes, statement{sql: line, text: line})
		}
		if owner != t.user {
			line := "ALTER FUNCTION " + f.signature() + " OWNER TO " + pgx.Identifier{owner}.Sanitize()
			changes = append(changes, statement{sql: line, text: line})
		}
	}
	return changes, nil
}

// statements returns the statements that replace the function. They run in one transaction,
// so no other session sees the function missing.
func (f function) statements(role string) []string {
	return []string{
		"DROP FUNCTION IF EXISTS " + f.signature(),
		"CREATE FUNCTION " + functionSchema + "." + f.name + f.header + " LANGUAGE sql SECURITY DEFINER SET search_path = " + functionPath +
			" AS $function$" + f.body + "$function$",
		"REVOKE ALL ON FUNCTION " + f.signature() + " FROM PUBLIC",
		"GRANT EXECUTE ON FUNCTION " + f.signature() + " TO " + role,
	}
}
