package database

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unavailableStates are SQLSTATEs, or their classes, of a server that cannot serve
// now, or that undid what was asked and may do it on another try: connection lost
// (08), stale or duplicate prepared statement (26000, 42P05), transaction rolled back
// (40), too many connections (53), shutting down (57), read-only, as a standby is
// until it is promoted (25006), transaction timeout (25P03), lock not available
// (55P03).
var unavailableStates = []string{"08", "26000", "40", "42P05", "53", "57", "25006", "25P03", "55P03"}

// IsUnavailable reports whether Postgres could not be reached or could not serve, as
// against having answered with a refusal.
func IsUnavailable(err error) bool {
	// Whatever Postgres says to a connection, such as that the password is wrong, is
	// no answer to a statement.
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
