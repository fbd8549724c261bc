package challenge

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

const (
	claim = `
		UPDATE auth.challenges SET tries = tries + 1
		WHERE token_hash = @challenge AND purpose = @purpose AND end_time IS NULL AND tries = 0`
	giveMethods = `
		UPDATE auth.challenges SET amr = @amr, first_proof_time = clock_timestamp()
		WHERE token_hash = @challenge AND purpose = @purpose AND end_time IS NULL`
)

// Claim takes a challenge that may be answered once, before the answer is checked
// elsewhere: of answers that arrive together, one is checked. Errors:
// failed_precondition CHALLENGE_USED.
func (c Challenge) Claim(ctx context.Context, db database.Execer) error {
	tag, err := db.Exec(ctx, claim, pgx.NamedArgs{"challenge": c.hash[:], "purpose": string(c.Purpose)})
	if err != nil {
		return fmt.Errorf("claim the challenge: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errUsed
	}
	return nil
}

// Advance stores the methods of a first proof in a locked challenge, which then waits for
// the second.
func (c Challenge) Advance(ctx context.Context, tx pgx.Tx, amr []string) error {
	_, err := tx.Exec(ctx, giveMethods, pgx.NamedArgs{
		"challenge": c.hash[:], "purpose": string(c.Purpose), "amr": amr,
	})
	if err != nil {
		return fmt.Errorf("advance the challenge: %w", err)
	}
	return nil
}
