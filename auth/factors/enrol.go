package factors

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/devices"
	"gatehouse/auth/emailcode"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/totp"
	authv1 "gatehouse/gen/auth/v1"
)

// enrolment is the state of the challenge of an enrolment.
type enrolment struct {
	Secret totp.Secret
	// EmailCode is the mailed code; empty for none.
	EmailCode string `json:",omitempty"`
	// RecoveryCodes were returned, once the enrolment is finished.
	RecoveryCodes []string `json:",omitempty"`
}

// enrolmentMail limits the mailed codes of an account.
const enrolmentMail links.Kind = "enrolment"

// BeginTOTPEnrolment implements authv1.FactorServiceHandler.
func (s *Service) BeginTOTPEnrolment(ctx context.Context, req *authv1.BeginTOTPEnrolmentRequest) (*authv1.BeginTOTPEnrolmentResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.FactorAdd, Account: origin.GetAccountId(), Origin: origin}
	state := enrolment{Secret: totp.NewSecret()}
	var caller owner
	err := s.DB.Transact(ctx, func(tx pgx.Tx) (err error) {
		caller, err = s.mayEnrol(ctx, tx, origin)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin to enrol an authenticator app: %w", s.Log.Refuse(ctx, row, err))
	}
	var counted links.Count
	if s.needsEmailCode(caller) {
		state.EmailCode = emailcode.New()
		if counted, err = s.Links.CountOwn(ctx, enrolmentMail, caller.account.GetId()); err != nil {
			return nil, fmt.Errorf("begin to enrol an authenticator app: %w", s.Log.Refuse(ctx, row, err))
		}
	}
	token, err := s.issue(ctx, challenge.EnrolTOTP, state, state.EmailCode, caller.account, origin)
	if err := s.Links.Uncount(ctx, counted, err); err != nil {
		return nil, fmt.Errorf("begin to enrol an authenticator app: %w", err)
	}
	return &authv1.BeginTOTPEnrolmentResponse{
		EnrolmentToken: token, Secret: state.Secret.String(), OtpauthUri: state.Secret.URI(siteOf(s.Issuer), caller.account.GetEmail()), EmailCodeSent: state.EmailCode != "",
	}, nil
}

// siteOf returns the host of a URL.
func siteOf(issuer string) string {
	parsed, err := url.Parse(issuer)
	if err != nil || parsed.Hostname() == "" {
		return issuer
	}
	return parsed.Hostname()
}

// issue writes the challenge of an enrolment with its state, and the mail of its code if
// there is one. It returns the challenge's token.
func (s *Service) issue(ctx context.Context, purpose challenge.Purpose, state any, code string, account *authv1.Account, origin *authv1.Origin) (token string, err error) {
	text, err := json.Marshal(state)
	if err != nil {
		return "", fmt.Errorf("encode the enrolment: %w", err)
	}
	err = s.DB.Transact(ctx, func(tx pgx.Tx) error {
		token, err = s.Desk.Challenges.Issue(ctx, tx, challenge.Challenge{
			Purpose: purpose, Account: account.GetId(), Session: origin.GetSessionId(),
		}, text)
		if err != nil || code == "" {
			return err
		}
		mail := outbox.Mail{
			Kind: outbox.EnrolmentCode, To: account.GetEmail(), Account: account.GetId(), Locale: origin.GetLocale(), Values: outbox.Circumstances(origin),
		}
		mail.Values["code"] = code
		return s.Mails.Enqueue(ctx, tx, mail)
	})
	return token, err
}

// mayEnrol is admit, and refuses an unverified email where mail can be sent: what its
// planter attaches must not be there when the owner arrives. Errors: those of admit,
// failed_precondition EMAIL_UNVERIFIED.
func (s *Service) mayEnrol(ctx context.Context, tx pgx.Tx, origin *authv1.Origin) (owner, error) {
	caller, err := s.admit(ctx, tx, origin)
	if err == nil && s.Mails.Enabled() && !caller.verified {
		err = accounts.ErrUnverified
	}
	return caller, err
}

// needsEmailCode reports whether an enrolment needs a mailed code: the first one of an
// account that must have a second factor. A stolen password would otherwise be enough to
// enrol it, and to gain what it opens.
func (s *Service) needsEmailCode(caller owner) bool {
	return !caller.secondFactor && s.mustHaveFactor(caller.account) && s.Mails.Enabled()
}

const selectSecondFactor = `SELECT second_factor FROM auth.accounts WHERE id = @id`

