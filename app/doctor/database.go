package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// connect connects to a database, or reports why it can't.
func (r *Report) connect(ctx context.Context, setting, databaseURL string) *pgx.Conn {
	config, err := database.ParseConfig(databaseURL)
	if err != nil {
		r.Problem(setting, "it can't be read as a Postgres URL", "give one such as postgres://user:password@host:5432/gatehouse")
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		return conn
	}
	where := fmt.Sprintf("%s on %s", config.Database, net.JoinHostPort(config.Host, fmt.Sprint(config.Port)))
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch refusal.Code {
		case "28P01", "28000":
			r.Problem(setting, fmt.Sprintf("Postgres refuses the sign-in of %s to %s: %s", config.User, where, refusal.Message),
				"correct the user and the password, or run gatehouse schema apply, which makes the services' own")
		case "3D000":
			r.Problem(setting, where+" doesn't exist", "create the database, or correct its name")
		case "53300":
			r.Problem(setting, "Postgres has no connection left for "+where, "raise max_connections, or limit the pools with ?pool_max_conns=")
		default:
			r.Problem(setting, fmt.Sprintf("Postgres refuses %s: %s (SQLSTATE %s)", where, refusal.Message, refusal.Code), "see Postgres' log")
		}
		return nil
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound {
		r.Problem(setting, "there is no host "+unknown.Name, "correct the host's name")
		return nil
	}
	r.Problem(setting, "Postgres can't be reached at "+where, "start it, or correct the host and the port; look for a firewall or a missing ?sslmode=")
	return nil
}

// Database is a service's own database.
type Database struct {
	Service string
	// Setting is the name of the setting with its URL.
	Setting, URL string
	// SchemaNumber is the one that this binary needs.
	SchemaNumber int
	// OtherSchemas are those of the other services.
	OtherSchemas []string
	// Examine looks at the service's own tables; nil for nothing.
	Examine func(context.Context, *pgx.Conn)
}

// roleState describes a service's login role and its database.
type roleState struct {
	Role      string
	Superuser bool
	Reached   []string // of the other services' schemas
	Fsync     string
	Commit    string
	Clock     float64
}

const selectRoleState = `
	SELECT current_user::text AS role, r.rolsuper AS superuser,
		ARRAY(
			SELECT nspname::text FROM pg_catalog.pg_namespace
			WHERE nspname = ANY (@others::text[]) AND has_schema_privilege(oid, 'USAGE') ORDER BY nspname
		) AS reached,
		current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit,
		extract(epoch FROM clock_timestamp())::float8 AS clock
	FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`

// Database examines a service's database: that it can be reached, that it is as
// this binary needs it, that the service's role reaches its own schema only, and
// that Postgres keeps what it acknowledges.
func (r *Report) Database(db Database) {
	if db.URL == "" {
		return // a problem of the settings
	}
	ctx, cancel := r.check()
	defer cancel()
	conn := r.connect(ctx, db.Setting, db.URL)
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	subject, before := "database of "+db.Service, r.Problems()
	r.session(ctx, conn, db.Setting, db.URL, subject)
	if err := schema.Ready(ctx, conn, db.Service, db.SchemaNumber); err != nil {
		r.Problem(subject, err.Error(), "run gatehouse schema apply")
		return
	}
	asked := time.Now()
	rows, err := conn.Query(ctx, selectRoleState, pgx.NamedArgs{"others": db.OtherSchemas})
	var state roleState
	if err == nil {
		state, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[roleState])
	}
	if err != nil {
		r.Problem(subject, "its state can't be read: "+err.Error(), "see Postgres' log")
		return
	}
	r.clock(subject, time.UnixMicro(int64(state.Clock*1e6)), asked, 0)
	switch {
	case state.Superuser:
		r.Problem(subject, "its role "+state.Role+" is a superuser", "give "+db.Setting+" a role of its own, as gatehouse schema apply makes it")
	case len(state.Reached) > 0:
		r.Problem(subject, "its role "+state.Role+" reaches the schema "+strings.Join(state.Reached, ", ")+" too", "give "+db.Setting+" a role of its own, as gatehouse schema apply makes it")
	}
	if state.Fsync != "on" {
		r.Problem(subject, "Postgres may lose what it has acknowledged: fsync is "+state.Fsync, "set fsync = on")
	}
	if state.Commit == "off" {
		r.Problem(subject, "Postgres may lose what it has acknowledged: synchronous_commit is off", "set synchronous_commit = on")
	}
	if db.Examine != nil {
		db.Examine(ctx, conn)
	}
	if r.Problems() == before {
		r.OK(subject, "%s can sign in, and its schema is correct", state.Role)
	}
}

const selectOwnerState = `
	SELECT rolsuper OR rolcreaterole, rolsuper OR rolcreatedb, EXISTS (
		SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = ANY ($1::text[]) AND c.relname = 'applied_schema'
	)
	FROM pg_catalog.pg_roles WHERE rolname = current_user`

// Owner examines the user who applies the schema, and reports whether it was
// applied before. devURL is the scratch database that is given, if any.
func (r *Report) Owner(databaseURL, devURL string, schemas []string) (applied bool) {
	ctx, cancel := r.check()
	defer cancel()
	const subject = "DATABASE_URL"
	conn := r.connect(ctx, subject, databaseURL)
	if conn == nil {
		return false
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var roles, databases bool
	if err := conn.QueryRow(ctx, selectOwnerState, schemas).Scan(&roles, &databases, &applied); err != nil {
		r.Problem(subject, "its user's rights can't be read: "+err.Error(), "see Postgres' log")
		return false
	}
	before, user := r.Problems(), conn.Config().User
	if !roles && !applied {
		r.Problem(subject, user+" may not create the services' roles", fmt.Sprintf("ALTER ROLE %s CREATEROLE", pgx.Identifier{user}.Sanitize()))
	}
	if !databases && devURL == "" {
		r.Problem(subject, user+" may not create a scratch database, which planning the schema needs",
			fmt.Sprintf("ALTER ROLE %s CREATEDB, or set ATLAS_DEV_URL to an empty database", pgx.Identifier{user}.Sanitize()))
	}
	if r.Problems() == before {
		r.OK(subject, "%s may apply the schema", user)
	}
	return applied
}
