package schema

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	atlas "ariga.io/atlas/sql/schema"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// tableChanges is the difference between the database and schema.sql.
type tableChanges struct {
	statements  []statement
	destructive []string
	// addsTables reports that tables will be created, which need grants.
	addsTables bool
}

func (t *target) tableChanges(ctx context.Context) (tableChanges, error) {
	fresh, older := splitByState(t.sources)
	changes, err := declared(fresh)
	if err != nil || len(older) == 0 {
		return changes, err
	}
	desired, err := t.replay(ctx, older)
	if err != nil {
		return tableChanges{}, err
	}
	altered, err := t.diff(ctx, desired, older)
	return changes.and(altered), err
}

// splitByState separates the sources without existing schemas from the others.
func splitByState(sources []*source) (fresh, older []*source) {
	for _, s := range sources {
		if s.fresh {
			fresh = append(fresh, s)
		} else {
			older = append(older, s)
		}
	}
	return fresh, older
}

// and returns the changes followed by others.
func (c tableChanges) and(others tableChanges) tableChanges {
	return tableChanges{
		statements:  slices.Concat(c.statements, others.statements),
		destructive: slices.Concat(c.destructive, others.destructive),
		addsTables:  c.addsTables || others.addsTables,
	}
}

// applyTables creates the tables of new sources and alters those of the others.
func (t *target) applyTables(ctx context.Context, sources []*source) ([]string, error) {
	fresh, older := splitByState(sources)
	made, err := declared(fresh)
	if err != nil {
		return nil, err
	}
	if err := t.execute(ctx, made.statements); err != nil {
		return nil, err
	}
	altered, err := t.alterTables(ctx, older)
	return append(texts(made.statements), altered...), err
}

// alterTables executes the difference and verifies that none remains.
func (t *target) alterTables(ctx context.Context, sources []*source) ([]string, error) {
	if len(sources) == 0 {
		return nil, nil
	}
	desired, err := t.replay(ctx, sources)
	if err != nil {
		return nil, err
	}
	changes, err := t.diff(ctx, desired, sources)
	if err != nil || len(changes.statements) == 0 {
		return nil, err
	}
	if len(changes.destructive) > 0 && !t.AllowDestructive {
		return nil, &DestructiveError{Changes: changes.destructive}
	}
	now, _ := splitConcurrent(changes.statements)
	if err := t.execute(ctx, now); err != nil {
		return nil, err
	}
	// Otherwise each start would retry a difference that Atlas cannot remove.
	rest, err := t.diff(ctx, desired, sources)
	if err != nil {
		return nil, err
	}
	remain, later := splitConcurrent(rest.statements)
	if len(remain) > 0 {
		return nil, fmt.Errorf("the tables can't be altered to match schema.sql. These changes remain: %s",
			strings.Join(texts(remain), "; "))
	}
	t.indexes = later
	return texts(now), nil
}

// declared returns all statements of the sources.
func declared(sources []*source) (tableChanges, error) {
	var changes tableChanges
	for _, s := range sources {
		one, err := s.statements()
		if err != nil {
			return tableChanges{}, err
		}
		changes = changes.and(one)
	}
	return changes, nil
}

func (s *source) statements() (tableChanges, error) {
	stmts, err := new(postgres.Driver).ScanStmts(s.sql)
	if err != nil {
		return tableChanges{}, fmt.Errorf("read %s: %w", s.file(), err)
	}
	changes := tableChanges{addsTables: true}
	for _, s := range stmts {
		text := strings.TrimSuffix(s.Text, ";")
		changes.statements = append(changes.statements, statement{sql: text, text: text})
	}
	return changes, nil
}

// scope limits Atlas to the schemas of the sources.
func scope(sources []*source) *atlas.InspectRealmOption {
	return &atlas.InspectRealmOption{Schemas: servicesOf(sources)}
}

