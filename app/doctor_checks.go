package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/schema"
)

// connect reaches a database, or words why it can't be.
func (e *examination) connect(ctx context.Context, setting, databaseURL string) *pgx.Conn {
	config, err := database.ParseConfig(databaseURL)
	if err != nil {
		e.fault(setting, "it can't be read as a Postgres URL", "give one such as postgres://user:password@host:5432/gatehouse")
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
			e.fault(setting, fmt.Sprintf("Postgres doesn't let %s in to %s: %s", config.User, where, refusal.Message),
				"correct the user and the password, or run gatehouse schema apply, which makes the services' own")
		case "3D000":
			e.fault(setting, where+" doesn't exist", "create the database, or correct its name")
		case "53300":
			e.fault(setting, "Postgres has no connection left for "+where, "raise max_connections, or give the pools less with ?pool_max_conns=")
		default:
			e.fault(setting, fmt.Sprintf("Postgres refuses %s: %s (SQLSTATE %s)", where, refusal.Message, refusal.Code), "see Postgres' log")
		}
		return nil
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound {
		e.fault(setting, "no host is called "+unknown.Name, "correct the host's name")
		return nil
	}
	e.fault(setting, "Postgres can't be reached at "+where, "start it, or correct the host and the port; look for a firewall or a missing ?sslmode=")
	return nil
}

// databaseState is what a service's role sees of its database.
type databaseState struct {
	Role         string
	Superuser    bool
	OtherReached bool
	Fsync        string
	Commit       string
	Clock        float64
}

const selectDatabaseState = `
	SELECT current_user::text AS role, r.rolsuper AS superuser,
		CASE WHEN to_regnamespace(@other) IS NULL THEN false
			ELSE has_schema_privilege(to_regnamespace(@other)::oid, 'USAGE') END AS other_reached,
		current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit,
		extract(epoch FROM clock_timestamp())::float8 AS clock
	FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`

// service looks at a service's own database: that it can be reached, that it is
// as this binary needs it, that it is the service's alone, and that what it
// acknowledges stays. secrets are auth's, to open its signing keys with.
func (e *examination) service(setting, databaseURL, service string, secrets [][]byte) {
	if databaseURL == "" {
		return // it is among the settings' mistakes
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	conn := e.connect(ctx, setting, databaseURL)
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	part, before := "database of "+service, e.bad()
	e.session(ctx, conn, setting, databaseURL, part)
	number, err := schema.Number(schemaSQL)
	if err == nil {
		err = schema.Ready(ctx, conn, service, number)
	}
	if err != nil {
		e.fault(part, err.Error(), "run gatehouse schema apply")
		return
	}
	other := schema.Users
	if service == schema.Users {
		other = schema.Auth
	}
	asked := time.Now()
	rows, err := conn.Query(ctx, selectDatabaseState, pgx.NamedArgs{"other": other})
	var state databaseState
	if err == nil {
		state, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[databaseState])
	}
	if err != nil {
		e.fault(part, "it gives no account of itself: "+err.Error(), "see Postgres' log")
		return
	}
	e.clock(part, time.UnixMicro(int64(state.Clock*1e6)), asked, 0)
	switch {
	case state.Superuser:
		e.fault(part, "its role "+state.Role+" is a superuser", "give "+setting+" a role of its own, as gatehouse schema apply makes it")
	case state.OtherReached:
		e.fault(part, "its role "+state.Role+" reaches the schema "+other+" too", "give "+setting+" a role of its own, as gatehouse schema apply makes it")
	}
	if state.Fsync != "on" {
		e.fault(part, "Postgres may lose what it has acknowledged: fsync is "+state.Fsync, "set fsync = on")
	}
	if state.Commit == "off" {
		e.fault(part, "Postgres may lose what it has acknowledged: synchronous_commit is off", "set synchronous_commit = on")
	}
	if service == schema.Auth {
		e.sameIssuer(ctx, conn)
	}
	if len(secrets) > 0 {
		switch err := auth.CheckSecrets(ctx, conn, secrets); {
		case errors.Is(err, auth.ErrSecret):
			e.fault("GATEHOUSE_SECRET_KEY", otherSecretFault, otherSecretMend)
		case err != nil:
			e.fault(part, "its signing keys can't be read", "run gatehouse schema apply, and see Postgres' log")
		}
	}
	if e.bad() == before {
		e.well(part, "%s signs in, and its schema is as it should be", state.Role)
	}
}

const selectOwnerState = `
	SELECT rolsuper OR rolcreaterole, rolsuper OR rolcreatedb, to_regclass('auth.applied_schema') IS NOT NULL
	FROM pg_catalog.pg_roles WHERE rolname = current_user`

