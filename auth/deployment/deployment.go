// Package deployment holds what all replicas of auth share in one row: the
// issuer of tokens and the session epoch.
//
// A session belongs to the epoch in which it began. Raising the epoch ends all
// sessions of earlier epochs: each statement that checks a session compares.
package deployment

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// CurrentEpoch is the SQL expression of the current session epoch.
const CurrentEpoch = `coalesce((SELECT session_epoch FROM auth.deployment), 0)`

const (
	selectEpoch = `SELECT ` + CurrentEpoch
	raiseEpoch  = `
		INSERT INTO auth.deployment (session_epoch) VALUES (1)
		ON CONFLICT ((true)) DO UPDATE SET session_epoch = deployment.session_epoch + 1`
)

// Epoch returns the current session epoch.
func Epoch(ctx context.Context, tx pgx.Tx) (int64, error) {
	var epoch int64
	if err := tx.QueryRow(ctx, selectEpoch).Scan(&epoch); err != nil {
		return 0, fmt.Errorf("read the epoch: %w", err)
	}
	return epoch, nil
}

// RaiseEpoch ends every session.
func RaiseEpoch(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, raiseEpoch); err != nil {
		return fmt.Errorf("raise the epoch: %w", err)
	}
	return nil
}

const (
	insertDeployment = `INSERT INTO auth.deployment DEFAULT VALUES ON CONFLICT ((true)) DO NOTHING`
	lockIssuer       = `SELECT issuer, extract(epoch FROM clock_timestamp() - issuer_set_time)::float8 FROM auth.deployment FOR UPDATE`
	updateIssuer     = `UPDATE auth.deployment SET issuer = @issuer, issuer_set_time = clock_timestamp()`
	// SelectIssuer reads the issuer of the replica that started last.
	SelectIssuer = `SELECT issuer FROM auth.deployment`
)

// NoteIssuer stores this replica's issuer, and warns if the replica that started
// before it has another one: each refuses the other's tokens. The latest start wins,
// so that the issuer can be changed on purpose.
func NoteIssuer(ctx context.Context, db *database.Pool, ours string, logger *slog.Logger) error {
	if ours == "" {
		return nil // a command, which issues no tokens
	}
	var stored string
	var age float64
	err := db.QueryRow(ctx, SelectIssuer).Scan(&stored)
	if err == nil && stored == ours {
		return nil // which needs no write
	}
	if err != nil && !database.Missing(err) {
		return fmt.Errorf("read the issuer: %w", err)
	}
	err = db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertDeployment); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, lockIssuer).Scan(&stored, &age); err != nil || stored == ours {
			return err
		}
		_, err := tx.Exec(ctx, updateIssuer, pgx.NamedArgs{"issuer": ours})
		return err
	})
	if err != nil {
		return fmt.Errorf("store the issuer: %w", err)
	}
	if stored != "" && stored != ours {
		logger.LogAttrs(ctx, slog.LevelWarn, "issuer changed, tokens of the old one are refused: if replicas with the old one keep running, set one GATEHOUSE_PUBLIC_URL on all",
			slog.String("issuer", ours), slog.String("old_issuer", stored), slog.Duration("old_since", database.Seconds(age).Round(time.Second)))
	}
	return nil
}

// IssuerWatch warns once about each other issuer that a later replica starts with.
type IssuerWatch struct {
	issuer string
	logger *slog.Logger

	mu     sync.Mutex
	warned string
}

// WatchIssuer returns a watch of a replica with the issuer.
func WatchIssuer(issuer string, logger *slog.Logger) *IssuerWatch {
	return &IssuerWatch{issuer: issuer, logger: logger}
}

// See compares the stored issuer, as just read, with the replica's.
func (w *IssuerWatch) See(stored string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.issuer == "" || stored == "" || stored == w.warned {
		return
	}
	w.warned = stored
	if stored == w.issuer {
		return
	}
	w.logger.LogAttrs(context.Background(), slog.LevelWarn, "issuer mismatch: another replica of auth has started with another issuer, and each refuses the other's tokens: set one GATEHOUSE_PUBLIC_URL on all",
		slog.String("issuer", w.issuer), slog.String("other_issuer", stored))
}

// StoredIssuer returns the issuer of the replica that started last; "" before the
// first.
func StoredIssuer(ctx context.Context, db *pgx.Conn) (string, error) {
	var issuer string
	err := db.QueryRow(ctx, SelectIssuer).Scan(&issuer)
	if database.Missing(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the issuer: %w", err)
	}
	return issuer, nil
}
