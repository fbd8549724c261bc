// Command ledger is a service for tests: it has one table about people, in a schema of
// its own, and erases its rows when auth deletes their account.
package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/lifecycle"
	"gatehouse/internal/rpc"
)

const service = "ledger"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("LEDGER_DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	key, err := hex.DecodeString(os.Getenv("GATEHOUSE_INTERNAL_KEY"))
	if err != nil {
		return err
	}
	auth, err := dial.Dial(dial.Route{Caller: service, Callee: "auth", Keys: rpc.InternalKeys{key}, Persistent: true}, os.Getenv("AUTH_URL"))
	if err != nil {
		return err
	}
	db := database.Retrying(pool)
	lifecycle.New(lifecycle.Config{
		Service: service, DB: db, Feed: authv1.NewAccountFeedServiceClient(auth), DeletionsOnly: true,
		Apply: lifecycle.NewEraser(service, erase).Apply,
		List: func(ctx context.Context, after string, most int) ([]string, error) {
			return list(ctx, db, after, most)
		},
		Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	}).Run(ctx)
	return nil
}

const deleteEntries = `DELETE FROM ledger.entries WHERE account_id = @id`

func erase(ctx context.Context, tx pgx.Tx, account string) error {
	_, err := tx.Exec(ctx, deleteEntries, pgx.NamedArgs{"id": account})
	return err
}

const selectAccounts = `SELECT DISTINCT account_id::text AS id FROM ledger.entries WHERE account_id::text > @after ORDER BY id LIMIT @most`

func list(ctx context.Context, db *database.Pool, after string, most int) ([]string, error) {
	rows, err := db.Query(ctx, selectAccounts, pgx.NamedArgs{"after": after, "most": most})
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
