package admission

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
)

// Enrolment is the answer to the challenge of an enrolment by the calling session.
type Enrolment struct {
	Purpose challenge.Purpose
	Token   string
	// Key is the Idempotency-Key, and Answer what a repetition has to repeat.
	Key    string
	Answer proto.Message
	// Kind is that of the proof by which the new factor is enrolled.
	Kind   Kind
	Origin *authv1.Origin
	Row    audit.Row
	// Verify checks the answer and stores the factor. As with a Verifier, an error with
	// the code invalid_argument is a wrong answer, which is counted.
	Verify func(ctx context.Context, tx pgx.Tx, c challenge.Challenge) error
	// Methods returns the methods of the proof besides those of its kind, once Verify
	// has succeeded; nil for none.
	Methods func() []string
	// Enrol does what follows.
	Enrol func(ctx context.Context, tx pgx.Tx, account *authv1.Account) error
}

// Enrol answers the challenge of an enrolment, and gives the calling session the level
// of the new factor's proof. It returns the session's next tokens; for a repeated answer
// those of the first, with the challenge. Errors: those of challenge.Read and of Verify,
// unauthenticated SESSION_ENDED.
func (d *Desk) Enrol(ctx context.Context, e Enrolment) (*authv1.Tokens, *challenge.Challenge, error) {
	id, err := answerID(e.Key, e.Answer)
	if err != nil {
		return nil, nil, err
	}
	at := d.Keys.Now()
	var issued *authv1.Tokens
	made, err := d.answer(ctx, answer{
		purpose: e.Purpose, token: e.Token, id: id, row: e.Row, session: e.Origin.GetSessionId(), attempt: Attempt{Origin: e.Origin},
		verifier: &Verifier{Kind: e.Kind, Verify: func(ctx context.Context, tx pgx.Tx, a Attempt) (Proof, error) {
			proof, err := Proof{Kind: e.Kind}, e.Verify(ctx, tx, a.Challenge)
			if err == nil && e.Methods != nil {
				proof.AMR = e.Methods()
			}
			return proof, err
		}},
	}, func(tx pgx.Tx, account *authv1.Account, _ challenge.Challenge, proof Proof) (made challenge.Made, err error) {
		if err := e.Enrol(ctx, tx, account); err != nil {
			return made, err
		}
		first, err := firstProof(ctx, tx, e.Origin)
		if err != nil {
			return made, err
		}
		if issued, made, err = d.raise(ctx, tx, at, e.Origin, first, proof); err != nil {
			return made, err
		}
		return made, audit.Write(ctx, tx, e.Row)
	})
	if err != nil {
		return nil, nil, err
	}
	d.Revocations.Soon()
	if made.Session == "" {
		return issued, nil, nil
	}
	again, err := d.madeAgain(ctx, made)
	if err != nil {
		return nil, nil, err
	}
	repeated, err := challenge.Read(ctx, d.DB, e.Purpose, e.Token, id)
	return again.GetTokens(), &repeated, err
}

const selectFirstProof = `SELECT amr, authenticate_time FROM auth.sessions WHERE id = @id AND account_id = @account_id`

// firstProof returns what the calling session gave before any second proof, as a
// challenge has it.
func firstProof(ctx context.Context, tx pgx.Tx, origin *authv1.Origin) (first challenge.Challenge, err error) {
	err = tx.QueryRow(ctx, selectFirstProof, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": database.Optional(origin.GetAccountId()),
	}).Scan(&first.AMR, &first.FirstProof)
	if database.Missing(err) {
		return first, accesstoken.ErrSessionEnded
	}
	if err != nil {
		return first, fmt.Errorf("read the session's proofs: %w", err)
	}
	first.AMR = slices.DeleteFunc(first.AMR, func(method string) bool {
		return slices.Contains([]string{"otp", "rec", "rba", "mfa"}, method)
	})
	if len(first.AMR) == 0 { // the passkey that it signed in by was removed
		return first, accounts.ErrReauthenticate
	}
	return first, nil
}
