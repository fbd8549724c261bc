package database

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// named are [pgx.NamedArgs] whose statement is parsed once. pgx parses it for each call.
type named struct {
	args       pgx.NamedArgs
	statements *parsedStatements
}

// parseOnce returns the arguments of a statement with its named ones as named.
func (p *Pool) parseOnce(arguments []any) []any {
	if len(arguments) == 1 {
		if args, ok := arguments[0].(pgx.NamedArgs); ok {
			return []any{named{args, &p.statements}}
		}
	}
	return arguments
}

// RewriteQuery implements [pgx.QueryRewriter].
func (n named) RewriteQuery(ctx context.Context, conn *pgx.Conn, sql string, arguments []any) (string, []any, error) {
	statement := n.statements.find(sql)
	if statement == nil {
		var err error
		if statement, err = parseNamed(ctx, conn, sql, n.args); err != nil {
			return "", nil, err
		}
		if statement == nil {
			return n.args.RewriteQuery(ctx, conn, sql, arguments)
		}
		n.statements.store(sql, statement)
	}
	values := make([]any, len(statement.names))
	for i, name := range statement.names {
		values[i] = n.args[name]
	}
	return statement.sql, values, nil
}

// parsedStatement is a statement with $1, $2 … instead of the names.
type parsedStatement struct {
	sql   string
	names []string
}

// parseNamed parses a statement by giving pgx the names as values. It returns nil if an
// argument is missing, because pgx does not say which name that has.
func parseNamed(ctx context.Context, conn *pgx.Conn, sql string, args pgx.NamedArgs) (*parsedStatement, error) {
	names := make(pgx.NamedArgs, len(args))
	for name := range args {
		names[name] = name
	}
	parsed, values, err := names.RewriteQuery(ctx, conn, sql, nil)
	if err != nil {
		return nil, err
	}
	statement := &parsedStatement{sql: parsed}
	for _, value := range values {
		name, ok := value.(string)
		if !ok {
			return nil, nil
		}
		statement.names = append(statement.names, name)
	}
	return statement, nil
}

// maxStatements bounds the parsed statements. Almost all statements are constants.
const maxStatements = 1000

// parsedStatements are the parsed statements of a pool.
type parsedStatements struct {
	mu    sync.RWMutex
	bySQL map[string]*parsedStatement
}

func (s *parsedStatements) find(sql string) *parsedStatement {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bySQL[sql]
}

func (s *parsedStatements) store(sql string, statement *parsedStatement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySQL == nil || len(s.bySQL) >= maxStatements {
		s.bySQL = map[string]*parsedStatement{}
	}
	s.bySQL[sql] = statement
}
