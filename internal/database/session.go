package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Setting is a parameter of a session.
type Setting struct{ Name, Value string }

// SessionSettings are what every session of a service relies on, whatever the
// database or the server sets. Each login role carries them in its database,
// which holds behind a pooler too; a direct connection also asks for them when
// it starts, which goes before anything else.
//
// The isolation is the one under which a statement sees what was committed
// before a lock was granted. The search path leaves out the schema public, in
// which up to Postgres 14 everybody may create functions for others to call.
// Work that its caller gave up must not hold locks, so an idle transaction ends;
// the other limits are far beyond what a call may take, for statements whose
// cancellation got lost.
func SessionSettings(service string) []Setting {
	return []Setting{
		{"default_transaction_isolation", "read committed"},
		{"client_encoding", "UTF8"},
		{"TimeZone", "UTC"},
		{"search_path", service},
		{"idle_in_transaction_session_timeout", "10s"},
		{"lock_timeout", "30s"},
		{"statement_timeout", "1min"},
	}
}

// limits are the settings that a URL may give other values.
var limits = []string{"idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"}

// A pooler such as PgBouncer follows these for each of its clients, and refuses
// a client that asks for any other when it starts.
var everywhere = []string{"client_encoding", "TimeZone"}

// setSession puts the settings into what a connection asks for when it starts.
func setSession(config *pgx.ConnConfig, service string, pooled bool) {
	for _, setting := range SessionSettings(service) {
		if pooled && !slices.Contains(everywhere, setting.Name) {
			continue
		}
		given := ""
		for name := range config.RuntimeParams {
			if strings.EqualFold(name, setting.Name) {
				given = name
			}
		}
		if given != "" && slices.Contains(limits, setting.Name) {
			continue
		}
		delete(config.RuntimeParams, given)
		config.RuntimeParams[setting.Name] = setting.Value
	}
}

// SetOwnerSession prepares the connection of the user who applies the schema,
// which every pooler lets start.
func SetOwnerSession(config *pgx.ConnConfig, url string) {
	setSession(config, "", true)
	requireWritable(config, url)
}

// ErrReadOnly says that a server takes no writes, as a standby does, or a
// primary that was replaced.
var ErrReadOnly = errors.New("the server takes no writes: it is a standby, or default_transaction_read_only is on")

// requireWritable refuses a server that takes no writes, unless the URL says by
// target_session_attrs what servers it wants. Of several hosts, the next is
// tried.
func requireWritable(config *pgx.ConnConfig, url string) {
	if !strings.Contains(url, "target_session_attrs") {
		config.ValidateConnect = validateWritable
	}
}

func validateWritable(ctx context.Context, conn *pgconn.PgConn) error {
	result := conn.ExecParams(ctx, "SHOW transaction_read_only", nil, nil, nil, nil).Read()
	if result.Err != nil {
		return result.Err
	}
	if len(result.Rows) == 1 && string(result.Rows[0][0]) == "on" {
		return ErrReadOnly
	}
	return nil
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Encoding is the one in which a database has to store text.
const Encoding = "UTF8"

// CheckEncoding returns an error unless the database can store every text.
func CheckEncoding(ctx context.Context, db Querier) error {
	var encoding, name string
	err := db.QueryRow(ctx, "SELECT current_setting('server_encoding'), current_database()").Scan(&encoding, &name)
	if err != nil {
		return fmt.Errorf("read the database's encoding: %w", err)
	}
	return EncodingError(name, encoding)
}

// EncodingError is nil for a database whose encoding is the needed one.
func EncodingError(name, encoding string) error {
	if encoding == Encoding {
		return nil
	}
	return fmt.Errorf("the database %s stores text as %s, which can't hold every name: "+
		"make one with createdb --encoding=UTF8 --template=template0, and move the data there with pg_dump", name, encoding)
}
