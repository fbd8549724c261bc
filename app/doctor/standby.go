package doctor

import (
	"context"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// Standby is a service's standby, which answers reads.
type Standby struct {
	Service string
	// Setting is the name of the setting with its URL.
	Setting, URL string
	// Primary is the URL of the service's own database.
	Primary string
}

// standbyState is compared with the primary.
type standbyState struct {
	System     string
	Recovering bool
	Behind     *int64 // in bytes; nil on a server that replays nothing
	MayRead    bool
}

const selectStandbyState = `
	SELECT s.system_identifier::text AS system, pg_is_in_recovery() AS recovering,
		pg_wal_lsn_diff(@lsn::text::pg_lsn, pg_last_wal_replay_lsn())::bigint AS behind,
		coalesce(has_schema_privilege(to_regnamespace(@service), 'USAGE'), false) AS may_read
	FROM pg_control_system() s`

// Standby examines the standby of a service: that it is a standby of the service's
// database, and how far it is behind.
func (r *Report) Standby(standby Standby) {
	ctx, cancel := r.check()
	defer cancel()
	primary := r.connect(ctx, "database of "+standby.Service, standby.Primary)
	if primary == nil {
		return
	}
	defer func() { _ = primary.Close(context.WithoutCancel(ctx)) }()
	conn := r.connect(ctx, standby.Setting, standby.URL)
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	subject := "standby of " + standby.Service
	system, lsn, err := database.SystemAndLSN(ctx, primary)
	if err != nil {
		r.Problem(subject, "the position of the primary can't be read: "+err.Error(), "permit the role to execute pg_control_system(), or unset "+standby.Setting)
		return
	}
	rows, err := conn.Query(ctx, selectStandbyState, pgx.NamedArgs{"lsn": lsn, "service": standby.Service})
	var state standbyState
	if err == nil {
		state, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[standbyState])
	}
	switch {
	case err != nil:
		r.Problem(subject, "its state can't be read: "+err.Error(), "see Postgres' log")
	case state.System != system:
		r.Problem(subject, "it belongs to another primary", "name a standby of the primary in "+standby.Setting)
	case !state.Recovering:
		r.Problem(subject, "it is no standby, so the primary answers all reads", "name a standby in "+standby.Setting+", or unset it")
	case !state.MayRead:
		r.Problem(subject, "its role "+conn.Config().User+" may not read the schema "+standby.Service, "name the role of the service, or no user, in "+standby.Setting)
	case state.Behind == nil:
		r.Problem(subject, "it has replayed nothing", "see Postgres' log")
	default:
		r.OK(subject, "it is %d bytes behind the primary", max(*state.Behind, 0))
	}
}
