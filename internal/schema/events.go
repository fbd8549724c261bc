package schema

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Triggers write the events of webhooks, so that they miss no fact by any version of auth,
// and cost no statement of a service. They are deferred to the end of the transaction, where
// the account has its final version, or is gone with everything that belonged to it.

// eventsTable declares the table of the events. A schema.sql without it, an older one, has no
// triggers.
const eventsTable = "CREATE TABLE auth.events "

// eventTables are the tables whose changes are facts, with the changes.
var eventTables = []struct{ table, changes string }{
	{"auth.accounts", "INSERT OR DELETE OR UPDATE OF email, email_verified, status, roles"},
	{"auth.sessions", "INSERT OR UPDATE OF revoke_time"},
	{"auth.totp_factors", "INSERT OR DELETE OR UPDATE OF create_time"},
	{"auth.passkeys", "INSERT OR DELETE"},
	{"auth.identities", "INSERT OR DELETE"},
	{"auth.api_keys", "INSERT OR DELETE OR UPDATE OF revoke_time"},
}

// writeEventBody is the function of the triggers. It runs with the rights of the role that
// makes the change.
//
//go:embed write_event.sql
var writeEventBody string

const (
	writeEventHead     = `CREATE OR REPLACE FUNCTION auth.write_event() RETURNS trigger LANGUAGE plpgsql SET search_path = ` + functionPath
	dropEventTrigger   = `DROP TRIGGER IF EXISTS events ON %s`
	createEventTrigger = `CREATE CONSTRAINT TRIGGER events AFTER %[2]s ON %[1]s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION auth.write_event()`
)

const selectEventTriggerDiffers = `
SELECT NOT EXISTS (
	SELECT FROM pg_catalog.pg_trigger g
	JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
	JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
	WHERE g.tgrelid = to_regclass($1) AND g.tgname = 'events' AND g.tgenabled = 'O'
		AND pg_get_triggerdef(g.oid) = $2
		AND p.oid = to_regprocedure('auth.write_event()') AND p.prosrc = $3 AND NOT p.prosecdef
		AND p.proconfig = ARRAY['search_path=' || $4] AND p.proowner = c.relowner
		AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee <> p.proowner)
)`

// eventChanges returns the statements that create the triggers of the events, if one of
// them is missing or differs.
func (t *target) eventChanges(ctx context.Context) ([]statement, error) {
	if !strings.Contains(t.SQL, eventsTable) {
		return nil, nil
	}
	differ := false
	for _, on := range eventTables {
		var differs bool
		trigger := fmt.Sprintf(createEventTrigger, on.table, on.changes)
		if err := t.tx.QueryRowContext(ctx, selectEventTriggerDiffers, on.table, trigger, writeEventBody, functionPath).Scan(&differs); err != nil {
			return nil, fmt.Errorf("read the trigger of the events of %s: %w", on.table, err)
		}
		differ = differ || differs
	}
	if !differ {
		return nil, nil
	}
	var owner string
	if err := t.tx.QueryRowContext(ctx, selectAccountsOwner).Scan(&owner); err != nil {
		return nil, fmt.Errorf("read the owner of the accounts: %w", err)
	}
	var lines []string
	for _, on := range eventTables {
		lines = append(lines, fmt.Sprintf(dropEventTrigger, on.table))
	}
	lines = append(lines,
		"DROP FUNCTION IF EXISTS auth.write_event()",
		writeEventHead+" AS $function$"+writeEventBody+"$function$",
		"REVOKE ALL ON FUNCTION auth.write_event() FROM PUBLIC",
	)
	for _, on := range eventTables {
		lines = append(lines, fmt.Sprintf(createEventTrigger, on.table, on.changes))
	}
	if owner != t.user {
		lines = append(lines, "ALTER FUNCTION auth.write_event() OWNER TO "+pgx.Identifier{owner}.Sanitize())
	}
	var changes []statement
	for _, line := range lines {
		changes = append(changes, statement{sql: line, text: line})
	}
	return changes, nil
}
