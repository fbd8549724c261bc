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

// SessionSettings are the settings of every session of a service, which override those of
// the database and the server. They are stored for each login role in its database, so that
// they apply behind a pooler too. A direct connection also sends them at its start, which
// takes precedence.
//
// At read committed, a statement sees what was committed before it obtained a lock. The
// search path omits the schema public, in which everybody may create functions up to
// Postgres 14. The timeout of idle transactions releases the locks of abandoned work. The
// other timeouts are far longer than any call, for statements whose cancellation was lost.
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

// overridable are the settings that a URL may override.
var overridable = []string{"idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"}

// poolerSettings are the settings that a pooler such as PgBouncer tracks for each client. It
// refuses a client that sends any other setting at its start.
var poolerSettings = []string{"client_encoding", "TimeZone"}

// setSession adds the settings to the startup parameters of a connection.
func setSession(config *pgx.ConnConfig, service string, pooled bool) {
	for _, setting := range SessionSettings(service) {
		if pooled && !slices.Contains(poolerSettings, setting.Name) {
			continue
		}
		given := ""
		for name := range config.RuntimeParams {
			if strings.EqualFold(name, setting.Name) {
				given = name
			}
		}
		if given != "" && slices.Contains(overridable, setting.Name) {
			continue
		}
		delete(config.RuntimeParams, given)
		config.RuntimeParams[setting.Name] = setting.Value
	}
}

// SetOwnerSession sets the startup parameters of the connection that applies the schema.
// Every pooler accepts them.
func SetOwnerSession(config *pgx.ConnConfig, url string) {
	setSession(config, "", true)
	requireWritable(config, url)
}

// ErrReadOnly is the error if a server accepts no writes, such as a standby or a demoted
// primary.
var ErrReadOnly = errors.New("the server accepts no writes: it is a standby, or default_transaction_read_only is on")

// requireWritable refuses a server that accepts no writes, unless the URL has
// target_session_attrs. pgx then tries the next host of the URL.
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

// Encoding is the required encoding of a database.
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

// EncodingError returns nil if the encoding is the required one.
func EncodingError(name, encoding string) error {
	if encoding == Encoding {
		return nil
	}
	return fmt.Errorf("the database %s stores text as %s, which can't represent every name: "+
		"create one with createdb --encoding=UTF8 --template=template0, and move the data there with pg_dump", name, encoding)
}
