package schema

import (
	"context"
	"slices"

	atlas "ariga.io/atlas/sql/schema"

	"gatehouse/internal/schema/auditlog"
)

// forgetClosed removes the closed tables of the audit log from the inspected state.
func (t *target) forgetClosed(ctx context.Context, current *atlas.Realm) error {
	closed, err := auditlog.Closed(ctx, t.tx, t.services)
	for _, s := range current.Schemas {
		s.Tables = slices.DeleteFunc(s.Tables, func(table *atlas.Table) bool { return slices.Contains(closed, [2]string{s.Name, table.Name}) })
	}
	return err
}

// closedIndexes returns the statements that build missing indexes of closed tables.
func (t *target) closedIndexes(ctx context.Context, locks *locks) ([]statement, error) {
	missing, err := auditlog.MissingIndexes(ctx, t.tx, t.services)
	var builds []statement
	for _, one := range missing {
		table, text := one[0], one[1]
		builds = append(builds, statement{sql: text, text: text, concurrent: true, lock: locks.on(table, shareUpdateExclusive, buildsIndex)})
	}
	return builds, err
}
