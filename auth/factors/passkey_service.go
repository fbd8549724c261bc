package factors

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/devices"
	"gatehouse/auth/emailcode"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passkeys"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

var errLastSignIn = accounts.ErrLastSignIn

// PasskeyService implements authv1.PasskeyServiceHandler.
type PasskeyService struct{ *Service }

// BeginPasskeyLogin implements authv1.PasskeyServiceHandler.
func (s *PasskeyService) BeginPasskeyLogin(ctx context.Context, _ *authv1.BeginPasskeyLoginRequest) (*authv1.BeginPasskeyLoginResponse, error) {
	owed, err := s.Passkeys.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &authv1.BeginPasskeyLoginResponse{Challenge: owed}, nil
}

// registration is the state of the challenge of a registration.
type registration struct {
	Ceremony json.RawMessage `json:",omitempty"`
	// EmailCode is the mailed code; empty for none.
	EmailCode string `json:",omitempty"`
	// Passkey and RecoveryCodes were returned, once the registration is finished.
	Passkey       string   `json:",omitempty"`
	RecoveryCodes []string `json:",omitempty"`
}

// BeginPasskeyRegistration implements authv1.PasskeyServiceHandler.
func (s *PasskeyService) BeginPasskeyRegistration(ctx context.Context, req *authv1.BeginPasskeyRegistrationRequest) (*authv1.BeginPasskeyRegistrationResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.FactorAdd, Account: origin.GetAccountId(), Origin: origin}
	var caller owner
	var state registration
	var options *structpb.Struct
	err := s.DB.Transact(ctx, func(tx pgx.Tx) (err error) {
		if caller, err = s.mayEnrol(ctx, tx, origin); err != nil {
			return err
		}
		state.Ceremony, options, err = s.Passkeys.Ceremony(ctx, tx, caller.account, req.GetDisplayName())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin to register a passkey: %w", s.Log.Refuse(ctx, row, err))
	}
	var counted links.Count
	if s.needsEmailCode(caller) {
		state.EmailCode = emailcode.New()
		if counted, err = s.Links.CountOwn(ctx, enrolmentMail, caller.account.GetId()); err != nil {
			return nil, fmt.Errorf("begin to register a passkey: %w", s.Log.Refuse(ctx, row, err))
		}
	}
	token, err := s.issue(ctx, passkeys.Registration, state, state.EmailCode, caller.account, origin)
	if err := s.Links.Uncount(ctx, counted, err); err != nil {
		return nil, fmt.Errorf("begin to register a passkey: %w", err)
	}
	return &authv1.BeginPasskeyRegistrationResponse{RegistrationToken: token, Options: options, EmailCodeSent: state.EmailCode != ""}, nil
}

// FinishPasskeyRegistration implements authv1.PasskeyServiceHandler.
func (s *PasskeyService) FinishPasskeyRegistration(ctx context.Context, req *authv1.FinishPasskeyRegistrationRequest) (*authv1.FinishPasskeyRegistrationResponse, error) {
	origin := req.GetOrigin()
	answer := &authv1.FinishPasskeyRegistrationResponse{}
	var first bool // second factor of the account
	var amr []string
	issued, repeated, err := s.Desk.Enrol(ctx, admission.Enrolment{
		Purpose: passkeys.Registration, Token: req.GetRegistrationToken(), Key: req.GetIdempotencyKey(),
		Answer: &authv1.FinishPasskeyRegistrationRequest{Response: req.GetResponse(), Name: req.GetName(), EmailCode: req.GetEmailCode()},
		Kind:   admission.Passkey, Methods: func() []string { return amr }, Origin: origin,
		Row: audit.Row{Event: audit.FactorAdd, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin},
		Verify: func(ctx context.Context, tx pgx.Tx, c challenge.Challenge) error {
			caller, err := s.mayEnrol(ctx, tx, origin)
			if err != nil {
				return err
			}
			first = !caller.secondFactor
			state, err := s.registrationOf(c)
			if err != nil {
				return err
			}
			if state.EmailCode == "" && s.needsEmailCode(caller) { // only since the registration began
				return challenge.Superseded()
			}
			if !sameCode(state.EmailCode, req.GetEmailCode()) {
				return challenge.ErrCodeWrong
			}
			answer.Passkey, amr, err = s.Passkeys.Register(ctx, tx, c, state.Ceremony, req.GetResponse(), req.GetName())
			return err
		},
		Enrol: func(ctx context.Context, tx pgx.Tx, account *authv1.Account) (err error) {
			if first {
				answer.RecoveryCodes, err = s.added(ctx, tx, account)
			} else {
				_, err = devices.Forget(ctx, tx, account.GetId(), nil)
			}
			if err != nil {
				return err
			}
			if err := s.keep(ctx, tx, req.GetRegistrationToken(), answer); err != nil {
				return err
			}
			return s.mail(ctx, tx, outbox.PasskeyAdded, account, origin)
		},
	})
	if err == nil && repeated != nil {
		err = s.kept(ctx, *repeated, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("register a passkey: %w", err)
	}
	answer.Tokens = issued
	return answer, nil
}

func (s *PasskeyService) registrationOf(c challenge.Challenge) (state registration, err error) {
	text, err := s.Desk.Challenges.State(c)
	if err != nil {
		return registration{}, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return registration{}, fmt.Errorf("decode the registration: %w", err)
	}
	return state, nil
}

// keep stores the answer for a repetition; kept completes the answer to one.
func (s *PasskeyService) keep(ctx context.Context, tx pgx.Tx, token string, answer *authv1.FinishPasskeyRegistrationResponse) error {
	text, err := json.Marshal(registration{Passkey: answer.GetPasskey().GetPasskeyId(), RecoveryCodes: answer.GetRecoveryCodes()})
	if err != nil {
		return fmt.Errorf("encode the registration: %w", err)
	}
	return s.Desk.Challenges.SetState(ctx, tx, passkeys.Registration, token, text)
}

func (s *PasskeyService) kept(ctx context.Context, c challenge.Challenge, answer *authv1.FinishPasskeyRegistrationResponse) error {
	state, err := s.registrationOf(c)
	if err != nil {
		return err
	}
	answer.RecoveryCodes = state.RecoveryCodes
	answer.Passkey, err = passkeys.Get(ctx, s.DB, c.Account, state.Passkey)
	if fault.Reason(err) == fault.Reason(passkeys.ErrNotFound) { // deleted since
		return challenge.Used()
	}
	return err
}

// RenamePasskey implements authv1.PasskeyServiceHandler.
func (s *PasskeyService) RenamePasskey(ctx context.Context, req *authv1.RenamePasskeyRequest) (*authv1.RenamePasskeyResponse, error) {
	renamed, err := passkeys.Rename(ctx, s.DB, req.GetOrigin().GetAccountId(), req.GetPasskeyId(), req.GetName())
	if err != nil {
		return nil, err
	}
	return &authv1.RenamePasskeyResponse{Passkey: renamed}, nil
}

// change changes the calling account, whose session must have signed in recently with
// what the account has, whatever the policy of the gateway says.
func (s *PasskeyService) change(ctx context.Context, event audit.Event, origin *authv1.Origin, apply func(tx pgx.Tx, before *authv1.Account) (bool, error)) error {
	_, err := s.Accounts.Change(ctx, origin.GetAccountId(), event, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		if _, err := s.admit(ctx, tx, origin); err != nil {
			return false, err
		}
		return apply(tx, before)
	})
	return err
}