func (t *target) diff(ctx context.Context, desired desiredState, sources []*source) (tableChanges, error) {
	drv, err := postgres.Open(t.tx)
	if err != nil {
		return tableChanges{}, err
	}
	current, err := drv.InspectRealm(ctx, scope(sources))
	if err != nil {
		return tableChanges{}, fmt.Errorf("inspect the database: %w", err)
	}
	if err := t.forgetClosed(ctx, current); err != nil {
		return tableChanges{}, err
	}
	drops, err := forgetInvalid(ctx, t.tx, t.services, current)
	if err != nil {
		return tableChanges{}, err
	}
	diff, err := drv.RealmDiff(current, desired.realm, atlas.DiffNormalized())
	if err != nil {
		return tableChanges{}, fmt.Errorf("compare the database with schema.sql: %w", err)
	}
	if err := checkUnsupported(diff); err != nil {
		return tableChanges{}, err
	}
	changes := tableChanges{destructive: destructive(diff)}
	for _, c := range diff {
		if _, ok := c.(*atlas.AddTable); ok {
			changes.addsTables = true
		}
	}
	plan, err := drv.PlanChanges(ctx, "apply", diff)
	if err != nil {
		return tableChanges{}, fmt.Errorf("plan the changes: %w", err)
	}
	locks, err := t.readLocks(ctx)
	if err != nil {
		return tableChanges{}, err
	}
	dropped := droppedIndexes(plan)
	before, after, err := t.dependentTriggers(ctx, locks, diff)
	if err != nil {
		return tableChanges{}, err
	}
	changes.statements = slices.Concat(drops, before)
	for _, c := range plan.Changes {
		changes.statements = append(changes.statements, locks.planned(c, dropped))
	}
	changes.statements = append(changes.statements, after...)
	missing, err := t.closedIndexes(ctx, locks)
	if err != nil {
		return tableChanges{}, err
	}
	changes.statements = append(changes.statements, missing...)
	storage, err := readStorage(ctx, t.tx, t.services)
	changes.statements = append(changes.statements, storageChanges(locks, storage, desired.storage)...)
	return changes, err
}

// checkUnsupported returns an error for a change for which Atlas plans no statement, and
// which it would find again at every start.
func checkUnsupported(diff []atlas.Change) error {
	for _, c := range diff {
		object, ok := c.(*atlas.ModifyObject)
		if !ok {
			continue
		}
		from, ok1 := object.From.(*atlas.EnumType)
		to, ok2 := object.To.(*atlas.EnumType)
		if !ok1 || !ok2 {
			continue
		}
		for _, value := range from.Values {
			if !slices.Contains(to.Values, value) {
				return fmt.Errorf("the value %[3]q of the enum %[1]s.%[2]s can't be removed: keep it, or create another type", from.Schema.Name, from.T, value)
			}
		}
	}
	return nil
}

// destructive describes the changes that lose data or may lose data.
func destructive(diff []atlas.Change) []string {
	var lost []string
	for _, c := range diff {
		switch c := c.(type) {
		case *atlas.DropSchema:
			lost = append(lost, fmt.Sprintf("schema %s is dropped", c.S.Name))
		case *atlas.DropTable:
			lost = append(lost, fmt.Sprintf("table %s.%s is dropped", c.T.Schema.Name, c.T.Name))
		case *atlas.ModifyTable:
			table := c.T.Schema.Name + "." + c.T.Name
			for _, c := range c.Changes {
				switch c := c.(type) {
				case *atlas.DropColumn:
					lost = append(lost, fmt.Sprintf("column %s.%s is dropped", table, c.C.Name))
				case *atlas.ModifyColumn:
					if c.Change.Is(atlas.ChangeType) && !widens(c.From.Type.Type, c.To.Type.Type) {
						lost = append(lost, fmt.Sprintf("column %s.%s changes from %s to %s",
							table, c.From.Name, typeName(c.From), typeName(c.To)))
					}
				}
			}
		}
	}
	return lost
}

// widens reports whether type to can represent every value of type from. It supports common
// types, and returns false for others.
func widens(from, to atlas.Type) bool {
	switch from := from.(type) {
	case *atlas.IntegerType:
		switch to := to.(type) {
		case *atlas.IntegerType:
			return integerBytes[to.T] >= integerBytes[from.T]
		case *atlas.DecimalType:
			return to.Precision == 0
		}
	case *atlas.StringType:
		to, ok := to.(*atlas.StringType)
		switch {
		case !ok || from.T == postgres.TypeCharacter || from.T == postgres.TypeChar:
			return false
		case to.T == postgres.TypeText:
			return true
		}
		// A size of 0 is any length.
		return to.T == from.T && (to.Size == 0 || from.Size > 0 && to.Size >= from.Size)
	case *atlas.DecimalType:
		to, ok := to.(*atlas.DecimalType)
		if !ok {
			return false
		}
		return to.Precision == 0 || from.Precision > 0 &&
			to.Scale >= from.Scale && to.Precision-to.Scale >= from.Precision-from.Scale
	case *atlas.FloatType:
		to, ok := to.(*atlas.FloatType)
		return ok && from.T == postgres.TypeReal && to.T == postgres.TypeDouble
	}
	return false
}

var integerBytes = map[string]int{
	postgres.TypeSmallInt: 2,
	postgres.TypeInteger:  4,
	postgres.TypeBigInt:   8,
}

