package auditlog

import (
	"cmp"
	_ "embed"
	"strings"
)

// Function is an SQL function that performs, as the owner of the tables, a restricted
// operation for auth, whose role lacks the privilege.
type Function struct {
	Name      string // without its schema
	Arguments string // their types
	Header    string // their names and types, and the result
	// Settings are those that the function runs with, beside the search path, as name=value.
	Settings []string
	Body     string

	language string // "sql" if it is empty
}

// Language returns the language of the function.
func (f Function) Language() string { return cmp.Or(f.language, "sql") }

// Signature names the function for statements about it.
func (f Function) Signature() string { return "auth." + f.Name + "(" + f.Arguments + ")" }

// Config returns the settings of the function with a search path, as the catalog writes them.
func (f Function) Config(path string) []string {
	return append([]string{"search_path=" + path}, f.Settings...)
}

// Statements returns the statements that replace the function and grant it to a role. They run
// in one transaction, so no other session sees the function missing.
func (f Function) Statements(role, path string) []string {
	create := "CREATE FUNCTION auth." + f.Name + f.Header + " LANGUAGE " + f.Language() + " SECURITY DEFINER SET search_path = " + path
	for _, setting := range f.Settings {
		name, value, _ := strings.Cut(setting, "=")
		create += " SET " + name + " = '" + value + "'"
	}
	return []string{
		"DROP FUNCTION IF EXISTS " + f.Signature(),
		create + " AS $function$" + f.Body + "$function$",
		"REVOKE ALL ON FUNCTION " + f.Signature() + " FROM PUBLIC",
		"GRANT EXECUTE ON FUNCTION " + f.Signature() + " TO " + role,
	}
}

// lockTimeout is short, because what others write to the audit log waits behind a lock that
// waits.
const lockTimeout = "lock_timeout=200ms"

//go:embed prune_audit.sql
var pruneBody string

//go:embed close_audit.sql
var closeBody string

// Functions: auth may insert into and read its audit log; these are the only way to change it.
var Functions = []Function{
	{
		// An event's ID begins with its time in milliseconds (UUIDv7), so the primary key
		// serves as the index. A closed table is dropped once its newest event is older than
		// keep, by its id and by its time. Rows are deleted from the open table, and from a closed table that spans more
		// than a month: the one that was open when the closing began. A call deletes at most
		// 10,000 rows; the caller repeats it until it deletes fewer.
		Name: "prune_audit", Arguments: "interval",
		Header:   "(keep interval) RETURNS bigint",
		language: "plpgsql", Settings: []string{lockTimeout},
		Body: pruneBody,
	},
	{
		// Closes the open table once it holds an event of an earlier month: renames it,
		// creates the next open table, and makes the closed table inherit from that one. It
		// returns the name of the closed table, or NULL if none is due. If others keep a
		// table locked, it fails with lock_not_available: at once if it is a closed one.
		Name: "close_audit", Arguments: "",
		Header:   "() RETURNS text",
		language: "plpgsql", Settings: []string{lockTimeout},
		Body: closeBody,
	},
	{
		// Actions of the account, and actions on it without an actor, are attributed to its
		// person, so their client info is erased. That of an administrator who acted on the
		// account is kept. The names of changed attributes are erased for all actors.
		Name: "erase_audit", Arguments: "uuid",
		Header: "(account uuid) RETURNS bigint",
		Body: `
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
		Name: "count_refusal", Arguments: "bytea, timestamp with time zone",
		Header: "(key bytea, minute timestamp with time zone) RETURNS bigint",
		Body: `
	WITH counted AS (
		UPDATE ONLY auth.audit_events e SET count = e.count + 1
		WHERE e.refusal_key = key AND e.refusal_minute = minute AND e.count < 2147483647
		RETURNING e.id
	)
	SELECT count(*) FROM counted`,
	},
}
