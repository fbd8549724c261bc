package rpc_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// storeIsAway returns what pgx says when nobody listens where the store was.
func storeIsAway(t testing.TB) error {
	t.Helper()
	_, err := pgconn.Connect(t.Context(), "postgres://gatehouse:hunter2-s3cret@127.0.0.1:1/hunter2-s3cret?sslmode=disable&connect_timeout=2")
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok {
		t.Fatalf("connect to a closed port: got %v, want a ConnectError", err)
	}
	return err
}

func postgresError(code, message string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: code, Message: message, Detail: message}
}

// stalePlan is what Postgres says of a prepared statement whose result has another
// type by now.
func stalePlan(message string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: "0A000", Message: message, Routine: "RevalidateCachedQuery"}
}
