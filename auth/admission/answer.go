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
	// Subject returns what refusals are aggregated by in the audit, for a proof that may
	// be of no account; nil for the account or the network.
	Subject func(a Attempt) (string, error)
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
	// Purpose is that of the challenges by which such a proof signs in, if they take no
	// other; "" for those of any proof.
	Purpose challenge.Purpose
	// Lock locks the account of a challenge of nobody in particular, and returns it; nil
	// if there is none yet. Without Lock it is the account that Identify returned.
	Lock func(ctx context.Context, tx pgx.Tx, a Attempt) (*authv1.Account, error)
	// Accept follows Verify if Lock was called. It returns the account of the proof,
	// which it may create, and refuses a disabled one: only now has the caller proven
	// that it is theirs.
	Accept func(ctx context.Context, tx pgx.Tx, a Attempt, account *authv1.Account) (Accepted, error)
}

// Accepted is what a right proof leads to.
type Accepted struct {
	Account *authv1.Account
	// Device is the account's device whose token was sent when the challenge was made;
	// "" for none.
	Device string
	// Committed is called once the transaction is committed; nil for nothing to do.
	Committed func(ctx context.Context)
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
		countLate(ctx, verifier.Kind, err)
		return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
	}
	if made, ok := seen.Repeated(); ok {
		return made, nil
	}
	var accepted Accepted
	result := Unchecked
	settle, err := verifier.begin(ctx, &a.attempt)
	if err != nil {
		return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
	}
	var refusal error // whose transaction is committed, unlike an error's
	err = d.DB.Transact(ctx, func(tx pgx.Tx) error {
		again, refusal, result, accepted = challenge.Made{}, nil, Unchecked, Accepted{}
		account, c, err := d.lock(ctx, tx, a, verifier)
		if err != nil {
			return err
		}
		if again, ok = c.Repeated(); ok {
			return nil
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
		if verifier.locks(c) {
			if accepted, err = verifier.Accept(ctx, tx, a.attempt, account); err != nil {
				return err
			}
			account, c.Device = accepted.Account, accepted.Device
		}
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
		accepted.committed(ctx)
		err = refusal
	}
	if err != nil {
		return challenge.Made{}, d.Log.Refuse(ctx, a.row, err)
	}
	return again, nil
}

func (a Accepted) committed(ctx context.Context) {
	if a.Committed != nil {
		a.Committed(ctx)
	}
}

// begin counts an attempt, if there is a limit, and prepares it.
func (v Verifier) begin(ctx context.Context, a *Attempt) (Settle, error) {
	settle := func(context.Context, Result) error { return nil }
	var err error
	if v.Limit != nil {
		settle, err = v.Limit(ctx, *a)
	}
	if err != nil || v.Prepare == nil {
		return settle, err
	}
	return settle, v.Prepare(ctx, a)
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
	case a.verifier == nil && !mayAnswer(seen, verifier.Kind): // before the answer tells whether the code is right
		return seen, challenge.ErrInvalid
	case seen.Account != "" || isRepeated(seen):
		return seen, nil
	case verifier.Identify == nil:
		return seen, challenge.ErrInvalid
	}
	if verifier.Subject != nil {
		if a.row.Subject, err = verifier.Subject(a.attempt); err != nil {
			return seen, err
		}
	}
	account, err := verifier.Identify(ctx, d.DB, a.attempt)
	a.attempt.Account, a.row.Account = account, account
	return seen, err
}

// locks reports whether the verifier itself locks the account of a challenge.
func (v Verifier) locks(c challenge.Challenge) bool { return c.Account == "" && v.Lock != nil }

func isRepeated(c challenge.Challenge) bool {
	_, ok := c.Repeated()
	return ok
}

