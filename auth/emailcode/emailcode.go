// Package emailcode signs people in with codes that are mailed to them.
//
// A code belongs to the challenge that was made with it. Only the client that asked
// holds the challenge, so neither a program that reads the mail nor the reader of a
// forwarded one can use the code. The challenge stores a MAC of the code, and belongs to
// an email, not to an account: whether there is one is decided when the mail is sent,
// and again when the code is given. A request takes the same time either way.
package emailcode

import (
	"cmp"
	"context"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/relay"
	"gatehouse/auth/secretkey"
	"gatehouse/auth/throttle"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

const (
	// mostMails are sent to an email within mailWindow.
	mostMails  = 3
	mailWindow = 10 * time.Minute
	// stepUpMail limits the codes that an account requests for itself.
	stepUpMail links.Kind = "step_up"
)

var errOff = fault.New(connect.CodeFailedPrecondition, "EMAIL_SIGN_IN_OFF", "This system does not sign in with mailed codes. Use a password or a passkey, or ask the operator to set GATEHOUSE_EMAIL_SIGN_IN.")

// Service implements authv1.EmailCodeServiceHandler, and checks the codes.
type Service struct {
	DB       *database.Pool
	Desk     *admission.Desk
	Accounts *accounts.Store
	Links    *links.Sender
	Mails    *outbox.Outbox
	Relay    *relay.Relay
	Throttle *throttle.Throttle
	Log      *audit.Log
	// On says whether codes sign in. A step-up takes them regardless.
	On bool

	macs [][]byte
}

// SetSecrets gives the secret keys, newest first.
func (s *Service) SetSecrets(secrets [][]byte) error {
	s.macs = nil
	for _, secret := range secrets {
		mac, err := secretkey.Derive(secret, "email code v1")
		if err != nil {
			return err
		}
		s.macs = append(s.macs, mac)
	}
	return nil
}

// state is what a challenge remembers.
type state struct {
	Email string
	// FactorEmail takes the place of Email in the step-up of an account with a second
	// factor. An older binary, which does not ask for that factor, finds no email and
	// refuses the challenge.
	FactorEmail string `json:",omitempty"`
	// DeviceToken was sent with the request; it may be another account's.
	DeviceToken string `json:",omitempty"`
	MAC         []byte
	// FirstName and LastName are those of a new account.
	FirstName, LastName string `json:",omitempty"`
	// NoSignUp says that a code makes no account.
	NoSignUp bool `json:",omitempty"`
}

// macOf binds a code to its challenge.
func macOf(key []byte, hash tokens.Hash, code string) []byte {
	return secretkey.MAC(key, append(hash[:], code...))
}

// write writes a challenge for a code and the mail with it, unless it is not to be sent.
func (s *Service) write(ctx context.Context, tx pgx.Tx, c challenge.Challenge, to outbox.Mail, remembered state, send bool) (*authv1.Challenge, error) {
	token, code := challenge.NewToken(), New()
	hash := tokens.HashOf(token)
	remembered.MAC = macOf(s.macs[0], hash, code)
	encoded, err := json.Marshal(remembered)
	if err != nil {
		return nil, fmt.Errorf("encode the challenge's state: %w", err)
	}
	if err := s.Desk.Challenges.Write(ctx, tx, c, token, encoded); err != nil {
		return nil, err
	}
	if send {
		to.Values["code"], to.Values[valueChallenge] = code, hex.EncodeToString(hash[:])
		if err := s.Mails.Enqueue(ctx, tx, to); err != nil {
			return nil, err
		}
	}
	return &authv1.Challenge{Token: token, Methods: []string{string(admission.EmailCode)}, ExpiresIn: int32(challenge.Life.Seconds())}, nil
}

// RequestSignInCode implements authv1.EmailCodeServiceHandler.
func (s *Service) RequestSignInCode(ctx context.Context, req *authv1.RequestSignInCodeRequest) (*authv1.RequestSignInCodeResponse, error) {
	if !s.On {
		return nil, errOff
	}
	owed, err := s.Ask(ctx, Claim{Email: req.GetEmail(), DeviceToken: req.GetDeviceToken(), Origin: req.GetOrigin()})
	if err != nil {
		return nil, err
	}
	return &authv1.RequestSignInCodeResponse{Challenge: owed}, nil
}

// SignsIn reports whether everybody can sign in with a mailed code.
func (s *Service) SignsIn() bool { return s.On && s.Mails.Enabled() }

// Claim is an email that somebody says is theirs.
type Claim struct {
	Email string
	// DeviceToken is that of an earlier sign-in; it may be empty, or another account's.
	DeviceToken string
	// Pending is an identity of another provider to link to the email's account; nil for
	// none. FirstName and LastName are those of a new account.
	Pending             []byte
	FirstName, LastName string
	// NoSignUp says that only the owner of an account gets a code.
	NoSignUp bool
	// Note is called with the challenge's token in the transaction that writes the
	// challenge; it may be nil.
	Note   func(tx pgx.Tx, token string) error
	Origin *authv1.Origin
}

// Ask mails a code to an email and returns the challenge that takes it, whether or not
// codes sign in by themselves. It does the same for every email: Address decides when the
// mail is sent whether anybody gets it. Errors: failed_precondition MAIL_UNAVAILABLE.
func (s *Service) Ask(ctx context.Context, c Claim) (*authv1.Challenge, error) {
	row := audit.Row{Event: audit.CodeRequest, Outcome: audit.Succeeded, Origin: c.Origin}
	if !s.Mails.Enabled() {
		return nil, s.Log.Refuse(ctx, row, outbox.ErrUnavailable)
	}
	email := strings.TrimSpace(c.Email)
	send, err := s.Throttle.Allow(ctx, mostMails, mailWindow, "sign-in mail", accounts.FoldEmail(email))
	if err != nil {
		return nil, err
	}
	var owed *authv1.Challenge
	err = s.DB.Transact(ctx, func(tx pgx.Tx) (err error) {
		mail := outbox.Mail{Kind: outbox.SignInCode, To: email, Locale: c.Origin.GetLocale(), Values: outbox.Circumstances(c.Origin)}
		if c.NoSignUp {
			mail.Values[valueNoSignUp] = "true"
		}
		remembered := state{Email: email, DeviceToken: c.DeviceToken, FirstName: c.FirstName, LastName: c.LastName, NoSignUp: c.NoSignUp}
		if owed, err = s.write(ctx, tx, challenge.Challenge{Purpose: challenge.EmailCode, Pending: c.Pending}, mail, remembered, send); err != nil {
			return err
		}
		if c.Note != nil {
			if err := c.Note(tx, owed.GetToken()); err != nil {
				return err
			}
		}
		return s.Links.AuditRequest(ctx, tx, row, send)
	})
	if err != nil {
		return nil, fmt.Errorf("request a sign-in code: %w", err)
	}
	admission.CountBegun(ctx, admission.EmailCode)
	return owed, nil
}

// StepUp mails a code to the account of the calling session, which may have a second factor,
// and returns the challenge that takes it. Errors: failed_precondition FACTOR_REQUIRED without mail,
// resource_exhausted TOO_MANY_ATTEMPTS.
func (s *Service) StepUp(ctx context.Context, origin *authv1.Origin, hasFactor bool) (*authv1.Challenge, error) {
	if !s.Mails.Enabled() {
		return nil, challenge.ErrFactorRequired
	}
	counted, err := s.Links.CountOwn(ctx, stepUpMail, origin.GetAccountId())
	if err != nil {
		return nil, err
	}
	var owed *authv1.Challenge
	err = s.DB.Transact(ctx, func(tx pgx.Tx) error {
		account, err := accounts.ByID(ctx, tx, origin.GetAccountId())
		if err != nil {
			return err
		}
		remembered := state{Email: account.GetEmail()}
		if hasFactor {
			remembered = state{FactorEmail: account.GetEmail()}
		}
		mail := outbox.Mail{
			Kind: outbox.SignInCode, To: account.GetEmail(), Account: account.GetId(),
			Locale: outbox.LocaleOf(origin, account.GetId()), Values: outbox.Circumstances(origin),
		}
		owed, err = s.write(ctx, tx, challenge.Challenge{Purpose: challenge.StepUp, Account: account.GetId(), Session: origin.GetSessionId()}, mail, remembered, true)
		return err
	})
	return owed, s.Links.Uncount(ctx, counted, err)
}

// stateOf returns the state of a challenge. Errors: invalid_argument CHALLENGE_INVALID
// for a challenge that takes no code.
func (s *Service) stateOf(c challenge.Challenge) (state, error) {
	encoded, err := s.Desk.Challenges.State(c)
	if err != nil {
		return state{}, err
	}
	var found state
	if encoded == nil || json.Unmarshal(encoded, &found) != nil {
		return state{}, challenge.ErrInvalid
	}
	if found.Email = cmp.Or(found.Email, found.FactorEmail); found.Email == "" {
		return state{}, challenge.ErrInvalid
	}
	return found, nil
}

// matches reports whether an attempt has the code of its challenge.
func (s *Service) matches(found state, a admission.Attempt) bool {
	code := Normal(a.Proof.GetEmailCode())
	for _, key := range s.macs {
		if hmac.Equal(found.MAC, macOf(key, a.Challenge.Hash(), code)) {
			return true
		}
	}
	return false
}
