package database

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestNamedArgumentsAreThoseOfPgx(t *testing.T) {
	t.Parallel()
	statements := &parsedStatements{}
	for _, sql := range []string{
		"SELECT 1", "SELECT @a", "SELECT @b, @a, @b::text", "SELECT '@a', @a -- @b", "SELECT @missing, @a", "SELECT a@b, @a", "SELECT $$@a$$, @a",
	} {
		for _, args := range []pgx.NamedArgs{
			{}, {"a": 1}, {"a": 2, "b": "x"}, {"a": 3, "missing": nil}, {"a": 4, "b": 5, "missing": 6, "unused": 7},
		} {
			wantSQL, wantArgs, wantErr := args.RewriteQuery(t.Context(), nil, sql, nil)
			for range 2 { // parsed, and remembered
				gotSQL, gotArgs, gotErr := named{args, statements}.RewriteQuery(t.Context(), nil, sql, nil)
				if gotSQL != wantSQL || !reflect.DeepEqual(gotArgs, wantArgs) || (gotErr == nil) != (wantErr == nil) {
					t.Errorf("%s with %v: got %s %v %v, want %s %v %v", sql, args, gotSQL, gotArgs, gotErr, wantSQL, wantArgs, wantErr)
				}
			}
		}
	}
	if parsed := statements.find("SELECT @b, @a, @b::text"); parsed == nil || parsed.sql != "SELECT $1, $2, $1::text" {
		t.Errorf("got %+v, want the statement once it has been parsed", parsed)
	}
}

func TestParsedStatementsAreBounded(t *testing.T) {
	t.Parallel()
	var s parsedStatements
	for i := range 3 * maxStatements {
		s.store(strconv.Itoa(i), &parsedStatement{})
		if len(s.bySQL) > maxStatements {
			t.Fatalf("%d statements are kept, want at most %d", len(s.bySQL), maxStatements)
		}
	}
	if last := strconv.Itoa(3*maxStatements - 1); s.find(last) == nil {
		t.Errorf("statement %s is not kept", last)
	}
}
