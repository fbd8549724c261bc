package rpc_test

import (
	"errors"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// unreachableStore returns the error of pgx for an address without a listener.
func unreachableStore(t testing.TB) error {
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

// refusedByPostgres is what a connection's attempt to sign in returns when Postgres
// refuses it.
func refusedByPostgres(t testing.TB, code string) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1024))
		message, err := (&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: "hunter2-s3cret"}).Encode(nil)
		if err == nil {
			_, _ = conn.Write(message)
		}
	}()
	_, err = pgconn.Connect(t.Context(), "postgres://gatehouse@"+listener.Addr().String()+"/gatehouse?sslmode=disable&connect_timeout=2")
	if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != code {
		t.Fatalf("sign in to Postgres: got %v, want %s", err, code)
	}
	return err
}
