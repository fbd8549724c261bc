package app

import (
	"context"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth"
	"gatehouse/internal/database"
)

// sessionState is what a session of a service begins with, and what its server
// allows.
type sessionState struct {
	Database       string
	ServerEncoding string
	ClientEncoding string
	Isolation      string
	ReadOnly       bool
	Locale         string
	Allowed        int // connections for those who are no superusers
	RoleLimit      int // -1 for none
	DatabaseLimit  int // -1 for none
}

// The columns of pg_database that name the locale differ between versions.
const selectSessionState = `
	SELECT current_database() AS database,
		current_setting('server_encoding') AS server_encoding, current_setting('client_encoding') AS client_encoding,
		current_setting('default_transaction_isolation') AS isolation,
		current_setting('transaction_read_only')::boolean AS read_only,
		coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate) AS locale,
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
			- coalesce(current_setting('reserved_connections', true)::int, 0) AS allowed,
		r.rolconnlimit AS role_limit, d.datconnlimit AS database_limit
	FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
	WHERE d.datname = current_database() AND r.rolname = current_user`

// session looks at what a service's sessions begin with, and compares the
// connections of one copy, all services together, with what Postgres allows.
func (e *examination) session(ctx context.Context, conn *pgx.Conn, setting, databaseURL, part string) {
	rows, err := conn.Query(ctx, selectSessionState)
	var state sessionState
	if err == nil {
		state, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[sessionState])
	}
	if err != nil {
		e.fault(part, "its sessions' settings can't be read: "+err.Error(), "see Postgres' log")
		return
	}
	before := e.bad()
	if state.ServerEncoding != database.Encoding {
		e.fault(part, fmt.Sprintf("%s stores text as %s, which can't hold every name", state.Database, state.ServerEncoding),
			"make a database with createdb --encoding=UTF8 --template=template0, and move the data there with pg_dump")
	}
	if state.ReadOnly {
		e.fault(part, database.ErrReadOnly.Error(),
			"name the server that takes writes in "+setting+"; of several hosts, target_session_attrs=read-write chooses it")
	}
	if state.Isolation != "read committed" {
		e.fault(part, "its role's sessions begin as "+state.Isolation, "run gatehouse schema apply, which has them begin as read committed")
	}
	if state.ClientEncoding != database.Encoding {
		e.fault(part, "its role's sessions begin with client_encoding "+state.ClientEncoding, "run gatehouse schema apply, which has them begin with UTF8")
	}
	e.connections(conn, setting, databaseURL, part, state)
	if e.bad() == before {
		e.well(part, "it stores text as UTF8, takes writes, and its sessions begin as read committed; its locale %s has no part in comparing emails", state.Locale)
	}
}

// connections adds a service's pool to what one copy may open at a server.
func (e *examination) connections(conn *pgx.Conn, setting, databaseURL, part string, state sessionState) {
	most, err := database.MaxConns(databaseURL)
	if err != nil {
		return // it is among the settings' mistakes
	}
	for _, limit := range []struct {
		of   string
		most int
	}{{"its role", state.RoleLimit}, {"its database", state.DatabaseLimit}} {
		if limit.most >= 0 && most > limit.most {
			e.fault(part, fmt.Sprintf("its pool may open %d connections, and %s allows %d", most, limit.of, limit.most),
				fmt.Sprintf("raise the CONNECTION LIMIT, or add pool_max_conns=%d to %s", max(1, limit.most), setting))
		}
	}
	server := net.JoinHostPort(conn.Config().Host, fmt.Sprint(conn.Config().Port))
	if e.pools == nil {
		e.pools = map[string]int{}
	}
	e.pools[server] += most
	if sum := e.pools[server]; sum > state.Allowed {
		e.fault(part, fmt.Sprintf("one copy may open %d connections to %s, which allows %d to all copies together", sum, server, state.Allowed),
			"raise max_connections, or give the pools less with pool_max_conns in the URLs: the sum over all copies has to fit")
		return
	}
	e.well(part, "one copy may open %d connections, its other services' included; %s allows %d, which is enough for %d copies",
		e.pools[server], server, state.Allowed, state.Allowed/e.pools[server])
}

// sameIssuer compares the public URL with the issuer that auth started with last.
func (e *examination) sameIssuer(ctx context.Context, conn *pgx.Conn) {
	stored, err := auth.StoredIssuer(ctx, conn)
	if err != nil {
		e.fault("database of auth", err.Error(), "run gatehouse schema apply, and see Postgres' log")
		return
	}
	if stored != "" && e.issuer != "" && stored != e.issuer {
		e.fault("GATEHOUSE_PUBLIC_URL", fmt.Sprintf("it is %s here, and auth started with %s last: each refuses the other's tokens", e.issuer, stored),
			"give all copies one; if the URL changes on purpose, start auth with the new one: clients refresh the tokens of the old")
	}
}
