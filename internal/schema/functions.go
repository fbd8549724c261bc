package schema

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// function does for a service what its role may not do itself. It runs as the
// owner of the tables. Atlas doesn't see functions, so they are created here, with
// the grants.
type function struct {
	name      string // without its schema, functionSchema
	arguments string // their types
	header    string // their names and types, and the result
	body      string
}

// functionSchema is the service that has the functions.
const functionSchema = "auth"

// The audit can't be changed by the service that writes it, but for these.
var functions = []function{
	{
		// An event's id begins with its time in milliseconds (UUIDv7), so that
		// the primary key serves. At most 10,000 rows go at a time: the caller
		// repeats it until fewer do.
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
		// What an account did, and what was done to it by who was not signed in,
		// came from its person. An administrator's own traces stay. The names of
		// attributes go too, also where an administrator changed them.
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
		// A refusal of a kind, account or network and minute that is there
		// already is counted there.
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

// Its rights are its owner's, so nobody may have it find other tables or
// operators than its own.
const functionPath = "pg_catalog, pg_temp"

// A function is as it should be if it says, may and belongs to what the statements
// below say.
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

// functionChanges are the statements that make the functions that are missing or
// not as they should be, and give them to auth's role alone.
func (t *target) functionChanges(ctx context.Context) ([]statement, error) {
	i := slices.IndexFunc(t.roles, func(r serviceRole) bool { return r.service == functionSchema })
	if i < 0 {
		return nil, nil
	}
	role := t.roles[i]
	var owner string
	if err := t.tx.QueryRowContext(ctx, selectAuditOwner).Scan(&owner); err != nil {
		return nil, fmt.Errorf("read who owns the audit: %w", err)
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

// statements replace the function. Within the transaction, no other session finds
// it missing.
func (f function) statements(role string) []string {
	return []string{
		"DROP FUNCTION IF EXISTS " + f.signature(),
		"CREATE FUNCTION " + functionSchema + "." + f.name + f.header + " LANGUAGE sql SECURITY DEFINER SET search_path = " + functionPath +
			" AS $function$" + f.body + "$function$",
		"REVOKE ALL ON FUNCTION " + f.signature() + " FROM PUBLIC",
		"GRANT EXECUTE ON FUNCTION " + f.signature() + " TO " + role,
	}
}