// owner looks at the user who applies the schema, and reports whether it was
// applied before.
func (e *examination) owner(databaseURL, devURL string) (applied bool) {
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	const part = "DATABASE_URL"
	conn := e.connect(ctx, part, databaseURL)
	if conn == nil {
		return false
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var roles, databases bool
	if err := conn.QueryRow(ctx, selectOwnerState).Scan(&roles, &databases, &applied); err != nil {
		e.fault(part, "its user's rights can't be read: "+err.Error(), "see Postgres' log")
		return false
	}
	before, user := e.bad(), conn.Config().User
	if !roles && !applied {
		e.fault(part, user+" may not make the services' roles", fmt.Sprintf("ALTER ROLE %s CREATEROLE", pgx.Identifier{user}.Sanitize()))
	}
	if !databases && devURL == "" {
		e.fault(part, user+" may not make a scratch database, which planning the schema needs",
			fmt.Sprintf("ALTER ROLE %s CREATEDB, or set ATLAS_DEV_URL to an empty database", pgx.Identifier{user}.Sanitize()))
	}
	if e.bad() == before {
		e.well(part, "%s may apply the schema", user)
	}
	return applied
}

// peer looks at another role: that it answers, is ready, is what it should be,
// shares the internal key and goes by the same time.
func (e *examination) peer(setting, address string, route dial.Route) {
	if !webAddress(address) {
		return // it is among the settings' mistakes
	}
	ctx, cancel := context.WithTimeout(e.ctx, doctorLimit)
	defer cancel()
	asked := time.Now()
	answer, err := dial.Probe(ctx, address)
	if err != nil {
		e.fault(setting, fmt.Sprintf("nothing answers at %s: %s", address, rootCause(err)), "start "+route.Callee+" there, or correct the address")
		return
	}
	before := e.bad()
	sameTime := answer.Time.IsZero() || e.clock(setting, answer.Time, asked, time.Second)
	if len(route.Keys) > 0 && sameTime {
		e.greet(ctx, setting, address, route)
	}
	if e.bad() == before && !answer.Ready {
		e.fault(setting, fmt.Sprintf("%s answers that it is %s", route.Callee, strings.TrimPrefix(answer.Text, "not ready: ")),
			"run gatehouse doctor "+route.Callee+" where it runs")
	}
	if e.bad() == before {
		e.well(setting, "%s answers, with the same internal key and time", route.Callee)
	}
}

// greet calls a method that changes nothing, as the route's caller.
func (e *examination) greet(ctx context.Context, setting, address string, route dial.Route) {
	client, err := dial.Dial(route, address)
	if err != nil {
		e.fault(setting, err.Error(), "correct the settings")
		return
	}
	switch {
	case route.Callee == roleAuth:
		var answer *authv1.ListSigningKeysResponse
		answer, err = authv1.NewKeyServiceClient(client).ListSigningKeys(ctx, &authv1.ListSigningKeysRequest{})
		e.issuerOfAuth(answer.GetIssuer())
	case route.Caller == roleAuth:
		// It names no account: once it is admitted it is refused.
		_, err = usersv1.NewRelayServiceClient(client).ApplyAccount(ctx, &usersv1.ApplyAccountRequest{})
	default:
		_, err = usersv1.NewProfileServiceClient(client).GetProfile(ctx, &usersv1.GetProfileRequest{ProfileId: uuid.Nil.String()})
	}
	switch {
	case fault.Reason(err) == fault.ReasonInternalToken:
		e.fault("GATEHOUSE_INTERNAL_KEY", route.Callee+" has another one: it doesn't know who is calling", "give all roles the same")
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		e.fault(setting, fmt.Sprintf("what answers at %s is not %s of this version", address, route.Callee), "correct the address")
	case err != nil && fault.Reason(err) == "" && connect.CodeOf(err) != connect.CodeNotFound:
		e.fault(setting, fmt.Sprintf("%s can't be called: %s", route.Callee, connect.CodeOf(err)), "see its log")
	}
}

// issuerOfAuth compares the public URL of the gateway with the issuer that auth
// names; an older auth names none.
func (e *examination) issuerOfAuth(issuer string) {
	const setting = "GATEHOUSE_PUBLIC_URL"
	if issuer != "" && e.issuer != "" && issuer != e.issuer {
		e.fault(setting, fmt.Sprintf("it is %s here and %s at auth: the gateway would refuse every access token", e.issuer, issuer), "give auth and the gateway the same")
	}
}

// rootCause is what went wrong at the bottom, without the layers' words.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
