package doctor

import (
	"context"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// sessionState has the settings with which a service's sessions start, and the limits
// of its server.
type sessionState struct {
	Database       string
	ServerEncoding string
	ClientEncoding string
	Isolation      string
	ReadOnly       bool
	Locale         string
	Allowed        int // connections of roles that are not superusers
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

// session examines what a service's sessions start with, and compares the
// connections of one copy, all services together, with what Postgres allows.
func (r *Report) session(ctx context.Context, conn *pgx.Conn, setting, databaseURL, subject string) {
	rows, err := conn.Query(ctx, selectSessionState)
	var state sessionState
	if err == nil {
		state, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[sessionState])
	}
	if err != nil {
		r.Problem(subject, "its sessions' settings can't be read: "+err.Error(), "see Postgres' log")
		return
	}
	before := r.Problems()
	if state.ServerEncoding != database.Encoding {
		r.Problem(subject, fmt.Sprintf("%s stores text as %s, which can't hold every name", state.Database, state.ServerEncoding),
			"create a database with createdb --encoding=UTF8 --template=template0, and move the data there with pg_dump")
	}
	if state.ReadOnly {
		r.Problem(subject, database.ErrReadOnly.Error(),
			"name the server that takes writes in "+setting+"; of several hosts, target_session_attrs=read-write chooses it")
	}
	if state.Isolation != "read committed" {
		r.Problem(subject, "its role's sessions begin as "+state.Isolation, "run gatehouse schema apply, which sets read committed for the role")
	}
	if state.ClientEncoding != database.Encoding {
		r.Problem(subject, "its role's sessions begin with client_encoding "+state.ClientEncoding, "run gatehouse schema apply, which sets UTF8 for the role")
	}
	r.connections(conn, setting, databaseURL, subject, state)
	if r.Problems() == before {
		r.OK(subject, "it stores text as UTF8, takes writes, and its sessions begin as read committed; its locale %s does not affect the comparison of emails", state.Locale)
	}
}

// connections adds a service's pool to what one copy may open at a server.
func (r *Report) connections(conn *pgx.Conn, setting, databaseURL, subject string, state sessionState) {
	most, err := database.MaxConns(databaseURL)
	if err != nil {
		return // a problem of the settings
	}
	for _, limit := range []struct {
		of   string
		most int
	}{{"its role", state.RoleLimit}, {"its database", state.DatabaseLimit}} {
		if limit.most >= 0 && most > limit.most {
			r.Problem(subject, fmt.Sprintf("its pool may open %d connections, and %s allows %d", most, limit.of, limit.most),
				fmt.Sprintf("raise the CONNECTION LIMIT, or add pool_max_conns=%d to %s", max(1, limit.most), setting))
		}
	}
	server := net.JoinHostPort(conn.Config().Host, fmt.Sprint(conn.Config().Port))
	if r.pools == nil {
		r.pools = map[string]int{}
	}
	r.pools[server] += most
	if sum := r.pools[server]; sum > state.Allowed {
		r.Problem(subject, fmt.Sprintf("one copy may open %d connections to %s, which allows %d to all copies together", sum, server, state.Allowed),
			"raise max_connections, or limit the pools with pool_max_conns in the URLs: the sum over all copies must not exceed it")
		return
	}
	r.OK(subject, "one copy may open %d connections, its other services' included; %s allows %d, which is enough for %d copies",
		r.pools[server], server, state.Allowed, state.Allowed/r.pools[server])
}
