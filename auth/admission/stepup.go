package admission

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/deployment"
	"gatehouse/auth/revocations"
	"gatehouse/auth/rotation"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
)

// Challenge writes the challenge of a step-up of the calling session, which gave the
// methods before or nothing yet, and offers it. A session that gave nothing gives a passkey,
// or a code that is mailed to an account without one. Errors: failed_precondition
// FACTOR_REQUIRED for an account without a passkey that has a password and a second
// factor: the password comes first. resource_exhausted TOO_MANY_ATTEMPTS.
func (d *Desk) Challenge(ctx context.Context, origin *authv1.Origin, before []string) (*authv1.Challenge, error) {
	methods, err := d.methodsOf(ctx, origin.GetAccountId())
	if err != nil {
		return nil, err
	}
	hasFactor := len(methods) > 0
	if len(before) == 0 { // no other factor can be the first proof
		methods = slices.DeleteFunc(methods, func(m string) bool { return m != string(Passkey) })
	}
	if len(methods) == 0 {
		return d.mailCode(ctx, origin, hasFactor)
	}
	owed := &authv1.Challenge{Methods: methods, ExpiresIn: int32(challenge.Life.Seconds())}
	owed.Token, err = d.Challenges.Issue(ctx, d.DB, challenge.Challenge{
		Purpose: challenge.StepUp, Account: origin.GetAccountId(), Session: origin.GetSessionId(), AMR: before,
	}, nil)
	if err != nil {
		return nil, err
	}
	countChallenge(ctx, "begun", firstOf(methods))
	return owed, d.addPasskeyOptions(ctx, challenge.StepUp, owed, origin.GetAccountId())
}

// mailCode mails the code that is the first proof of a step-up.
func (d *Desk) mailCode(ctx context.Context, origin *authv1.Origin, hasFactor bool) (*authv1.Challenge, error) {
	hasPassword, err := accounts.HasPassword(ctx, d.DB, origin.GetAccountId())
	if err != nil {
		return nil, err
	}
	if hasFactor && hasPassword {
		return nil, challenge.ErrFactorRequired
	}
	owed, err := d.EmailCode(ctx, origin, hasFactor)
	if err == nil {
		CountBegun(ctx, EmailCode)
	}
	return owed, err
}