// RequireBeforeNewEmail refuses another email of an account that must have a second
// factor and has none: the code that its first one takes is mailed to the owner, and
// somebody who stole the password would have it mailed to themselves. The account is
// locked. Errors: failed_precondition FACTOR_REQUIRED.
func (s *Service) RequireBeforeNewEmail(ctx context.Context, tx pgx.Tx, account *authv1.Account) error {
	if !s.mustHaveFactor(account) {
		return nil
	}
	var has bool
	if err := tx.QueryRow(ctx, selectSecondFactor, pgx.NamedArgs{"id": account.GetId()}).Scan(&has); err != nil {
		return fmt.Errorf("look for a second factor: %w", err)
	}
	if !has {
		return challenge.ErrFactorFirst
	}
	return nil
}

// FinishTOTPEnrolment implements authv1.FactorServiceHandler.
func (s *Service) FinishTOTPEnrolment(ctx context.Context, req *authv1.FinishTOTPEnrolmentRequest) (*authv1.FinishTOTPEnrolmentResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.FactorAdd, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	if err := accounts.RequireIfAsked(ctx, s.DB, recentAtOwnLevel(origin)); err != nil {
		return nil, fmt.Errorf("finish to enrol an authenticator app: %w", s.Log.Refuse(ctx, row, err))
	}
	var state enrolment
	issued, repeated, err := s.Desk.Enrol(ctx, admission.Enrolment{
		Purpose: challenge.EnrolTOTP, Token: req.GetEnrolmentToken(), Key: req.GetIdempotencyKey(),
		Answer: &authv1.FinishTOTPEnrolmentRequest{Code: req.GetCode(), EmailCode: req.GetEmailCode()},
		Kind:   admission.TOTP, Origin: origin, Row: row,
		Verify: func(ctx context.Context, tx pgx.Tx, c challenge.Challenge) error {
			caller, err := s.mayEnrol(ctx, tx, origin)
			if err != nil {
				return err
			}
			if state, err = s.stateOf(c); err != nil {
				return err
			}
			if state.EmailCode == "" && s.needsEmailCode(caller) { // only since the enrolment began
				return challenge.Superseded()
			}
			if !sameCode(state.EmailCode, req.GetEmailCode()) {
				return challenge.ErrCodeWrong
			}
			ok, err := s.EnrolTOTP(ctx, tx, c.Account, state.Secret, req.GetCode())
			if err == nil && !ok {
				err = challenge.ErrCodeWrong
			}
			return err
		},
		Enrol: func(ctx context.Context, tx pgx.Tx, account *authv1.Account) (err error) {
			if state.RecoveryCodes, err = s.added(ctx, tx, account); err != nil {
				return err
			}
			text, err := json.Marshal(enrolment{RecoveryCodes: state.RecoveryCodes})
			if err != nil {
				return fmt.Errorf("encode the enrolment: %w", err)
			}
			if err := s.Desk.Challenges.SetState(ctx, tx, challenge.EnrolTOTP, req.GetEnrolmentToken(), text); err != nil {
				return err
			}
			return s.mail(ctx, tx, outbox.TOTPAdded, account, origin)
		},
	})
	if err == nil && repeated != nil {
		state, err = s.stateOf(*repeated)
	}
	if err != nil {
		return nil, fmt.Errorf("finish to enrol an authenticator app: %w", err)
	}
	return &authv1.FinishTOTPEnrolmentResponse{RecoveryCodes: state.RecoveryCodes, Tokens: issued}, nil
}

// added follows the addition of a second factor: a password alone no longer signs in, and
// the account has new recovery codes and no remembered devices.
func (s *Service) added(ctx context.Context, tx pgx.Tx, account *authv1.Account) (recoveryCodes []string, err error) {
	if err := accounts.SetSecondFactor(ctx, tx, account.GetId(), true); err != nil {
		return nil, err
	}
	if _, err := devices.Forget(ctx, tx, account.GetId(), nil); err != nil {
		return nil, err
	}
	return ReplaceRecoveryCodes(ctx, tx, account.GetId())
}

func (s *Service) stateOf(c challenge.Challenge) (state enrolment, err error) {
	text, err := s.Desk.Challenges.State(c)
	if err != nil {
		return enrolment{}, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return enrolment{}, fmt.Errorf("decode the enrolment: %w", err)
	}
	return state, nil
}

// sameCode compares a mailed code with what somebody typed.
func sameCode(want, got string) bool { return want == "" || emailcode.Same(want, got) }
