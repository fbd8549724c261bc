package factors

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/deployment"
	"gatehouse/auth/devices"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passkeys"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

var errDeviceNotFound = fault.New(connect.CodeNotFound, "DEVICE_NOT_FOUND", "There is no such remembered device.")

// Service implements authv1.FactorServiceHandler.
type Service struct {
	*Store
	Desk     *admission.Desk
	Passkeys *passkeys.Store
	Accounts *accounts.Store
	Links    *links.Sender
	Log      *audit.Log
	// Issuer is the public URL, whose host names the site in authenticator apps.
	Issuer string
	// Required says that every account must have a second factor, Roles whose holders
	// must.
	Required bool
	Roles    []string
}

// mustHaveFactor reports whether the account must have a second factor.
func (s *Service) mustHaveFactor(account *authv1.Account) bool {
	return s.Required || slices.ContainsFunc(account.GetRoles(), func(role string) bool { return slices.Contains(s.Roles, role) })
}

const selectCaller = `
	SELECT a.second_factor, ` + accounts.Verified + `
	FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
	WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND s.expire_time > now() AND a.status = 'active'`

// owner is a caller who may change the second factors of their account.
type owner struct {
	account *authv1.Account
	// secondFactor says that the account has one.
	secondFactor bool
	// verified says that the email is the owner's.
	verified bool
}

// admit locks the calling account, and refuses a caller who may not change its second
// factors: the session must have signed in recently, with the second factor if there is
// one. Errors: unauthenticated SESSION_ENDED, failed_precondition
// SECOND_FACTOR_REQUIRED or REAUTHENTICATION_REQUIRED.
func (s *Service) admit(ctx context.Context, tx pgx.Tx, origin *authv1.Origin) (found owner, err error) {
	if origin.GetAccountId() == "" {
		return owner{}, accesstoken.ErrSessionEnded
	}
	if found.account, err = accounts.Lock(ctx, tx, origin.GetAccountId()); err != nil {
		return owner{}, err
	}
	err = tx.QueryRow(ctx, selectCaller, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": origin.GetAccountId(),
	}).Scan(&found.secondFactor, &found.verified)
	if database.Missing(err) {
		return owner{}, accesstoken.ErrSessionEnded
	}
	if err != nil {
		return owner{}, fmt.Errorf("look up the session: %w", err)
	}
	return found, accounts.RequireIfAsked(ctx, tx, recentAtOwnLevel(origin))
}

// recentAtOwnLevel returns the origin with what a change of second factors requires,
// whatever the policy of the gateway says.
func recentAtOwnLevel(origin *authv1.Origin) *authv1.Origin {
	return &authv1.Origin{AccountId: origin.GetAccountId(), SessionId: origin.GetSessionId(), RequireOwnLevel: true, RequireRecentSignIn: true}
}

// ListFactors implements authv1.FactorServiceHandler.
func (s *Service) ListFactors(ctx context.Context, req *authv1.ListFactorsRequest) (*authv1.ListFactorsResponse, error) {
	return s.list(ctx, req.GetAccountId())
}

// RemoveTOTP implements authv1.FactorServiceHandler.
func (s *Service) RemoveTOTP(ctx context.Context, req *authv1.RemoveTOTPRequest) (*authv1.RemoveTOTPResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.FactorRemove, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
		caller, err := s.admit(ctx, tx, origin)
		if err != nil {
			return err
		}
		id := caller.account.GetId()
		removed, err := RemoveTOTP(ctx, tx, id)
		if err != nil || !removed {
			return err
		}
		left, err := Removed(ctx, tx, id, "otp")
		if err != nil {
			return err
		}
		if !left && s.mustHaveFactor(caller.account) {
			return challenge.ErrLastFactor
		}
		if err := s.mail(ctx, tx, outbox.TOTPRemoved, caller.account, origin); err != nil {
			return err
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("remove an authenticator app: %w", s.Log.Refuse(ctx, row, err))
	}
	s.Desk.Revocations.Soon()
	return &authv1.RemoveTOTPResponse{}, nil
}

// mail mails an account's owner about a change of its factors.
func (s *Service) mail(ctx context.Context, tx pgx.Tx, kind outbox.Kind, account *authv1.Account, origin *authv1.Origin) error {
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: kind, To: account.GetEmail(), Account: account.GetId(),
		Locale: outbox.LocaleOf(origin, account.GetId()), Values: outbox.Circumstances(origin),
	})
}

// RegenerateRecoveryCodes implements authv1.FactorServiceHandler.
func (s *Service) RegenerateRecoveryCodes(ctx context.Context, req *authv1.RegenerateRecoveryCodesRequest) (*authv1.RegenerateRecoveryCodesResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.FactorRecover, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	var codes []string
	err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
		caller, err := s.admit(ctx, tx, origin)
		if err != nil {
			return err
		}
		if !caller.secondFactor {
			return challenge.ErrFactorRequired
		}
		if codes, err = ReplaceRecoveryCodes(ctx, tx, caller.account.GetId()); err != nil {
			return err
		}
		if _, err := devices.Forget(ctx, tx, caller.account.GetId(), nil); err != nil {
			return err
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("regenerate the recovery codes: %w", s.Log.Refuse(ctx, row, err))
	}
	s.Desk.Revocations.Soon()
	return &authv1.RegenerateRecoveryCodesResponse{RecoveryCodes: codes}, nil
}

// ForgetDevices implements authv1.FactorServiceHandler.
func (s *Service) ForgetDevices(ctx context.Context, req *authv1.ForgetDevicesRequest) (*authv1.ForgetDevicesResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.DeviceForget, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	var forgotten int
	err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
		account, err := accounts.Lock(ctx, tx, origin.GetAccountId())
		if err != nil {
			return err
		}
		if forgotten, err = devices.Forget(ctx, tx, account.GetId(), database.Optional(req.GetDeviceId())); err != nil {
			return err
		}
		if forgotten == 0 && req.GetDeviceId() != "" {
			return errDeviceNotFound
		}
		if forgotten == 0 {
			return nil
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("forget remembered devices: %w", s.Log.Refuse(ctx, row, err))
	}
	s.Desk.Revocations.Soon()
	return &authv1.ForgetDevicesResponse{Forgotten: int32(forgotten)}, nil
}
