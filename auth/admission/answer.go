package admission

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/devices"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// Verifier checks proofs of one kind.
type Verifier struct {
	Kind Kind
	// Field is the field of authv1.Proof that holds the proof.
	Field protoreflect.Name
	// Identify returns the account that the proof claims to be of, for a challenge of
	// nobody in particular; nil for a kind that cannot be the first proof. It locks
	// nothing.
	Identify func(ctx context.Context, db database.Querier, a Attempt) (account string, err error)
	// Limit counts an attempt before it is checked, and refuses one too many. It
	// returns what to call with the result. nil for no limit.
	Limit func(ctx context.Context, a Attempt) (Settle, error)
	// Prepare checks what takes long, before anything is locked, and stores the result
	// in the attempt for Verify; nil for nothing.
	Prepare func(ctx context.Context, a *Attempt) error
	// Verify checks the proof, and spends what works once. The account is locked, then
	// the challenge. An error with the code invalid_argument or unauthenticated is a
	// wrong answer, which is counted; what Verify wrote is then kept. Any other error
	// undoes it.
	Verify func(ctx context.Context, tx pgx.Tx, a Attempt) (Proof, error)
}

// Attempt is a proof to check.
type Attempt struct {
	// Account is empty for Identify.
	Account   string
	Challenge challenge.Challenge
	Proof     *authv1.Proof
	Origin    *authv1.Origin
	// RememberDevice asks for no second proof on this device for a while.
	RememberDevice bool
	// Prepared is what Prepare found.
	Prepared string
}

// Result is what became of an attempt.
type Result int

const (
	Unchecked Result = iota
	Wrong
	Right
)

// Settle is called with the result of an attempt that Limit counted.
type Settle func(context.Context, Result) error

// answer is the answer to a challenge.
type answer struct {
	purpose challenge.Purpose
	token   string
	id      challenge.Answer
	attempt Attempt
	row     audit.Row
	// session is the calling one, which the challenge has to be for; "" for none.
	session string
	// verifier checks the proof; nil for the one of its kind.
	verifier *Verifier
}

// answerID returns nil without a key.
func answerID(key string, request proto.Message) (challenge.Answer, error) {
	if key == "" {
		return nil, nil
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", len(key), key, text))
	return sum[:], nil
}

func (d *Desk) verifier(proof *authv1.Proof) (Verifier, bool) {
	given := proof.ProtoReflect().WhichOneof(proof.ProtoReflect().Descriptor().Oneofs().ByName("kind"))
	i := slices.IndexFunc(d.Verifiers, func(v Verifier) bool { return given != nil && v.Field == given.Name() })
	if i < 0 {
		return Verifier{}, false
	}
	return d.Verifiers[i], true
}

// verifierOf returns the verifier of an answer.
func (d *Desk) verifierOf(a answer) (Verifier, bool) {
	if a.verifier != nil {
		return *a.verifier, true
	}
	return d.verifier(a.attempt.Proof)
}

// answer checks a proof and calls right with it, in a transaction that holds the locks
// of the account and the challenge. right returns the session that it made or changed.
// If the answer is a repetition, answer returns the session of the first, and does not
// call right.
func (d *Desk) answer(ctx context.Context, a answer, right func(tx pgx.Tx, account *authv1.Account, c challenge.Challenge, proof Proof) (challenge.Made, error)) (again challenge.Made, err error) {
	verifier, ok := d.verifierOf(a)
	if !ok {
		return challenge.Made{}, d.Log.Refuse(ctx, a.row, challenge.ErrInvalid)
	}
	seen, err := d.read(ctx, &a, verifier)
	if err != nil {
		countExpired(ctx, verifier.Kind, err)
		return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
	}
	if made, ok := seen.Repeated(); ok {
		return made, nil
	}
	settle, result := func(context.Context, Result) error { return nil }, Unchecked
	if verifier.Limit != nil {
		if settle, err = verifier.Limit(ctx, a.attempt); err != nil {
			return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
		}
	}
	if verifier.Prepare != nil {
		if err := verifier.Prepare(ctx, &a.attempt); err != nil {
			return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
		}
	}
	var refusal error // whose transaction is committed, unlike an error's
	err = d.DB.Transact(ctx, func(tx pgx.Tx) error {
		again, refusal, result = challenge.Made{}, nil, Unchecked
		account, c, err := d.lock(ctx, tx, a)
		if err != nil {
			return err
		}
		if again, ok = c.Repeated(); ok {
			return nil
		}
		if a.verifier == nil && len(c.AMR) == 0 && !worths[verifier.Kind].first {
			return challenge.ErrInvalid // it cannot be the first proof
		}
		a.attempt.Challenge = c
		proof, err := verifier.Verify(ctx, tx, a.attempt)
		if isWrong(err) {
			result, refusal = Wrong, err
			return c.CountWrong(ctx, tx)
		}
		if err != nil {
			return err
		}
		result = Right
		made, err := right(tx, account, c, proof)
		if err != nil || made.Further {
			return err
		}
		return c.Spend(ctx, tx, a.id, made)
	})
	if err != nil && result == Right {
		result = Unchecked
	}
	countAnswer(ctx, verifier.Kind, result)
	if failure := settle(ctx, result); failure != nil && err == nil {
		return challenge.Made{}, failure
	}
	if err == nil {
		err = refusal
	}
	if err != nil {
		return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
	}
	return again, nil
}

// read returns the challenge of an answer, and completes the answer by its account.
func (d *Desk) read(ctx context.Context, a *answer, verifier Verifier) (challenge.Challenge, error) {
	seen, err := challenge.Read(ctx, d.DB, a.purpose, a.token, a.id)
	a.attempt.Challenge, a.attempt.Account, a.row.Account = seen, seen.Account, seen.Account
	switch {
	case err != nil:
		return seen, err
	case seen.Session != a.session:
		return seen, challenge.ErrInvalid
	case seen.Account != "":
		return seen, nil
	case verifier.Identify == nil:
		return seen, challenge.ErrInvalid
	}
	account, err := verifier.Identify(ctx, d.DB, a.attempt)
	a.attempt.Account, a.row.Account = account, account
	return seen, err
}

// lock locks the account and the challenge of an answer.
func (d *Desk) lock(ctx context.Context, tx pgx.Tx, a answer) (*authv1.Account, challenge.Challenge, error) {
	account, err := accounts.Lock(ctx, tx, a.attempt.Account)
	if fault.Reason(err) == fault.Reason(accounts.ErrNotFound) {
		err = challenge.ErrInvalid // the challenge is gone with it
	}
	if err != nil {
		return nil, challenge.Challenge{}, err
	}
	c, err := challenge.Lock(ctx, tx, a.purpose, a.token, a.id)
	if err != nil {
		return nil, c, err
	}
	if account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
		return nil, c, accounts.ErrDisabled
	}
	if !slices.Contains(c.AMR, "pwd") {
		return account, c, nil
	}
	// A binary older than schema number 8 removes a password and supersedes nothing.
	has, err := accounts.HasPassword(ctx, tx, account.GetId())
	if err == nil && !has {
		err = challenge.Superseded()
	}
	return account, c, err
}

