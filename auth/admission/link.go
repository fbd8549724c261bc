package admission

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/challenge"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// LinkMethod is the first method of a challenge that links an identity: it tells clients
// what the proofs are for.
const LinkMethod = "link"

// mayAnswer reports whether a proof of a kind may answer a challenge. The first proof that
// is given to one may be repeated: until the second is given, the answer to it is the same
// challenge.
func mayAnswer(c challenge.Challenge, kind Kind) bool {
	mailed := c.Purpose == challenge.StepUp && kind == EmailCode && slices.Equal(c.AMR, worths[EmailCode].amr)
	return mayFollow(c.AMR, kind) || mailed || c.Pending != nil && mayFollow(nil, kind)
}

const owesSecondProof = `SELECT second_factor FROM auth.accounts WHERE id = @account_id`

// furtherProof reports whether the first proof of a challenge that links an identity, or of
// a step-up, is to be followed by a second, and stores the first. The account is locked. The challenge
// keeps its token, so that a repeated answer is answered alike. One of nobody in
// particular ends with the first proof; the challenge that follows has the identity.
func (d *Desk) furtherProof(ctx context.Context, tx pgx.Tx, c challenge.Challenge, proof Proof) (bool, error) {
	if c.Pending == nil && c.Purpose != challenge.StepUp || c.Account == "" || worths[proof.Kind].level == 2 || worths[proof.Kind].second {
		return false, nil
	}
	var owed bool
	if err := tx.QueryRow(ctx, owesSecondProof, pgx.NamedArgs{"account_id": c.Account}).Scan(&owed); err != nil {
		return false, fmt.Errorf("look for a second factor: %w", err)
	}
	if !owed {
		return false, nil
	}
	amr := proof.methods()
	slices.Sort(amr)
	return true, c.Advance(ctx, tx, amr)
}

// OfferLink writes the challenge that links an identity to an account once the account's
// own proofs are given. The identity proves nothing until then. The transaction that
// writes it also calls note with its token. OfferLink returns nil for an account that has
// neither a password nor a passkey.
func (d *Desk) OfferLink(ctx context.Context, account *authv1.Account, pending []byte, note func(tx pgx.Tx, token string) error) (*authv1.Challenge, error) {
	methods, err := d.linkMethods(ctx, account.GetId())
	if err != nil || len(methods) == 1 {
		return nil, err
	}
	offered := &authv1.Challenge{Methods: methods, ExpiresIn: int32(challenge.Life.Seconds())}
	err = d.DB.Transact(ctx, func(tx pgx.Tx) (err error) {
		offered.Token, err = d.Challenges.Issue(ctx, tx, challenge.Challenge{Purpose: challenge.SignIn, Account: account.GetId(), Pending: pending}, nil)
		if err != nil {
			return err
		}
		return note(tx, offered.Token)
	})
	if err != nil {
		return nil, err
	}
	countChallenge(ctx, "begun", LinkMethod)
	return offered, d.addPasskeyOptions(ctx, challenge.SignIn, offered, account.GetId())
}

// linkMethods returns LinkMethod and the first proofs that an account can give to link an
// identity.
func (d *Desk) linkMethods(ctx context.Context, account string) ([]string, error) {
	factors, err := d.methodsOf(ctx, account)
	if err != nil {
		return nil, err
	}
	hasPassword, err := accounts.HasPassword(ctx, d.DB, account)
	if err != nil {
		return nil, err
	}
	methods := []string{LinkMethod}
	if hasPassword {
		methods = append(methods, string(Password))
	}
	if slices.Contains(factors, string(Passkey)) {
		methods = append(methods, string(Passkey))
	}
	return methods, nil
}

// linkAgain offers a challenge once more that links an identity and got no proof yet.
func (d *Desk) linkAgain(ctx context.Context, c challenge.Challenge, again *authv1.Challenge) (err error) {
	if c.Purpose == challenge.EmailCode {
		again.Methods = []string{LinkMethod, string(EmailCode)}
		return nil
	}
	if again.Methods, err = d.linkMethods(ctx, c.Account); err != nil {
		return err
	}
	return d.addPasskeyOptions(ctx, c.Purpose, again, c.Account)
}

// Repeat returns what a repeated answer got the first time. Errors: failed_precondition
// CHALLENGE_USED if its tokens were used since.
func (d *Desk) Repeat(ctx context.Context, made challenge.Made) (*authv1.CompleteLoginResponse, error) {
	return d.madeAgain(ctx, made)
}

// Session returns the session that the outcome began, for the challenge that it spends.
func (o Outcome) Session() challenge.Made {
	if o.Tokens == nil {
		return challenge.Made{}
	}
	return challenge.Made{Session: o.session.String(), Generation: 1}
}

const endBegunWith = `
	WITH ended AS (
		UPDATE auth.sessions SET revoke_time = clock_timestamp(), revoke_reason = 'identity unlinked'
		WHERE account_id = @account_id AND identity_id = @identity_id AND revoke_time IS NULL RETURNING id)
	INSERT INTO auth.revocations (session_id, expire_time) SELECT id, now() + @life::interval FROM ended`

// EndBegunWith ends the sessions of an account that began with an identity.
func EndBegunWith(ctx context.Context, db database.Execer, account, identity string) error {
	_, err := db.Exec(ctx, endBegunWith, pgx.NamedArgs{"account_id": account, "identity_id": identity, "life": revocations.Life})
	if err != nil {
		return fmt.Errorf("end the sessions of the identity: %w", err)
	}
	return nil
}