func typeName(c *atlas.Column) string {
	name, err := postgres.FormatType(c.Type.Type)
	if err != nil {
		return c.Type.Raw
	}
	return name
}

// replay executes the sources on a scratch database and inspects the result. It rolls back
// the transaction, so that the database in DevURL remains empty even after a crash.
func (t *target) replay(ctx context.Context, sources []*source) (desired desiredState, err error) {
	changes, err := declared(sources)
	if err != nil {
		return desiredState{}, err
	}
	err = t.withScratch(ctx, func(tx *sql.Tx) error {
		drv, err := postgres.Open(tx)
		if err != nil {
			return err
		}
		if err := drv.(migrate.CleanChecker).CheckClean(ctx, nil); err != nil {
			return fmt.Errorf("the scratch database must be empty: %w", err)
		}
		for _, s := range changes.statements {
			if _, err := tx.ExecContext(ctx, s.sql); err != nil {
				return fmt.Errorf("replay schema.sql on the scratch database: execute %q: %w", s.text, err)
			}
		}
		if desired.realm, err = drv.InspectRealm(ctx, scope(sources)); err != nil {
			return fmt.Errorf("inspect the scratch database: %w", err)
		}
		desired.storage, err = readStorage(ctx, tx, servicesOf(sources))
		return err
	})
	return desired, err
}

// withScratch calls f with a transaction on the database in DevURL or on a temporary
// database.
func (t *target) withScratch(ctx context.Context, f func(*sql.Tx) error) error {
	if t.DevURL != "" {
		conn, err := parseURL(t.DevURL)
		if err != nil {
			return fmt.Errorf("ATLAS_DEV_URL: %w", err)
		}
		if err := inScratch(ctx, conn, f); err != nil {
			return fmt.Errorf("ATLAS_DEV_URL: %w", err)
		}
		return nil
	}
	// CREATE DATABASE can't run in the transaction of the target.
	admin, err := t.db.Conn(ctx)
	if err != nil {
		return connectError(err)
	}
	defer admin.Close()
	t.dropLeftovers(ctx, admin)
	name, err := createScratch(ctx, admin)
	if err != nil {
		return err
	}
	defer func() {
		// Even if ctx has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if err := dropScratch(ctx, admin, name); err != nil {
			t.log.Warn("schema: scratch database not dropped, a later run drops it", "database", name, "error", err)
		}
	}()
	conn := t.conn.Copy()
	conn.Database = name
	return inScratch(ctx, conn, f)
}

// scratchLockKey is the key of the advisory lock on a scratch database, which processes may
// share. It differs from lockKey, which this process already holds if both URLs name the
// same database by mistake.
const scratchLockKey = 0x67617465_02

func inScratch(ctx context.Context, cfg *pgx.ConnConfig, f func(*sql.Tx) error) error {
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return connectError(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(beginTx, scratchLockKey)); err != nil {
		return fmt.Errorf("wait for the scratch database: %w", err)
	}
	return f(tx)
}

// createScratch creates a scratch database whose name contains its creation time on Postgres'
// clock. Its template is template0, because template1 may have been modified.
func createScratch(ctx context.Context, admin *sql.Conn) (string, error) {
	var now int64
	if err := admin.QueryRowContext(ctx, `SELECT extract(epoch FROM now())::bigint`).Scan(&now); err != nil {
		return "", err
	}
	var unique [4]byte
	rand.Read(unique[:])
	name := fmt.Sprintf("gatehouse_scratch_%d_%s", now, hex.EncodeToString(unique[:]))
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return "", scratchError(err)
	}
	return name, nil
}

func dropScratch(ctx context.Context, admin *sql.Conn, name string) error {
	_, err := admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
	return err
}

const selectLeftovers = `
SELECT datname
FROM pg_catalog.pg_database
WHERE datname ~ '^gatehouse_scratch_[0-9]{10}_[0-9a-f]{8}$'
	AND split_part(datname, '_', 3)::bigint < extract(epoch FROM now()) - 3600
	AND datdba = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)`

// dropLeftovers drops the scratch databases of runs that crashed more than an hour ago. A
// later run retries after a failure.
func (t *target) dropLeftovers(ctx context.Context, admin *sql.Conn) {
	rows, err := admin.QueryContext(ctx, selectLeftovers)
	if err != nil {
		t.log.Debug("schema: listing abandoned scratch databases failed", "error", err)
		return
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if rows.Scan(&name) == nil {
			names = append(names, name)
		}
	}
	err = rows.Err()
	for _, name := range names {
		err = errors.Join(err, dropScratch(ctx, admin, name))
	}
	if err != nil {
		t.log.Debug("schema: dropping abandoned scratch databases failed", "error", err)
	}
}