// isWrong reports whether an error is about the proof, not about the system.
func isWrong(err error) bool {
	if fault.Reason(err) == "" {
		return false
	}
	code := connect.CodeOf(err)
	return code == connect.CodeInvalidArgument || code == connect.CodeUnauthenticated
}

// CompleteLogin answers the challenge of a sign-in. Errors: those of challenge.Read and
// of the proof's verifier, permission_denied ACCOUNT_DISABLED.
func (d *Desk) CompleteLogin(ctx context.Context, req *authv1.CompleteLoginRequest) (*authv1.CompleteLoginResponse, error) {
	id, err := answerID(req.GetIdempotencyKey(), &authv1.CompleteLoginRequest{Proof: req.GetProof(), RememberDevice: req.GetRememberDevice()})
	if err != nil {
		return nil, err
	}
	row := audit.Row{Event: audit.Login, Outcome: audit.Succeeded, Origin: req.GetOrigin()}
	var outcome Outcome
	made, err := d.answer(ctx, answer{
		purpose: challenge.SignIn, token: req.GetChallengeToken(), id: id, row: row,
		attempt: Attempt{Proof: req.GetProof(), Origin: req.GetOrigin(), RememberDevice: req.GetRememberDevice()},
	}, func(tx pgx.Tx, account *authv1.Account, c challenge.Challenge, proof Proof) (challenge.Made, error) {
		entry := Entry{Account: account.GetId(), Email: account.GetEmail(), Proof: proof, Origin: req.GetOrigin(), AcceptsChallenge: true}
		entry.RememberDevice = req.GetRememberDevice() && d.RememberDevice > 0
		if len(c.AMR) > 0 {
			entry.before, entry.since = c.AMR, c.CreateTime
		}
		entry.DeviceToken, entry.Identity = d.deviceToken(c.Device, account.GetId()), c.Identity
		further, err := d.furtherProof(ctx, tx, c, proof)
		if err != nil || further {
			outcome = Outcome{Account: account, Challenge: &authv1.Challenge{Token: req.GetChallengeToken(), ExpiresIn: int32(challenge.Life.Seconds())}}
			return challenge.Made{Further: further}, err
		}
		done := row
		done.Account = account.GetId()
		entry.Row = &done
		if outcome, err = d.Admit(ctx, tx, entry); err != nil {
			return challenge.Made{}, err
		}
		if outcome.Tokens == nil {
			return challenge.Made{}, challenge.Superseded()
		}
		if c.Pending != nil {
			if err := d.LinkPending(ctx, tx, account, c.Pending, req.GetOrigin()); err != nil {
				return challenge.Made{}, err
			}
		}
		if entry.RememberDevice {
			if err := d.remember(ctx, tx, outcome, req.GetOrigin()); err != nil {
				return challenge.Made{}, err
			}
		}
		return challenge.Made{Session: outcome.session.String(), Generation: 1}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("complete a sign-in: %w", err)
	}
	if made.Session != "" {
		return d.madeAgain(ctx, made)
	}
	if err := d.Offer(ctx, challenge.SignIn, &outcome); err != nil {
		return nil, err
	}
	if outcome.Challenge != nil {
		return &authv1.CompleteLoginResponse{Challenge: outcome.Challenge}, nil
	}
	return &authv1.CompleteLoginResponse{Account: outcome.Account, Tokens: outcome.Tokens, DeviceToken: outcome.DeviceToken}, nil
}

// remember makes the device of a session that has just begun a remembered one.
func (d *Desk) remember(ctx context.Context, tx pgx.Tx, begun Outcome, origin *authv1.Origin) error {
	account := begun.Account.GetId()
	if err := devices.Remember(ctx, tx, account, begun.device, d.RememberDevice, origin); err != nil {
		return err
	}
	return audit.Write(ctx, tx, audit.Row{
		Event: audit.DeviceRemember, Outcome: audit.Succeeded, Account: account, Session: begun.session.String(), Origin: origin,
	})
}

// deviceToken returns the token of a device; "" without one.
func (d *Desk) deviceToken(device, account string) string {
	id, err := uuid.Parse(device)
	owner, failure := uuid.Parse(account)
	if err != nil || failure != nil {
		return ""
	}
	return d.DeviceKeys.Issue(id, owner)
}
