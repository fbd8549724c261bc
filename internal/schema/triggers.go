package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	atlas "ariga.io/atlas/sql/schema"
	"github.com/jackc/pgx/v5"
)

// Postgres changes the type of no column that a trigger names, and drops none. Atlas knows
// no triggers, so that the statements of a table are put between those that drop and create
// the triggers again, in the same transaction: the first of them waits until all writers have
// committed, and later ones wait for its end, so that no change is missed.

// selectDependentTriggers selects the triggers of a table that name one of the columns, and
// whether it is one of those that this package creates.
const selectDependentTriggers = `
SELECT g.tgname, pg_get_triggerdef(g.oid), coalesce(g.tgfoid IN (to_regprocedure('auth.write_event()'), to_regprocedure('auth.log_account()')), false)
FROM pg_catalog.pg_trigger g
WHERE g.tgrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND NOT g.tgisinternal AND EXISTS (
	SELECT FROM pg_catalog.pg_depend d
	JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
	WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = g.oid
		AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = g.tgrelid AND a.attname = ANY ($3::text[])
)
ORDER BY g.tgname`

// dependentTriggers returns the statements to execute before and after a difference.
func (t *target) dependentTriggers(ctx context.Context, locks *locks, diff []atlas.Change) (before, after []statement, err error) {
	for _, c := range diff {
		table, ok := c.(*atlas.ModifyTable)
		if !ok {
			continue
		}
		retyped, dropped := changedColumns(table)
		if len(retyped) == 0 && len(dropped) == 0 {
			continue
		}
		drops, creates, err := t.triggersOf(ctx, locks, table.T, retyped, false)
		if err != nil {
			return nil, nil, err
		}
		// Those of a dropped column are created by what this package declares, or by nobody:
		// then they are the operator's, and Postgres says so.
		ours, _, err := t.triggersOf(ctx, locks, table.T, dropped, true)
		if err != nil {
			return nil, nil, err
		}
		for _, drop := range ours {
			i := slices.IndexFunc(drops, func(s statement) bool { return s.sql == drop.sql })
			if i >= 0 { // one that names columns of both kinds
				drops, creates = slices.Delete(drops, i, i+1), slices.Delete(creates, i, i+1)
			}
		}
		before, after = slices.Concat(before, drops, ours), append(after, creates...)
	}
	return before, after, nil
}

func changedColumns(table *atlas.ModifyTable) (retyped, dropped []string) {
	for _, c := range table.Changes {
		switch c := c.(type) {
		case *atlas.ModifyColumn:
			if c.Change.Is(atlas.ChangeType) {
				retyped = append(retyped, c.From.Name)
			}
		case *atlas.DropColumn:
			dropped = append(dropped, c.C.Name)
		}
	}
	return retyped, dropped
}

func (t *target) triggersOf(ctx context.Context, locks *locks, table *atlas.Table, columns []string, ours bool) (drops, creates []statement, err error) {
	if len(columns) == 0 {
		return nil, nil, nil
	}
	rows, err := t.tx.QueryContext(ctx, selectDependentTriggers, table.Schema.Name, table.Name, columns)
	if err != nil {
		return nil, nil, fmt.Errorf("list the triggers of %s: %w", tableName(table), err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, definition string
		var own bool
		if err := rows.Scan(&name, &definition, &own); err != nil {
			return nil, nil, fmt.Errorf("list the triggers of %s: %w", tableName(table), err)
		}
		if ours && !own {
			continue
		}
		drops = append(drops, locks.dropTrigger(name, tableName(table)))
		creates = append(creates, locks.createTrigger(definition, tableName(table)))
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("list the triggers of %s: %w", tableName(table), err)
	}
	return drops, creates, nil
}

// dropTrigger and createTrigger return a statement for a trigger of a table, schema.name.
func (l *locks) dropTrigger(name, table string) statement {
	sql := fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", pgx.Identifier{name}.Sanitize(), pgx.Identifier(strings.SplitN(table, ".", 2)).Sanitize())
	return statement{sql: sql, text: sql, lock: l.on(table, accessExclusive, "")}
}

func (l *locks) createTrigger(definition, table string) statement {
	return statement{sql: definition, text: definition, lock: l.on(table, shareRowExclusive, "")}
}
