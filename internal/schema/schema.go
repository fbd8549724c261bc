// Package schema migrates a database to the state that schema.sql declares: the tables of
// each service in the schema of its name, the login role of each service with its grants,
// and optionally a read-only login role for people. A service may have its own schema.sql
// with its own number (see source).
//
// Atlas computes the changes: schema.sql is replayed on a scratch database, both databases
// are inspected, and the difference is executed. The scratch database is created and dropped
// on the same server, unless one is configured. Atlas does not handle:
//
//   - Other schemas. Both inspections are limited to the services' schemas; otherwise Atlas
//     would drop all other objects of the database.
//   - A database without any schema of a service. It executes schema.sql itself, which needs
//     no scratch database.
//   - Roles, grants, functions, triggers and storage parameters, which Atlas does not support.
//     They are compared with the catalog and corrected with idempotent statements.
//
// All changes are made in one transaction under an advisory lock, so that a failure leaves no
// partial state, and so that one of several concurrent processes makes them; indexes of large
// tables are built after it (see Apply). The table
// applied_schema of each schema stores the number of schema.sql and hashes of its text and of
// the tables. While those match, Apply runs a few queries and needs no scratch database.
//
// This package is large because tables, roles, functions and triggers are compared and
// changed in one transaction, each with its lock and its refusals.
package schema

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Config configures Apply, Plan and Status.
type Config struct {
	// SQL is the text of schema.sql, which carries a number (see Number) and
	// declares a table applied_schema in each service's schema (see Services).
	SQL string

	// Own are the texts of the services that have their own schema.sql, by service. Each has
	// its own number and declares the schema of that service only.
	Own map[string]string

	// DatabaseURL is the database to change, as a URI or as keywords and values. Its user
	// must own the database or be able to create schemas in it, and needs CREATEROLE and,
	// without DevURL, CREATEDB. It need not be a superuser.
	DatabaseURL string

	// DevURL (ATLAS_DEV_URL) is an empty database to replay schema.sql on, for a user without
	// CREATEDB. It remains empty.
	DevURL string

	// Roles are the login roles by service. The default is a role of the default name without
	// a password.
	Roles map[string]Role

	// Reader is the read-only login role for people. If it is empty, an existing role is not
	// changed. The role may read the tables of all services, except secrets (see
	// readableBytes and secretTexts).
	Reader Role

	// TablesOnly excludes roles, grants and functions.
	TablesOnly bool

	// AllowDestructive permits changes that lose data.
	AllowDestructive bool

	// AllowLocking permits statements that block a large table until every row is processed.
	AllowLocking bool

	// LargeTable is the size in bytes from which a table is large; 0 is 64 MiB.
	LargeTable int64

	// Shared permits the first Apply to a database that contains tables of other programs.
	// Apply still refuses a schema of another program that has the name of a service.
	Shared bool

	// SettingNames are the environment names of the binary's settings. Apply records them for
	// older binaries (see database.SettingNames).
	SettingNames []string

	// Logger receives the applied numbers; nil disables logging.
	Logger *slog.Logger
}

// Proposal lists the changes that Apply would make.
type Proposal struct {
	// Statements are in the order of execution. Passwords are masked. Indexes that are built
	// concurrently come last: they are not part of the transaction.
	Statements []string
	// Locks are the locks on existing tables by statement; nil for a statement without one.
	Locks []*Lock
	// Destructive describes each change that loses data. Apply refuses them without
	// AllowDestructive.
	Destructive []string
	// Locking describes each statement that blocks a large table until every row is
	// processed. Apply refuses them without AllowLocking.
	Locking []string
}

// Result lists the changes that Apply made.
type Result struct {
	// Number is the number that the database now has.
	Number int
	// Newer reports that Number is larger than that of schema.sql. Tables and roles were then
	// not changed.
	Newer bool
	// Own are the results of the services that have their own schema.sql, by service.
	Own map[string]Result
	// Statements are in the order of execution. Passwords are masked.
	Statements []string
}

// State compares a database with schema.sql.
type State struct {
	// Stored is the applied number; 0 if none was applied.
	Stored int
	// Number is the number of schema.sql.
	Number int
	// Own are the numbers of the services that have their own schema.sql, by service.
	Own map[string]State
	// Pending lists the changes that Apply would make, for all services.
	Pending Proposal
}

