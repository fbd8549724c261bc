package schema

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A trigger writes the account log, so that it misses no change by any version of auth.
// Atlas does not support triggers and functions, so they are created here, with the
// functions.

// accountLogTable declares the table of the log. A schema.sql without it, an older one, has
// no trigger.
const accountLogTable = "CREATE TABLE auth.account_log "

// The function runs with the rights of the role that changes the account.
const (
	logAccountHead = `CREATE OR REPLACE FUNCTION auth.log_account() RETURNS trigger LANGUAGE plpgsql SET search_path = ` + functionPath
	logAccountBody = `
	BEGIN
		IF TG_OP = 'DELETE' THEN
			INSERT INTO auth.account_log (account_id, version, deleted) VALUES (OLD.id, OLD.version + 1, true)
			ON CONFLICT ON CONSTRAINT account_log_pkey DO UPDATE
			SET xid = excluded.xid, version = excluded.version, deleted = true, profile = NULL, change_time = excluded.change_time;
		ELSE
			INSERT INTO auth.account_log (account_id, version) VALUES (NEW.id, NEW.version)
			ON CONFLICT ON CONSTRAINT account_log_pkey DO UPDATE
			SET xid = excluded.xid, version = excluded.version, deleted = false, change_time = excluded.change_time;
		END IF;
		RETURN NULL;
	END`
	accountLogTrigger = `CREATE TRIGGER account_log AFTER INSERT OR DELETE OR UPDATE OF version ON auth.accounts FOR EACH ROW EXECUTE FUNCTION auth.log_account()`
)

// fillAccountLog adds the existing accounts and the undelivered deletions of an older version
// of auth. It runs after the creation of the trigger, which has locked the accounts.
var fillAccountLog = []string{
	`INSERT INTO auth.account_log (account_id, version)
		SELECT id, version FROM auth.accounts
		ON CONFLICT ON CONSTRAINT account_log_pkey DO NOTHING`,
	`INSERT INTO auth.account_log (account_id, version, deleted)
		SELECT account_id, version, true FROM auth.account_outbox o
		WHERE deleted OR NOT EXISTS (SELECT FROM auth.accounts a WHERE a.id = o.account_id)
		ON CONFLICT ON CONSTRAINT account_log_pkey DO NOTHING`,
}

const selectAccountLogDiffers = `
SELECT NOT EXISTS (
	SELECT FROM pg_catalog.pg_trigger g
	JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
	JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
	WHERE g.tgrelid = to_regclass('auth.accounts') AND g.tgname = 'account_log' AND g.tgenabled = 'O'
		AND pg_get_triggerdef(g.oid) = $1
		AND p.oid = to_regprocedure('auth.log_account()') AND p.prosrc = $2 AND NOT p.prosecdef
		AND p.proconfig = ARRAY['search_path=' || $3] AND p.proowner = c.relowner
		AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee <> p.proowner)
)`

// accountLogChanges returns the statements that create the trigger and fill the log, if the
// trigger is missing or differs.
func (t *target) accountLogChanges(ctx context.Context) ([]statement, error) {
	if !strings.Contains(t.SQL, accountLogTable) {
		return nil, nil
	}
	var differs bool
	if err := t.tx.QueryRowContext(ctx, selectAccountLogDiffers, accountLogTrigger, logAccountBody, functionPath).Scan(&differs); err != nil {
		return nil, fmt.Errorf("read the trigger of the account log: %w", err)
	}
	if !differs {
		return nil, nil
	}
	var owner string
	if err := t.tx.QueryRowContext(ctx, selectAccountsOwner).Scan(&owner); err != nil {
		return nil, fmt.Errorf("read the owner of the accounts: %w", err)
	}
	locks, err := t.readLocks(ctx)
	if err != nil {
		return nil, err
	}
	changes := []statement{locks.dropTrigger("account_log", "auth.accounts")}
	for _, line := range []string{
		"DROP FUNCTION IF EXISTS auth.log_account()",
		logAccountHead + " AS $function$" + logAccountBody + "$function$",
		"REVOKE ALL ON FUNCTION auth.log_account() FROM PUBLIC",
	} {
		changes = append(changes, statement{sql: line, text: line})
	}
	changes = append(changes, locks.createTrigger(accountLogTrigger, "auth.accounts"))
	if owner != t.user {
		line := "ALTER FUNCTION auth.log_account() OWNER TO " + pgx.Identifier{owner}.Sanitize()
		changes = append(changes, statement{sql: line, text: line})
	}
	for _, line := range fillAccountLog {
		changes = append(changes, statement{sql: line, text: line, lock: locks.on("auth.accounts", shareRowExclusive, readsRows)})
	}
	return changes, nil
}

const selectAccountsOwner = `
SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = to_regclass('auth.accounts')
UNION ALL
SELECT current_user LIMIT 1`