// lock locks the account and the challenge of an answer.
func (d *Desk) lock(ctx context.Context, tx pgx.Tx, a answer, verifier Verifier) (*authv1.Account, challenge.Challenge, error) {
	if verifier.locks(a.attempt.Challenge) {
		account, err := verifier.Lock(ctx, tx, a.attempt)
		if err != nil {
			return nil, challenge.Challenge{}, err
		}
		c, err := challenge.Lock(ctx, tx, a.purpose, a.token, a.id)
		return account, c, err
	}
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
	purpose := challenge.SignIn
	if verifier, ok := d.verifier(req.GetProof()); ok && verifier.Purpose != "" {
		purpose = verifier.Purpose
	}
	made, err := d.answer(ctx, answer{
		purpose: purpose, token: req.GetChallengeToken(), id: id, row: row,
		attempt: Attempt{Proof: req.GetProof(), Origin: req.GetOrigin(), RememberDevice: req.GetRememberDevice()},
	}, func(tx pgx.Tx, account *authv1.Account, c challenge.Challenge, proof Proof) (challenge.Made, error) {
		entry := Entry{Account: account.GetId(), Email: account.GetEmail(), Proof: proof, Origin: req.GetOrigin(), AcceptsChallenge: true}
		if proof.Kind == EmailCode {
			entry.Email = "" // the owner needs no mail about a sign-in by mail
		}
		entry.RememberDevice = req.GetRememberDevice() && d.RememberDevice > 0
		if len(c.AMR) > 0 && mayFollow(c.AMR, proof.Kind) {
			entry.before, entry.since = c.AMR, firstProofTime(c, proof)
		}
		entry.DeviceToken, entry.Identity, entry.pending = d.deviceToken(c.Device, account.GetId()), c.Identity, c.Pending
		further, err := d.furtherProof(ctx, tx, c, proof)
		if err != nil || further {
			outcome = Outcome{Account: account, Challenge: &authv1.Challenge{Token: req.GetChallengeToken(), ExpiresIn: int32(c.Left.Seconds())}}
			return challenge.Made{Further: further}, err
		}
		done := row
		done.Account = account.GetId()
		entry.Row = &done
		if outcome, err = d.Admit(ctx, tx, entry); err != nil {
			return challenge.Made{}, err
		}
		if outcome.Challenge != nil { // for a repeated answer
			return challenge.Made{}, d.Challenges.SetState(ctx, tx, purpose, req.GetChallengeToken(), []byte(outcome.Challenge.GetToken()))
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
	switch {
	case made.Session != "":
		return d.madeAgain(ctx, made)
	case made.Again:
		return d.owedAgain(ctx, purpose, req.GetChallengeToken(), id)
	}
	if err := d.Offer(ctx, challenge.SignIn, &outcome); err != nil {
		return nil, err
	}
	if outcome.Challenge != nil {
		return &authv1.CompleteLoginResponse{Challenge: outcome.Challenge}, nil
	}
	return &authv1.CompleteLoginResponse{Account: outcome.Account, Tokens: outcome.Tokens, DeviceToken: outcome.DeviceToken}, nil
}

// owedAgain repeats the answer with a further challenge that followed the same proof.
func (d *Desk) owedAgain(ctx context.Context, purpose challenge.Purpose, token string, id challenge.Answer) (*authv1.CompleteLoginResponse, error) {
	answered, err := challenge.Read(ctx, d.DB, purpose, token, id)
	if err != nil {
		return nil, err
	}
	further, err := d.Challenges.State(answered)
	if err != nil {
		return nil, err
	}
	return d.OwedAgain(ctx, challenge.SignIn, string(further))
}

// OwedAgain offers a challenge once more. Errors: those of challenge.Read.
func (d *Desk) OwedAgain(ctx context.Context, purpose challenge.Purpose, token string) (*authv1.CompleteLoginResponse, error) {
	owed, err := challenge.Read(ctx, d.DB, purpose, token, nil)
	if err != nil {
		return nil, err
	}
	again := &authv1.Challenge{Token: token, ExpiresIn: int32(owed.Left.Seconds())}
	if owed.Pending != nil && len(owed.AMR) == 0 {
		return &authv1.CompleteLoginResponse{Challenge: again}, d.linkAgain(ctx, owed, again)
	}
	outcome := Outcome{Account: &authv1.Account{Id: owed.Account}, Challenge: again}
	if err := d.Offer(ctx, challenge.SignIn, &outcome); err != nil {
		return nil, err
	}
	return &authv1.CompleteLoginResponse{Challenge: outcome.Challenge}, nil
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
