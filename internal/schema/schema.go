// Package schema changes a database to what schema.sql declares: the tables of
// each service in the schema of its name, the login role of each service with its
// grants, and on request a login role for people who only read. A service may
// declare its tables in a schema.sql of its own, which has a number of its own
// (see source).
//
// Atlas finds what has to change: schema.sql is replayed on a scratch database,
// both databases are inspected, and the difference is executed. The scratch
// database is made and dropped on the same server, unless one is given. Three
// things are kept from Atlas:
//
//   - Other schemas. Both inspections name the services' own; without that, Atlas
//     would drop everything else that the database holds.
//   - A database in which no service's schema exists. schema.sql itself is
//     executed there, which needs no scratch database.
//   - Roles, grants, functions and storage parameters, which Atlas doesn't see. They
//     are compared with the catalog and corrected by statements that may be repeated.
//
// Everything happens in one transaction under an advisory lock, so that a
// failure leaves nothing behind and of several copies one does the work. What
// was applied is remembered in the table applied_schema of each schema: the
// number of schema.sql and hashes of its text and of the tables. While those
// hold, Apply costs a few queries and no scratch database.
package schema

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Config says what to apply, and where.
type Config struct {
	// SQL is the text of schema.sql, which carries a number (see Number) and
	// declares a table applied_schema in each service's schema (see Services).
	SQL string

	// Own are the texts of the services that have a schema.sql of their own, by
	// service. Each carries a number of its own and declares the schema of that
	// service alone.
	Own map[string]string

	// DatabaseURL is the database to change, in either form that Postgres
	// knows. Its user owns the database, or may create schemas in it, and has
	// CREATEROLE; without DevURL it has CREATEDB as well. It need not be a
	// superuser.
	DatabaseURL string

	// DevURL (ATLAS_DEV_URL) is an empty database to replay schema.sql on, for
	// a user who may not create one. It is left empty.
	DevURL string

	// Roles are the login roles by service. A service without one has a role of
	// the default name and no password.
	Roles map[string]Role

	// Reader is the login role of people who only read. It is left alone when it
	// is empty. It may read the tables of all services without their secrets (see
	// readableBytes and secretTexts).
	Reader Role

	// TablesOnly leaves roles, grants and functions to somebody else.
	TablesOnly bool

	// AllowDestructive permits changes that lose data.
	AllowDestructive bool

	// Shared permits the first Apply to a database that holds the tables of other
	// programs. Apply still refuses a schema of theirs that has the name of a service.
	Shared bool

	// Logger receives the changes that were made; nil for none.
	Logger *slog.Logger
}

// Proposal is what Apply would do.
type Proposal struct {
	// Statements are in the order of their execution. Passwords are masked.
	Statements []string
	// Destructive says what would be lost, one sentence each; Apply refuses
	// to do so unless it is allowed.
	Destructive []string
}

// Result is what Apply did.
type Result struct {
	// Number is the one of schema.sql that the database now carries.
	Number int
	// Newer tells that Number is larger than schema.sql's, and that its tables
	// and roles were not changed for that reason.
	Newer bool
	// Own is the same of each service that has a schema.sql of its own, by service.
	Own map[string]Result
	// Statements were executed, in this order. Passwords are masked.
	Statements []string
}

// State compares a database with schema.sql.
type State struct {
	// Stored is the number that was applied; 0 when none was.
	Stored int
	// Number is the one of schema.sql.
	Number int
	// Own are the numbers of each service that has a schema.sql of its own, by
	// service.
	Own map[string]State
	// Pending is what Apply would do, for all services.
	Pending Proposal
}

// Converged reports whether the database is as schema.sql declares it. Of a
// database that a newer schema.sql made, nobody but the newer one can tell.
func (s State) Converged() bool {
	for _, own := range s.Own {
		if own.Stored < own.Number {
			return false
		}
	}
	return s.Stored == s.Number && len(s.Pending.Statements) == 0
}

// Newer reports whether the database carries a larger number than schema.sql.
func (s State) Newer() bool { return s.Stored > s.Number }

// DestructiveError is returned by Apply instead of losing data.
type DestructiveError struct {
	// Changes are what would be lost, one sentence each.
	Changes []string
}

func (e *DestructiveError) Error() string {
	return "refused, because data would be lost (a rename counts as well): " + strings.Join(e.Changes, "; ") +
		". Put it back into schema.sql, or permit the loss with --allow-destructive"
}

// Plan finds what Apply would do, and changes nothing. It always compares every
// table, so that changes made by hand are found too. It proposes nothing for a
// database that a newer schema.sql made.
func Plan(ctx context.Context, cfg Config) (Proposal, error) {
	state, err := Status(ctx, cfg)
	return state.Pending, err
}

// Status compares the database with schema.sql as Plan does.
func Status(ctx context.Context, cfg Config) (State, error) {
	t, err := open(ctx, cfg)
	if err != nil {
		return State{}, err
	}
	defer t.close()
	state := State{Own: map[string]State{}}
	for _, s := range t.sources {
		if s.own == "" {
			state.Stored, state.Number = s.stored, s.number
		} else {
			state.Own[s.own] = State{Stored: s.stored, Number: s.number}
		}
	}
	if t.skipNewer(); len(t.sources) == 0 {
		return state, nil
	}
	if state.Pending, err = t.propose(ctx); err != nil {
		return State{}, err
	}
	return state, nil
}

