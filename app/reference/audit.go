package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const auditHead = `# Audit events

Made by ` + "`make gen`" + ` from the events' comments in ` + "`auth`" + `.

Each change of an identity, and each attempt, is recorded in the transaction that makes the change, so that either both are committed or neither.
An event has the ids of the account concerned and of the actor, the session, the webhook or API key concerned, the IP address, the user agent and the request id; never an email, a password or a token.
Its outcome is ` + "`succeeded`" + `, or ` + "`refused`" + ` with the reason that the caller got ([errors.md](errors.md)).
Refusals of the same event with the same reason, for one account or network, are combined into one event per minute: its count is their number, and its other fields describe the first.
Administrators list events with ` + "`ListAuditEvents`" + `, and people list their own with ` + "`ListMyAuditEvents`" + `; events are listed for ` + "`GATEHOUSE_AUDIT_LIFE`" + `, and deleted within a month after it ([a table for each month](../explanation/audit-log.md)).
auth's role in Postgres can insert events and can't update them, except for that count, which a function of the tables' owner increments.

| event | what happened |
| --- | --- |
`

// auditPage returns the page on audit events: the constants of the type event in
// auth's source, with their comments.
func auditPage() (string, error) {
	var rows []string
	err := filepath.WalkDir("auth", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		found, err := eventsOf(path)
		rows = append(rows, found...)
		return err
	})
	if err == nil && len(rows) == 0 {
		err = errors.New("no constants of the type event in auth")
	}
	slices.Sort(rows)
	return auditHead + strings.Join(rows, ""), err
}

func eventsOf(path string) (rows []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(node ast.Node) bool {
		constant, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := constant.Type.(*ast.Ident); !ok || kind.Name != "event" && kind.Name != "Event" || len(constant.Values) != 1 {
			return true
		}
		literal, ok := constant.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		about := strings.TrimSpace(constant.Comment.Text())
		event, unquoted := strconv.Unquote(literal.Value)
		if unquoted != nil || about == "" {
			err = fmt.Errorf("%s: %s has no comment that describes the event", path, constant.Names[0])
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", event, about))
		return true
	})
	return rows, err
}
