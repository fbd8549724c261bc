package schema

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/schema/auditlog"
)

// functionSchema is the schema of the functions, and the service that may call them.
const functionSchema = "auth"

// functionPath keeps a caller from substituting tables or operators in a function, which
// runs with the privileges of its owner.
const functionPath = "pg_catalog, pg_temp"

// selectFunctionDiffers compares the definition, the grants and the owner of a function with
// those that Function.Statements creates.
const selectFunctionDiffers = `
SELECT NOT EXISTS (
	SELECT FROM pg_catalog.pg_proc p
	JOIN pg_catalog.pg_class c ON c.oid = to_regclass('auth.audit_events') AND c.relowner = p.proowner
	WHERE p.oid = to_regprocedure($1)
		AND p.prosrc = $2 AND p.prosecdef
		AND p.proconfig = $3::text[] AND (SELECT l.lanname FROM pg_catalog.pg_language l WHERE l.oid = p.prolang) = $6
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

// functionChanges returns the statements that create the functions of the audit log that are
// missing or differ, and grant them to auth's role only. Atlas does not support functions.
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
	for _, f := range auditlog.Functions {
		var differs bool
		err := t.tx.QueryRowContext(ctx, selectFunctionDiffers, f.Signature(), f.Body, f.Config(functionPath), f.Header, role.Name, f.Language()).Scan(&differs)
		if err != nil {
			return nil, fmt.Errorf("read the function %s: %w", f.Name, err)
		}
		if !differs {
			continue
		}
		for _, line := range f.Statements(role.ident(), functionPath) {
			changes = append(changes, statement{sql: line, text: line})
		}
		if owner != t.user {
			line := "ALTER FUNCTION " + f.Signature() + " OWNER TO " + pgx.Identifier{owner}.Sanitize()
			changes = append(changes, statement{sql: line, text: line})
		}
	}
	return changes, nil
}