// CompleteReauthentication answers the challenge of a step-up. Errors: those of
// CompleteLogin, unauthenticated SESSION_ENDED.
func (d *Desk) CompleteReauthentication(ctx context.Context, req *authv1.CompleteReauthenticationRequest) (*authv1.CompleteReauthenticationResponse, error) {
	origin := req.GetOrigin()
	id, err := answerID(req.GetIdempotencyKey(), &authv1.CompleteReauthenticationRequest{Proof: req.GetProof()})
	if err != nil {
		return nil, err
	}
	at := d.Keys.Now()
	row := audit.Row{Event: audit.Reauthenticate, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	var issued *authv1.Tokens
	var further bool
	var owed challenge.Challenge
	made, err := d.answer(ctx, answer{
		purpose: challenge.StepUp, token: req.GetChallengeToken(), id: id, row: row, session: origin.GetSessionId(),
		attempt: Attempt{Proof: req.GetProof(), Origin: origin},
	}, func(tx pgx.Tx, _ *authv1.Account, c challenge.Challenge, proof Proof) (made challenge.Made, err error) {
		if further, err = d.furtherProof(ctx, tx, c, proof); err != nil || further {
			owed = c
			return challenge.Made{Further: further}, err
		}
		c.FirstProof = firstProofTime(c, proof)
		if issued, made, err = d.raise(ctx, tx, at, origin, c, proof); err != nil {
			return made, err
		}
		return made, audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("complete a reauthentication: %w", err)
	}
	if further {
		return d.furtherStep(ctx, req, owed)
	}
	d.Revocations.Soon()
	if made.Session != "" {
		again, err := d.madeAgain(ctx, made)
		return &authv1.CompleteReauthenticationResponse{Tokens: again.GetTokens()}, err
	}
	return &authv1.CompleteReauthenticationResponse{Tokens: issued}, nil
}

// furtherStep offers the second proof of a step-up that began with a mailed code: its
// account has no passkey that works here. The challenge lives no longer than before.
func (d *Desk) furtherStep(ctx context.Context, req *authv1.CompleteReauthenticationRequest, owed challenge.Challenge) (*authv1.CompleteReauthenticationResponse, error) {
	methods, err := d.methodsOf(ctx, req.GetOrigin().GetAccountId())
	if err != nil {
		return nil, err
	}
	methods = slices.DeleteFunc(methods, func(m string) bool { return m == string(Passkey) })
	countChallenge(ctx, "begun", firstOf(methods))
	return &authv1.CompleteReauthenticationResponse{
		Challenge: &authv1.Challenge{Token: req.GetChallengeToken(), Methods: methods, ExpiresIn: int32(owed.Left.Seconds())},
	}, nil
}

const raiseSession = `
	UPDATE auth.sessions SET level = @level, amr = @amr, second_factor_time = clock_timestamp(),
		authenticate_time = coalesce(@since, clock_timestamp())
	WHERE id = @id RETURNING authenticate_time`

// raise gives the calling session the level of a challenge's proofs, and returns its
// tokens of the next generation: a stolen token of the lower level does not gain it. The
// account is locked.
func (d *Desk) raise(ctx context.Context, tx pgx.Tx, at time.Time, origin *authv1.Origin, c challenge.Challenge, proof Proof) (*authv1.Tokens, challenge.Made, error) {
	level, amr, ok := assess(c.AMR, proof)
	if !ok {
		return nil, challenge.Made{}, challenge.ErrInvalid
	}
	var since *time.Time
	if len(c.AMR) > 0 && !c.FirstProof.IsZero() {
		since = &c.FirstProof
	}
	id, err := uuid.Parse(origin.GetSessionId())
	if err != nil {
		return nil, challenge.Made{}, accesstoken.ErrSessionEnded
	}
	req := &authv1.RefreshRequest{Origin: origin}
	found, err := rotation.Locked(ctx, tx, id, req)
	switch {
	case err != nil:
		return nil, challenge.Made{}, err
	case found == nil || found.Ended || found.Account.GetId() != origin.GetAccountId():
		return nil, challenge.Made{}, accesstoken.ErrSessionEnded
	}
	if found.SignIn.Level != level {
		if err := RaiseAuthorization(ctx, tx, origin.GetAccountId()); err != nil {
			return nil, challenge.Made{}, err
		}
	}
	found.SignIn.Level, found.SignIn.AMR = level, amr
	err = tx.QueryRow(ctx, raiseSession, pgx.NamedArgs{"id": id.String(), "level": level, "amr": amr, "since": since}).Scan(&found.SignIn.AuthTime)
	if err != nil {
		return nil, challenge.Made{}, fmt.Errorf("raise the session's level: %w", err)
	}
	next, err := d.Rotator.Rotate(ctx, tx, found, req)
	if err != nil {
		return nil, challenge.Made{}, err
	}
	account, err := accounts.ByID(ctx, tx, origin.GetAccountId())
	if err != nil {
		return nil, challenge.Made{}, err
	}
	issued, err := d.TokensAt(at, account, id, found.SignIn, next, found.ExpiresIn)
	return issued, challenge.Made{Session: id.String(), Generation: found.Generation + 1}, err
}

// firstProofTime is when the first proof counts as given, once a second one follows the
// challenge; zero for now. A passkey is both proofs.
func firstProofTime(c challenge.Challenge, second Proof) time.Time {
	if second.Kind == Passkey {
		return time.Time{}
	}
	return c.FirstProof
}

// RaiseAuthorization revokes an account's access tokens: those of a changed level must
// not be used. Refresh gives each session new ones. The account is locked.
func RaiseAuthorization(ctx context.Context, tx pgx.Tx, account string) error {
	return revocations.RaiseVersion(ctx, tx, account)
}

// Step is a change of the level of the calling session by a proof that needs no
// challenge, such as the code that confirms an enrolment.
type Step struct {
	Origin *authv1.Origin
	// Before are the methods that the session rests on.
	Before []string
	// Since is when the first of them was given.
	Since time.Time
	Proof Proof
	At    time.Time // from Keys.Now, before the transaction
}

// Raise takes a step, and returns the session's tokens of the next generation. The
// account is locked. Errors: unauthenticated SESSION_ENDED.
func (d *Desk) Raise(ctx context.Context, tx pgx.Tx, s Step) (*authv1.Tokens, error) {
	issued, _, err := d.raise(ctx, tx, s.At, s.Origin, challenge.Challenge{AMR: s.Before, FirstProof: s.Since}, s.Proof)
	return issued, err
}

const lowerSessions = `
	UPDATE auth.sessions SET level = 1, second_factor_time = NULL,
		amr = ARRAY(SELECT method FROM unnest(amr) AS method WHERE NOT method = ANY (@resting || '{mfa}'))
	WHERE account_id = @account_id AND revoke_time IS NULL AND level = 2 AND amr && @resting::text[]`

// Lower lowers the sessions of an account to level 1 whose level rests on one of the
// methods, and revokes its access tokens. The account is locked.
func Lower(ctx context.Context, tx pgx.Tx, account string, resting ...string) error {
	tag, err := tx.Exec(ctx, lowerSessions, pgx.NamedArgs{"account_id": account, "resting": resting})
	if err != nil {
		return fmt.Errorf("lower the sessions: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return RaiseAuthorization(ctx, tx, account)
}

const selectMade = `
	SELECT ` + accounts.Columns + `, s.token_key, s.device_id::text, s.level, s.amr, s.authenticate_time,
		extract(epoch FROM s.expire_time - clock_timestamp())::float8
	FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
	WHERE s.id = @id AND s.generation = @generation AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + `
		AND s.expire_time > clock_timestamp() AND a.status = 'active'`

// madeAgain returns the tokens that a repeated answer got the first time. Errors:
// failed_precondition CHALLENGE_USED if they were used since.
func (d *Desk) madeAgain(ctx context.Context, made challenge.Made) (*authv1.CompleteLoginResponse, error) {
	at := d.Keys.Now()
	id, err := uuid.Parse(made.Session)
	if err != nil {
		return nil, fmt.Errorf("read the session's id: %w", err)
	}
	var key, device string
	var signIn accesstoken.SignIn
	var left float64
	account, err := accounts.Scan(d.DB.QueryRow(ctx, selectMade, pgx.NamedArgs{"id": made.Session, "generation": made.Generation}),
		&key, &device, &signIn.Level, &signIn.AMR, &signIn.AuthTime, &left)
	if database.Missing(err) {
		return nil, challenge.Used()
	}
	if err != nil {
		return nil, fmt.Errorf("read the session: %w", err)
	}
	token, ok := d.RefreshKeys.Reissue(tokens.Refresh{Session: id, Generation: made.Generation}, key)
	if !ok {
		return nil, challenge.Used()
	}
	issued, err := d.TokensAt(at, account, id, signIn, token, database.Seconds(left))
	return &authv1.CompleteLoginResponse{Account: account, Tokens: issued, DeviceToken: d.deviceToken(device, account.GetId())}, err
}
