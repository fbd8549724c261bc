package schema

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// ServiceURL is databaseURL with another user: the hosts, the database and all
// settings stay. It takes both forms that Postgres knows, and keeps the form.
func ServiceURL(databaseURL, role, password string) (string, error) {
	conn, err := parseURL(databaseURL)
	if err != nil {
		return "", err
	}
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(databaseURL, scheme); ok {
			return scheme + escape(role) + ":" + escape(password) + "@" + hosts(rest) + "/" + escape(conn.Database) + parameters(rest), nil
		}
	}
	return fmt.Sprintf("%s user=%s password=%s dbname=%s",
		strings.Join(otherSettings(databaseURL), " "), quote(role), quote(password), quote(conn.Database)), nil
}

// replaced are the settings that ServiceURL gives.
var replaced = []string{"user", "password", "dbname", "database"}

// hosts are what stands before the path. net/url can't be asked: of Postgres'
// URIs it takes neither a list of hosts nor an escaped socket folder.
func hosts(rest string) string {
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

func parameters(rest string) string {
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	_, query, _ := strings.Cut(rest, "?")
	if query == "" {
		return ""
	}
	kept := slices.DeleteFunc(strings.Split(query, "&"), func(parameter string) bool {
		key, _, _ := strings.Cut(parameter, "=")
		key, err := url.PathUnescape(key)
		return err == nil && slices.Contains(replaced, key)
	})
	if len(kept) == 0 {
		return ""
	}
	return "?" + strings.Join(kept, "&")
}

// escape also takes what may stand in a path or a query. Postgres reads a plus
// as a plus.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// otherSettings are those of a string of keywords and values, less the ones
// that are replaced. pgx has read it before: it is well formed.
func otherSettings(dsn string) []string {
	var kept []string
	for {
		dsn = strings.TrimLeft(dsn, blanks)
		key, rest, ok := strings.Cut(dsn, "=")
		if !ok {
			return kept
		}
		key = strings.TrimRight(key, blanks)
		rest = strings.TrimLeft(rest, blanks)
		value := rest[:valueLength(rest)]
		if !slices.Contains(replaced, key) {
			kept = append(kept, key+"="+value)
		}
		dsn = rest[len(value):]
	}
}

const blanks = " \t\n\r\v\f"

// valueLength is where a value ends: at its closing quote, or at a blank.
func valueLength(s string) int {
	quoted := strings.HasPrefix(s, "'")
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case quoted && s[i] == '\'' && i > 0:
			return i + 1
		case !quoted && strings.IndexByte(blanks, s[i]) >= 0:
			return i
		}
	}
	return len(s)
}

func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

func parseURL(databaseURL string) (*pgx.ConnConfig, error) {
	if databaseURL == "" {
		return nil, errors.New("is empty: name a database, like postgres://user:password@host:5432/database")
	}
	conn, err := database.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	database.SetOwnerSession(conn, databaseURL)
	// Without cached plans, a statement may follow one that changed its table.
	conn.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	if conn.Database == "" {
		conn.Database = conn.User
	}
	return conn, nil
}

// WithoutPassword is databaseURL without its password, for where others see it.
func WithoutPassword(databaseURL string) (string, error) {
	conn, err := parseURL(databaseURL)
	if err != nil {
		return "", err
	}
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(databaseURL, scheme); ok {
			return scheme + escape(conn.User) + "@" + hosts(rest) + "/" + escape(conn.Database) + parameters(rest), nil
		}
	}
	return fmt.Sprintf("%s user=%s dbname=%s", strings.Join(otherSettings(databaseURL), " "), quote(conn.User), quote(conn.Database)), nil
}
