package auth

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// A session is of the epoch in which it began. Raising the epoch ends all that
// began before: each statement that asks whether a session is alive compares.

// currentEpoch stands in statements for the epoch of now.
const currentEpoch = `coalesce((SELECT session_epoch FROM auth.deployment), 0)`

const (
	selectEpoch = `SELECT ` + currentEpoch
	raiseEpoch  = `
		INSERT INTO auth.deployment (session_epoch) VALUES (1)
		ON CONFLICT ((true)) DO UPDATE SET session_epoch = deployment.session_epoch + 1`
)

const (
	insertDeployment = `INSERT INTO auth.deployment DEFAULT VALUES ON CONFLICT ((true)) DO NOTHING`
	lockIssuer       = `SELECT issuer, extract(epoch FROM clock_timestamp() - issuer_set_time)::float8 FROM auth.deployment FOR UPDATE`
	updateIssuer     = `UPDATE auth.deployment SET issuer = @issuer, issuer_set_time = clock_timestamp()`
	selectIssuer     = `SELECT issuer FROM auth.deployment`
)

// noteIssuer keeps this copy's issuer in the database, and warns if the copy
// that started before has another: then each refuses the other's tokens. The
// newest start counts, so that the issuer can be changed on purpose.
func (s *Service) noteIssuer(ctx context.Context) error {
	ours := s.keys.issuer
	if ours == "" {
		return nil // of the command line, which makes no tokens
	}
	var stored string
	var age float64
	err := s.db.QueryRow(ctx, selectIssuer).Scan(&stored)
	if err == nil && stored == ours {
		return nil // which needs no write
	}
	if err != nil && !missing(err) {
		return fmt.Errorf("read the issuer: %w", err)
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
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
		return fmt.Errorf("note the issuer: %w", err)
	}
	if stored != "" && stored != ours {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "the issuer changes: tokens of the old one are refused. If copies with the old one go on running, give all one GATEHOUSE_PUBLIC_URL",
			slog.String("issuer", ours), slog.String("old_issuer", stored), slog.Duration("old_since", seconds(age).Round(time.Second)))
	}
	return nil
}

// issuerWatch warns once of each other issuer that a later copy has started with.
type issuerWatch struct {
	ours   string
	logger *slog.Logger

	mu     sync.Mutex
	warned string
}

func (w *issuerWatch) see(stored string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ours == "" || stored == "" || stored == w.warned {
		return
	}
	w.warned = stored
	if stored == w.ours {
		return
	}
	w.logger.LogAttrs(context.Background(), slog.LevelWarn, "another copy of auth has started with another issuer: each refuses the other's tokens. Give all copies one GATEHOUSE_PUBLIC_URL",
		slog.String("issuer", w.ours), slog.String("other_issuer", stored))
}

// StoredIssuer returns the issuer of the copy that started last; "" before the
// first.
func StoredIssuer(ctx context.Context, db *pgx.Conn) (string, error) {
	var issuer string
	err := db.QueryRow(ctx, selectIssuer).Scan(&issuer)
	if missing(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the issuer: %w", err)
	}
	return issuer, nil
}