// Converged reports whether the database has the state that schema.sql declares. It is false
// for a database with a larger number.
func (s State) Converged() bool {
	for _, own := range s.Own {
		if own.Stored < own.Number {
			return false
		}
	}
	return s.Stored == s.Number && len(s.Pending.Statements) == 0
}

// Newer reports whether the database has a larger number than schema.sql.
func (s State) Newer() bool { return s.Stored > s.Number }

// DestructiveError is the error of Apply for changes that lose data. Nothing was changed.
type DestructiveError struct {
	// Changes describes each change that loses data.
	Changes []string
}

func (e *DestructiveError) Error() string {
	return "refused, because data would be lost (a rename is a drop and an add): " + strings.Join(e.Changes, "; ") +
		". Restore it in schema.sql, or permit the loss with --allow-destructive"
}

// Plan returns the changes that Apply would make, and makes none. It compares every table,
// even if the stored hashes match. It proposes nothing for a database with a larger number.
func Plan(ctx context.Context, cfg Config) (Proposal, error) {
	state, err := Status(ctx, cfg)
	return state.Pending, err
}

// Status compares the database with schema.sql, like Plan.
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
	now, later := splitConcurrent(tables.statements)
	all := slices.Concat(now, roles, later)
	proposal := Proposal{Statements: texts(all), Destructive: tables.destructive, Locking: locking(all)}
	for _, s := range all {
		proposal.Locks = append(proposal.Locks, s.lock)
	}
	return proposal, nil
}

func (t *target) apply(ctx context.Context) ([]string, error) {
	// First, because the passwords are checked concurrently with the tables.
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
			if len(t.indexes) > 0 {
				break // The number waits for them.
			}
			if err := t.storeState(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	roles, err := t.applyRoles(ctx)
	if err != nil {
		return nil, err
	}
	done = append(done, roles...)
	recorded, err := t.recordNames(ctx)
	if err != nil {
		return nil, err
	}
	if len(changed) == 0 && len(done) == 0 && !recorded {
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

// target is the database to change, with the transaction that changes it.
type target struct {
	Config
	log *slog.Logger

	conn           *pgx.ConnConfig
	db             *sql.DB
	tx             *sql.Tx
	database       string
	user           string
	sources        []*source
	services       []string // of all sources
	roles          []serviceRole
	reader         *serviceRole   // nil for none
	passwordChecks sync.WaitGroup // running checks of the roles' passwords
	indexes        []statement    // to build concurrently after the transaction
}

// open connects, acquires the advisory lock and reads the stored state.
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

// lockKey is the key of the advisory lock on the database to change.
const lockKey = 0x67617465_01

// beginTx acquires the advisory lock. The search path is empty so that no unqualified name
// depends on the user's. There is no timeout for the advisory lock, which another process
// holds until it has finished, or for statements, because building an index may take long.
// The timeout for table locks is short, because later transactions queue behind the waiting
// one.
const beginTx = `
SET LOCAL search_path = '';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock(%d);
SET LOCAL lock_timeout = '2s'`

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

// close rolls back an uncommitted transaction and closes the connections.
func (t *target) close() {
	t.passwordChecks.Wait()
	if t.tx != nil {
		t.tx.Rollback()
	}
	t.db.Close()
}

// statement is a statement to execute. Its text is for logs and output, without passwords.
type statement struct {
	sql  string
	args []any
	text string

	lock       *Lock // on an existing table; nil for none
	concurrent bool  // an index to build after the transaction
}

// splitConcurrent separates the indexes to build after the transaction.
func splitConcurrent(statements []statement) (now, later []statement) {
	for _, s := range statements {
		if s.concurrent {
			later = append(later, s)
		} else {
			now = append(now, s)
		}
	}
	return now, later
}

func texts(statements []statement) []string {
	list := make([]string, len(statements))
	for i, s := range statements {
		list[i] = s.text
	}
	return list
}

func (t *target) execute(ctx context.Context, statements []statement) error {
	if refused := locking(statements); len(refused) > 0 && !t.AllowLocking {
		return &LockingError{Changes: refused}
	}
	for _, s := range statements {
		if _, err := t.tx.ExecContext(ctx, s.sql, s.args...); err != nil {
			return executeError(s, err)
		}
	}
	return nil
}