func (t *target) propose(ctx context.Context) (Proposal, error) {
	if err := t.readRoles(ctx); err != nil {
		return Proposal{}, err
	}
	if err := t.checkEmails(ctx); err != nil {
		return Proposal{}, err
	}
	tables, err := t.tableChanges(ctx)
	if err != nil {
		return Proposal{}, err
	}
	roles, err := t.roleChanges(ctx, tables.addsTables)
	if err != nil {
		return Proposal{}, err
	}
	return Proposal{
		Statements:  append(texts(tables.statements), texts(roles)...),
		Destructive: tables.destructive,
	}, nil
}

// Apply makes the database be as schema.sql declares it. Changes that lose data
// are refused with a *DestructiveError. A database that carries a larger number
// is left alone.
func Apply(ctx context.Context, cfg Config) (Result, error) {
	t, err := open(ctx, cfg)
	if err != nil {
		return Result{}, err
	}
	defer t.close()
	result := Result{Own: map[string]Result{}}
	for _, s := range t.sources {
		one := Result{Number: max(s.stored, s.number), Newer: s.newer()}
		if s.own == "" {
			result.Number, result.Newer = one.Number, one.Newer
		} else {
			result.Own[s.own] = one
		}
	}
	if t.skipNewer(); len(t.sources) > 0 {
		result.Statements, err = t.apply(ctx)
	}
	if err != nil {
		return Result{}, err
	}
	return result, nil
}

func (t *target) apply(ctx context.Context) ([]string, error) {
	// First, since the passwords are tried while the tables are looked at.
	if err := t.readRoles(ctx); err != nil {
		return nil, err
	}
	if err := t.checkEmails(ctx); err != nil {
		return nil, err
	}
	changed, err := t.changed(ctx)
	if err != nil {
		return nil, err
	}
	var done []string
	if len(changed) > 0 {
		if done, err = t.applyTables(ctx, changed); err != nil {
			return nil, err
		}
		for _, s := range changed {
			if err := t.remember(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	roles, err := t.applyRoles(ctx)
	if err != nil {
		return nil, err
	}
	done = append(done, roles...)
	if len(changed) == 0 && len(done) == 0 {
		return nil, nil
	}
	if err := t.tx.Commit(); err != nil {
		return nil, fmt.Errorf("commit the schema: %w", err)
	}
	for _, s := range t.sources {
		t.log.Info("schema applied", "database", t.database, "file", s.file(), "number", s.number, "before", s.stored, "statements", len(done))
	}
	return done, nil
}

// target is the database to change, within the one transaction that changes it.
type target struct {
	Config
	log *slog.Logger

	conn     *pgx.ConnConfig
	db       *sql.DB
	tx       *sql.Tx
	database string
	user     string
	sources  []*source
	services []string // of all sources
	roles    []serviceRole
	reader   *serviceRole   // nil for none
	signIns  sync.WaitGroup // those who try the roles' passwords
}

// open connects, waits for its turn and reads what was applied.
func open(ctx context.Context, cfg Config) (*target, error) {
	sources, err := readSources(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := parseURL(cfg.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	t := &target{
		Config:   cfg,
		log:      cfg.Logger,
		sources:  sources,
		services: servicesOf(sources),
		conn:     conn,
		db:       stdlib.OpenDB(*conn),
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if err := t.begin(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// The key of the advisory lock on the database to change.
const lockKey = 0x67617465_01

// beginTx makes a transaction wait for its turn. Every name is qualified, and
// nothing may depend on what the user's search_path hides. Another copy may hold
// the advisory lock for as long as it is at work, and building an index may take
// its time; but it waits only briefly for another transaction, since every later
// one queues behind it.
const beginTx = `
SET LOCAL search_path = '';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock(%d);
SET LOCAL lock_timeout = '10s'`

func (t *target) begin(ctx context.Context) error {
	tx, err := t.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return connectError(err)
	}
	t.tx = tx
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(beginTx, lockKey)); err != nil {
		return fmt.Errorf("wait for the schema lock: %w", err)
	}
	if err := t.readState(ctx); err != nil {
		return err
	}
	return t.checkOwnership(ctx)
}

// close rolls back what was not committed.
func (t *target) close() {
	t.signIns.Wait()
	if t.tx != nil {
		t.tx.Rollback()
	}
	t.db.Close()
}

// statement is one to execute. Its text is what people may see of it.
type statement struct {
	sql  string
	args []any
	text string
}

func texts(statements []statement) []string {
	list := make([]string, len(statements))
	for i, s := range statements {
		list[i] = s.text
	}
	return list
}

func (t *target) execute(ctx context.Context, statements []statement) error {
	for _, s := range statements {
		if _, err := t.tx.ExecContext(ctx, s.sql, s.args...); err != nil {
			return executeError(s, err)
		}
	}
	return nil
}
