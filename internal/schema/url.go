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

// ServiceURL returns databaseURL with another user and password. It supports both forms of
// Postgres, URIs and keywords with values, and keeps the form.
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

// HasUser reports whether databaseURL itself, in either form, names a user.
func HasUser(databaseURL string) bool {
	if _, rest, isURI := strings.Cut(databaseURL, "://"); isURI {
		if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
			return true
		}
		_, query, _ := strings.Cut(rest, "?")
		return slices.ContainsFunc(strings.Split(query, "&"), func(parameter string) bool {
			return strings.HasPrefix(parameter, "user=")
		})
	}
	found := false
	eachSetting(databaseURL, func(key, _ string) { found = found || key == "user" })
	return found
}

// replaced are the parameters that ServiceURL sets.
var replaced = []string{"user", "password", "dbname", "database"}

// hosts returns the host part of a URI without its scheme. net/url supports neither lists of
// hosts nor escaped socket directories.
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

// escape percent-encodes a part of a URI. Postgres does not decode a plus as a space.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// otherSettings returns the settings of a string of keywords and values that are not
// replaced.
func otherSettings(dsn string) []string {
	var kept []string
	eachSetting(dsn, func(key, value string) {
		if !slices.Contains(replaced, key) {
			kept = append(kept, key+"="+value)
		}
	})
	return kept
}

// eachSetting calls take for each keyword and value of a string that pgx has parsed before,
// so that it is well formed.
func eachSetting(dsn string, take func(key, value string)) {
	for {
		dsn = strings.TrimLeft(dsn, whitespace)
		key, rest, ok := strings.Cut(dsn, "=")
		if !ok {
			return
		}
		rest = strings.TrimLeft(rest, whitespace)
		value := rest[:valueLength(rest)]
		take(strings.TrimRight(key, whitespace), value)
		dsn = rest[len(value):]
	}
}

const whitespace = " \t\n\r\v\f"

// valueLength returns the length of the value at the start of s, which ends at its closing
// quote or at whitespace.
func valueLength(s string) int {
	quoted := strings.HasPrefix(s, "'")
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case quoted && s[i] == '\'' && i > 0:
			return i + 1
		case !quoted && strings.IndexByte(whitespace, s[i]) >= 0:
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
		return nil, errors.New("is empty: set it to a database, like postgres://user:password@host:5432/database")
	}
	conn, err := database.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	database.SetOwnerSession(conn, databaseURL)
	// A cached plan would be invalid after a statement that changed its table.
	conn.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	if conn.Database == "" {
		conn.Database = conn.User
	}
	return conn, nil
}

// WithoutPassword returns databaseURL without its password, for output.
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
