package schema

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
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
	createEventTrigger = `CREATE CONSTRAINT TRIGGER events AFTER %[2]s ON %[1]s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION auth.write_event()`
)

const selectEventTriggerDiffers = `
SELECT NOT EXISTS (
	SELECT FROM pg_catalog.pg_trigger g
	WHERE g.tgrelid = to_regclass($1) AND g.tgname = 'events' AND g.tgenabled = 'O' AND pg_get_triggerdef(g.oid) = $2
)`

// selectWriteEvent selects the owner of the function of the triggers, whether it is as
// declared, and who else may execute it; PUBLIC is the empty name.
const selectWriteEvent = `
SELECT pg_get_userbyid(p.proowner), p.prosrc = $1 AND NOT p.prosecdef AND coalesce(p.proconfig = ARRAY['search_path=' || $2], false), ARRAY(
	SELECT coalesce(r.rolname, '') FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE a.grantee <> p.proowner ORDER BY 1
)::text[]
FROM pg_catalog.pg_proc p WHERE p.oid = to_regprocedure('auth.write_event()')`

// eventChanges returns the statements that create the triggers of the events that are missing
// or differ, and their function. A trigger stays while its function is replaced: it costs no
// lock on its table.
func (t *target) eventChanges(ctx context.Context) ([]statement, error) {
	if !strings.Contains(t.SQL, eventsTable) {
		return nil, nil
	}
	changes, err := t.writeEventChanges(ctx)
	if err != nil {
		return nil, err
	}
	locks, err := t.readLocks(ctx)
	if err != nil {
		return nil, err
	}
	for _, on := range eventTables {
		var differs bool
		trigger := fmt.Sprintf(createEventTrigger, on.table, on.changes)
		if err := t.tx.QueryRowContext(ctx, selectEventTriggerDiffers, on.table, trigger).Scan(&differs); err != nil {
			return nil, fmt.Errorf("read the trigger of the events of %s: %w", on.table, err)
		}
		if differs {
			changes = append(changes, locks.dropTrigger("events", on.table), locks.createTrigger(trigger, on.table))
		}
	}
	return changes, nil
}

// writeEventChanges returns the statements for the function of the triggers.
func (t *target) writeEventChanges(ctx context.Context) ([]statement, error) {
	var tables, owner string
	if err := t.tx.QueryRowContext(ctx, selectAccountsOwner).Scan(&tables); err != nil {
		return nil, fmt.Errorf("read the owner of the accounts: %w", err)
	}
	var asDeclared bool
	var others []string
	err := t.tx.QueryRowContext(ctx, selectWriteEvent, writeEventBody, functionPath).Scan(&owner, &asDeclared, pgtype.NewMap().SQLScanner(&others))
	if errors.Is(err, sql.ErrNoRows) {
		owner, others, err = t.user, []string{""}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the function of the events: %w", err)
	}
	var lines []string
	if !asDeclared {
		lines = append(lines, writeEventHead+" AS $function$"+writeEventBody+"$function$")
	}
	for _, other := range others {
		grantee := "PUBLIC"
		if other != "" {
			grantee = pgx.Identifier{other}.Sanitize()
		}
		lines = append(lines, "REVOKE ALL ON FUNCTION auth.write_event() FROM "+grantee)
	}
	if owner != tables {
		lines = append(lines, "ALTER FUNCTION auth.write_event() OWNER TO "+pgx.Identifier{tables}.Sanitize())
	}
	var changes []statement
	for _, line := range lines {
		changes = append(changes, statement{sql: line, text: line})
	}
	return changes, nil
}
