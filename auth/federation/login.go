package federation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/emailcode"
	"gatehouse/auth/purge"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/provider"
)

// loginTries bounds the retries of a sign-in whose account changes meanwhile.
const loginTries = 3

var errChanged = errors.New("the account has changed meanwhile")

// CompleteFederatedLogin implements authv1.FederationServiceHandler.
func (s *Service) CompleteFederatedLogin(ctx context.Context, req *authv1.CompleteFederatedLoginRequest) (*authv1.CompleteFederatedLoginResponse, error) {
	row := s.row(req.GetOrigin(), false)
	response, err := s.login(ctx, req, &row)
	if err != nil {
		return nil, fmt.Errorf("sign in with a provider: %w", s.Log.Refuse(ctx, row, err))
	}
	return response, nil
}

func (s *Service) login(ctx context.Context, req *authv1.CompleteFederatedLoginRequest, row *audit.Row) (*authv1.CompleteFederatedLoginResponse, error) {
	id, err := loginID(req)
	if err != nil {
		return nil, err
	}
	v, err := s.read(ctx, req.GetAnswer(), false, id)
	if err != nil {
		return nil, err
	}
	if made, ok := v.challenge.Repeated(); ok {
		return s.repeat(ctx, v, made)
	}
	who, err := s.identify(ctx, v, req)
	if err != nil {
		return nil, err
	}
	var found entrance
	for range loginTries {
		err = s.DB.Transact(ctx, func(tx pgx.Tx) (err error) {
			found, err = s.enter(ctx, tx, v, who, req, id, row)
			return err
		})
		if !errors.Is(err, errChanged) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	switch {
	case found.noEmail:
		return nil, errNoEmail
	case found.claim != "":
		return s.ask(ctx, v, who, found.claim, id, req.GetOrigin())
	case found.link != nil:
		return s.offerLink(ctx, v, who, found.link, id, req.GetOrigin())
	}
	outcome := found.outcome
	if found.taken {
		s.Desk.Revocations.Soon()
		s.Deliver(ctx, outcome.Account.GetId())
	}
	if err := s.Desk.Offer(ctx, challenge.SignIn, &outcome); err != nil {
		return nil, err
	}
	if outcome.Challenge != nil {
		return &authv1.CompleteFederatedLoginResponse{Challenge: outcome.Challenge, ReturnTo: v.ReturnTo}, nil
	}
	return &authv1.CompleteFederatedLoginResponse{
		Account: outcome.Account, Tokens: outcome.Tokens, DeviceToken: outcome.DeviceToken, ReturnTo: v.ReturnTo,
	}, nil
}

// identify returns who an answer is about. The answer is redeemed once: if the provider
// did not tell the person's email, it is repeated with the email, for the same person.
func (s *Service) identify(ctx context.Context, v visit, req *authv1.CompleteFederatedLoginRequest) (provider.Identity, error) {
	if v.Found != nil {
		return *v.Found, nil
	}
	return s.redeem(ctx, v, req.GetAnswer())
}

// repeat returns what a repeated answer got the first time.
func (s *Service) repeat(ctx context.Context, v visit, made challenge.Made) (*authv1.CompleteFederatedLoginResponse, error) {
	again := s.Desk.Repeat
	if made.Session == "" { // a proof was owed
		again = func(ctx context.Context, _ challenge.Made) (*authv1.CompleteLoginResponse, error) {
			return s.Desk.OwedAgain(ctx, cmp.Or(v.OwedFor, challenge.SignIn), v.Owed)
		}
	}
	answer, err := again(ctx, made)
	return &authv1.CompleteFederatedLoginResponse{
		Account: answer.GetAccount(), Tokens: answer.GetTokens(), DeviceToken: answer.GetDeviceToken(), Challenge: answer.GetChallenge(), ReturnTo: v.ReturnTo,
	}, err
}

// loginID returns nil without a key. With another email, it is another answer.
func loginID(req *authv1.CompleteFederatedLoginRequest) (challenge.Answer, error) {
	if req.GetEmail() == "" { // as the versions before know it
		return answerID(req.GetIdempotencyKey(), req.GetAnswer())
	}
	return answerID(req.GetIdempotencyKey(), &authv1.CompleteFederatedLoginRequest{Answer: req.GetAnswer(), Email: req.GetEmail()})
}

// answerID returns nil without a key.
func answerID(key string, answer proto.Message) (challenge.Answer, error) {
	if key == "" {
		return nil, nil
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", len(key), key, text))
	return sum[:], nil
}

// offerLink returns the challenge of the account that has the identity's address: the
// present owner of a mailbox need not be the person who made the account.
func (s *Service) offerLink(ctx context.Context, v visit, who provider.Identity, account *authv1.Account, id challenge.Answer, origin *authv1.Origin) (*authv1.CompleteFederatedLoginResponse, error) {
	text, err := pending{v.Provider, who}.encode()
	if err != nil {
		return nil, err
	}
	offered, err := s.Desk.OfferLink(ctx, account, text, s.ends(ctx, v, id, challenge.SignIn))
	if err != nil {
		return nil, err
	}
	if offered == nil {
		return s.ask(ctx, v, who, account.GetEmail(), id, origin)
	}
	return &authv1.CompleteFederatedLoginResponse{Challenge: offered, ReturnTo: v.ReturnTo}, nil
}

// ask mails a code to an email that the provider does not vouch for, and returns the
// challenge that takes it, whether or not the email has an account. Not a link: the
// mailbox's owner would link a stranger's identity to their account by following it, while
// a code works only in the browser that was at the provider.
func (s *Service) ask(ctx context.Context, v visit, who provider.Identity, email string, id challenge.Answer, origin *authv1.Origin) (*authv1.CompleteFederatedLoginResponse, error) {
	text, err := pending{v.Provider, who}.encode()
	if err != nil {
		return nil, err
	}
	owed, err := s.Codes.Ask(ctx, emailcode.Claim{
		Email: email, Pending: text, FirstName: who.FirstName, LastName: who.LastName, NoSignUp: !v.provider.SignUp, Origin: origin,
		Note: s.ends(ctx, v, id, challenge.EmailCode),
	})
	if err != nil {
		return nil, err
	}
	owed.Methods = append([]string{admission.LinkMethod}, owed.Methods...)
	return &authv1.CompleteFederatedLoginResponse{Challenge: owed, ReturnTo: v.ReturnTo}, nil
}

// entrance is what an identity leads to.
type entrance struct {
	outcome admission.Outcome
	// link is the account that the identity may be linked to; nil for none.
	link *authv1.Account
	// claim is the email that the person has to prove; "" for none. noEmail says that it
	// has to be asked for.
	claim   string
	noEmail bool
	// taken says that the account is new, or had another owner until now.
	taken bool
}

// enter admits an identity, or returns the account that its address belongs to. Errors:
// those of unproven, permission_denied REGISTRATION_CLOSED or ACCOUNT_DISABLED.
func (s *Service) enter(ctx context.Context, tx pgx.Tx, v visit, who provider.Identity, req *authv1.CompleteFederatedLoginRequest, answer challenge.Answer, row *audit.Row) (entrance, error) {
	id, owner, err := ownerOf(ctx, tx, who)
	if err != nil {
		return entrance{}, err
	}
	var account *authv1.Account
	switch {
	case owner != "":
		account, err = s.known(ctx, tx, v.Provider, id, owner, who)
	case who.Email == "" || !who.Authoritative:
		return s.unproven(ctx, tx, v, who, req.GetEmail())
	default:
		var verified bool
		if account, verified, err = s.byAddress(ctx, tx, who.Email); err != nil {
			break
		}
		if verified {
			row.Account = account.GetId()
			return entrance{link: account}, s.noteFound(ctx, tx, v, who)
		}
		account, id, err = s.takeIn(ctx, tx, v, who, account, req)
	}
	if err != nil {
		return entrance{}, err
	}
	row.Account = account.GetId()
	done := *row
	outcome, err := s.Desk.Admit(ctx, tx, admission.Entry{
		Account: account.GetId(), Email: account.GetEmail(), Proof: proofOf(who), Identity: id, Since: since(who),
		DeviceToken: req.GetDeviceToken(), AcceptsChallenge: true, Origin: req.GetOrigin(), Row: &done,
	})
	if err != nil {
		return entrance{}, err
	}
	if outcome.Account == nil {
		return entrance{}, accounts.ErrDisabled
	}
	if outcome.Challenge != nil {
		if err := s.noteOwed(ctx, tx, v, challenge.SignIn, outcome.Challenge.GetToken()); err != nil {
			return entrance{}, err
		}
	}
	return entrance{outcome: outcome, taken: owner == ""}, v.challenge.Spend(ctx, tx, answer, outcome.Session())
}

// unproven decides what an email leads to that the provider does not vouch for, without
// looking for its account. Errors: failed_precondition PROVIDER_EMAIL_UNPROVEN.
func (s *Service) unproven(ctx context.Context, tx pgx.Tx, v visit, who provider.Identity, typed string) (entrance, error) {
	email := cmp.Or(who.Email, typed)
	switch {
	case !s.Mails.Enabled():
		return entrance{}, errUnproven
	case email != "":
		return entrance{claim: email}, s.noteFound(ctx, tx, v, who)
	}
	return entrance{noEmail: true}, s.noteFound(ctx, tx, v, who)
}

// noteFound stores who an answer is about, so that the visit can go on with the answer
// repeated: it is redeemed already. Only the call that redeemed it stores that; a later one
// could undo noteOwed.
func (s *Service) noteFound(ctx context.Context, tx pgx.Tx, v visit, who provider.Identity) error {
	if v.Found != nil {
		return nil
	}
	v.Found = &who
	return s.note(ctx, tx, v)
}

// noteOwed stores the challenge that a visit led to, for a repeated answer.
func (s *Service) noteOwed(ctx context.Context, tx pgx.Tx, v visit, purpose challenge.Purpose, token string) error {
	v.Found, v.Owed, v.OwedFor = nil, token, purpose
	return s.note(ctx, tx, v)
}

// ends returns what ends a visit in the transaction that writes the challenge it leads to.
// Until that is written, the visit goes on; afterwards, the answer repeated gets the same.
func (s *Service) ends(ctx context.Context, v visit, id challenge.Answer, purpose challenge.Purpose) func(pgx.Tx, string) error {
	return func(tx pgx.Tx, token string) error {
		if err := s.noteOwed(ctx, tx, v, purpose, token); err != nil {
			return err
		}
		return v.challenge.Spend(ctx, tx, id, challenge.Made{})
	}
}

// note stores what is to be remembered of a visit.
func (s *Service) note(ctx context.Context, tx pgx.Tx, v visit) error {
	text, err := json.Marshal(v.flow)
	if err != nil {
		return fmt.Errorf("encode the visit: %w", err)
	}
	return s.Desk.Challenges.SetState(ctx, tx, challenge.Federation, v.token, text)
}

func proofOf(who provider.Identity) admission.Proof {
	if who.SecondFactor {
		return admission.Proof{Kind: admission.FederatedTwo}
	}
	return admission.Proof{Kind: admission.Federated}
}

// since is when the person gave a proof to the provider. A provider that does not say it
// may have let them in by a session of its own from long ago.
func since(who provider.Identity) time.Time {
	if who.AuthTime.IsZero() {
		return time.Now().Add(-2 * accounts.RecentSignIn)
	}
	return who.AuthTime
}

// known returns the account of an identity, locked, and notes its use through a provider:
// the entry of an issuer may have another id by now.
func (s *Service) known(ctx context.Context, tx pgx.Tx, through, id, owner string, who provider.Identity) (*authv1.Account, error) {
	account, err := accounts.Lock(ctx, tx, owner)
	if fault.Reason(err) == fault.Reason(accounts.ErrNotFound) {
		return nil, errChanged
	}
	if err != nil {
		return nil, err
	}
	if account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
		return nil, accounts.ErrDisabled
	}
	tag, err := tx.Exec(ctx, useIdentity, pgx.NamedArgs{
		"id": id, "account_id": owner, "provider": through, "email": who.Email, "authoritative": who.Authoritative,
	})
	if err != nil {
		return nil, fmt.Errorf("note the use of the identity: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil, errChanged // it was unlinked while the account was locked
	}
	return account, nil
}

// byAddress returns the account with an address, locked, and whether the address is
// proven to be its owner's; nil without one.
func (s *Service) byAddress(ctx context.Context, tx pgx.Tx, email string) (*authv1.Account, bool, error) {
	account, err := accounts.LockByEmail(ctx, tx, email)
	if err != nil || account == nil {
		return nil, false, err
	}
	if account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
		return nil, false, accounts.ErrDisabled
	}
	verified, err := accounts.IsVerified(ctx, tx, account.GetId())
	return account, verified, err
}

const verifyAddress = `
	UPDATE auth.accounts SET email_verified = true, version = version + 1, update_time = clock_timestamp() WHERE id = @id`

// takeIn makes the account of somebody whose address their provider vouches for, or gives
// them the one that somebody registered without proving the address: nothing that was
// attached to it stays.
func (s *Service) takeIn(ctx context.Context, tx pgx.Tx, v visit, who provider.Identity, account *authv1.Account, req *authv1.CompleteFederatedLoginRequest) (*authv1.Account, string, error) {
	var err error
	if account == nil {
		account, err = s.create(ctx, tx, v, who, req)
	} else {
		err = takeOver(ctx, tx, account)
	}
	if err != nil {
		return nil, "", err
	}
	id, linked, err := insert(ctx, tx, account.GetId(), pending{v.Provider, who})
	if err == nil && !linked {
		err = errChanged
	}
	if fault.Reason(err) == fault.Reason(errTaken) {
		err = errChanged // another sign-in linked it meanwhile
	}
	if err != nil {
		return nil, "", err
	}
	row := audit.Row{Event: audit.IdentityLink, Outcome: audit.Succeeded, Account: account.GetId(), Origin: req.GetOrigin()}
	if err := audit.Write(ctx, tx, row); err != nil {
		return nil, "", err
	}
	account, err = accounts.ByID(ctx, tx, account.GetId())
	return account, id, err
}

func takeOver(ctx context.Context, tx pgx.Tx, account *authv1.Account) error {
	if err := purge.Unproven(ctx, tx, account); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, verifyAddress, pgx.NamedArgs{"id": account.GetId()}); err != nil {
		return fmt.Errorf("verify the email: %w", err)
	}
	return nil
}

func (s *Service) create(ctx context.Context, tx pgx.Tx, v visit, who provider.Identity, req *authv1.CompleteFederatedLoginRequest) (*authv1.Account, error) {
	if !v.provider.SignUp {
		return nil, accounts.ErrRegistrationClosed
	}
	account, err := s.Accounts.Write(ctx, tx, accounts.New{
		ID: req.GetAccountId(), Email: who.Email, SignIn: true, Verified: true, Origin: req.GetOrigin(),
		Profile: &authv1.ProfileSeed{FirstName: who.FirstName, LastName: who.LastName, Locale: ""},
	})
	if fault.Reason(err) == fault.Reason(accounts.ErrEmailTaken) {
		return nil, fmt.Errorf("%w: %w", errChanged, err)
	}
	return account, err
}
