package database

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unavailableStates are SQLSTATEs, or their classes, of errors that may not occur on a retry:
// connection lost (08), stale or duplicate prepared statement (26000, 42P05), transaction
// rolled back (40), too many connections (53), shutting down (57), read-only, like a standby
// before its promotion (25006), transaction timeout (25P03), lock not available (55P03).
var unavailableStates = []string{"08", "26000", "40", "42P05", "53", "57", "25006", "25P03", "55P03"}

// IsUnavailable reports whether Postgres was unreachable or temporarily unable to execute a
// statement, rather than having rejected it.
func IsUnavailable(err error) bool {
	// An error of connecting, such as a wrong password, is no response to a statement.
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		if statementIsStale(refusal) {
			return true
		}
		return slices.ContainsFunc(unavailableStates, func(state string) bool { return strings.HasPrefix(refusal.Code, state) })
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}