// DeletePasskey implements authv1.PasskeyServiceHandler.
func (s *PasskeyService) DeletePasskey(ctx context.Context, req *authv1.DeletePasskeyRequest) (*authv1.DeletePasskeyResponse, error) {
	origin := req.GetOrigin()
	err := s.change(ctx, audit.FactorRemove, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		if err := passkeys.Delete(ctx, tx, before.GetId(), req.GetPasskeyId()); err != nil {
			return false, err
		}
		if err := s.Accounts.WaysIn.Require(ctx, tx, before.GetId()); err != nil {
			return false, err
		}
		left, err := Removed(ctx, tx, before.GetId(), passkeys.Methods...)
		if err != nil {
			return false, err
		}
		if !left && s.mustHaveFactor(before) {
			return false, challenge.ErrLastFactor
		}
		return true, s.mail(ctx, tx, outbox.PasskeyRemoved, before, origin)
	})
	if err != nil {
		return nil, err
	}
	return &authv1.DeletePasskeyResponse{}, nil
}

// Two passkeys that work; or one, and recovery codes, which complete the sign-in after a
// password reset by mail. A session with the method pop signed in by passkey.
const mayLosePassword = `
	SELECT (SELECT count(*) FROM auth.passkeys WHERE account_id = @id AND rp_id = @rp_id AND block_time IS NULL),
		EXISTS (SELECT FROM auth.recovery_codes WHERE account_id = @id AND use_time IS NULL),
		EXISTS (SELECT FROM auth.sessions WHERE id = @session AND account_id = @id AND 'pop' = ANY (amr)
			AND second_factor_time > clock_timestamp() - @within::interval)`

// RemovePassword implements authv1.PasskeyServiceHandler.
func (s *PasskeyService) RemovePassword(ctx context.Context, req *authv1.RemovePasswordRequest) (*authv1.RemovePasswordResponse, error) {
	origin := req.GetOrigin()
	err := s.change(ctx, audit.PasswordRemove, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		if has, err := accounts.HasPassword(ctx, tx, before.GetId()); err != nil || !has {
			return false, err
		}
		if err := s.requireEnoughPasskeys(ctx, tx, origin); err != nil {
			return false, err
		}
		if _, err := tx.Exec(ctx, removePassword, pgx.NamedArgs{"account_id": before.GetId()}); err != nil {
			return false, fmt.Errorf("remove the password: %w", err)
		}
		if _, err := devices.Forget(ctx, tx, before.GetId(), nil); err != nil {
			return false, err
		}
		if err := challenge.Supersede(ctx, tx, before.GetId()); err != nil {
			return false, err
		}
		return true, s.mail(ctx, tx, outbox.PasswordRemoved, before, origin)
	})
	if err != nil {
		return nil, err
	}
	return &authv1.RemovePasswordResponse{}, nil
}

// requireEnoughPasskeys refuses unless the session signed in by passkey recently and the
// loss of one passkey leaves a way in. Errors: failed_precondition PASSKEYS_OFF,
// REAUTHENTICATION_REQUIRED or LAST_SIGN_IN_METHOD.
func (s *PasskeyService) requireEnoughPasskeys(ctx context.Context, tx pgx.Tx, origin *authv1.Origin) error {
	if !s.Passkeys.On() {
		return passkeys.ErrOff
	}
	var count int
	var codes, byPasskey bool
	err := tx.QueryRow(ctx, mayLosePassword, pgx.NamedArgs{
		"id": origin.GetAccountId(), "session": database.Optional(origin.GetSessionId()), "rp_id": s.Passkeys.Party.ID(), "within": accounts.RecentSignIn,
	}).Scan(&count, &codes, &byPasskey)
	switch {
	case err != nil:
		return fmt.Errorf("look for other ways to sign in: %w", err)
	case !byPasskey:
		return accounts.ErrPasskeyAgain
	case count >= 2 || count == 1 && codes && s.Mails.Enabled():
		return nil
	}
	return errLastSignIn
}
