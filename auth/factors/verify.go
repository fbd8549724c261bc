package factors

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/outbox"
)

// Verifiers check codes of authenticator apps and recovery codes.
func (s *Store) Verifiers() []admission.Verifier {
	return []admission.Verifier{
		{Kind: admission.TOTP, Field: "totp_code", Limit: s.limit, Verify: s.verifyTOTP},
		{Kind: admission.RecoveryCode, Field: "recovery_code", Limit: s.limit, Verify: s.verifyRecoveryCode},
	}
}

// A device that gave a second proof before is its owner's: tokens of devices are also
// given to those who only know the password, before the account has a second factor.
const provenDevice = `
	SELECT EXISTS (SELECT FROM auth.sessions
		WHERE account_id = @account_id AND device_id = @device_id AND second_factor_time IS NOT NULL)`

// limit counts an attempt at an account's second factor. Errors: resource_exhausted
// TOO_MANY_ATTEMPTS.
func (s *Store) limit(ctx context.Context, a admission.Attempt) (admission.Settle, error) {
	device := a.Challenge.Device
	if device != "" {
		var proven bool
		err := s.DB.QueryRow(ctx, provenDevice, pgx.NamedArgs{"account_id": a.Account, "device_id": device}).Scan(&proven)
		if err != nil {
			return nil, fmt.Errorf("look for the device: %w", err)
		}
		if !proven {
			device = ""
		}
	}
	attempt, _, err := s.Throttle.BeginFactor(ctx, a.Account, device)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, result admission.Result) error {
		switch result {
		case admission.Right:
			return s.Throttle.Succeed(ctx, attempt)
		case admission.Wrong:
			return s.Throttle.Fail(ctx, attempt)
		}
		return s.Throttle.Cancel(ctx, attempt)
	}, nil
}

func (s *Store) verifyTOTP(ctx context.Context, tx pgx.Tx, a admission.Attempt) (admission.Proof, error) {
	ok, err := s.AcceptTOTP(ctx, tx, a.Account, a.Proof.GetTotpCode())
	if err == nil && !ok {
		err = s.wrong(ctx, tx, a)
	}
	return admission.Proof{Kind: admission.TOTP}, err
}

func (s *Store) verifyRecoveryCode(ctx context.Context, tx pgx.Tx, a admission.Attempt) (admission.Proof, error) {
	proof := admission.Proof{Kind: admission.RecoveryCode}
	ok, left, err := SpendRecoveryCode(ctx, tx, a.Account, a.Proof.GetRecoveryCode())
	if err != nil {
		return proof, err
	}
	if !ok {
		return proof, s.wrong(ctx, tx, a)
	}
	account, err := accounts.ByID(ctx, tx, a.Account)
	if err != nil {
		return proof, err
	}
	mail := outbox.Mail{
		Kind: outbox.RecoveryCodeUsed, To: account.GetEmail(), Account: a.Account,
		Locale: outbox.LocaleOf(a.Origin, a.Account), Values: outbox.Circumstances(a.Origin),
	}
	mail.Values["codes_left"] = strconv.Itoa(left)
	if err := s.Mails.Enqueue(ctx, tx, mail); err != nil {
		return proof, err
	}
	return proof, audit.Write(ctx, tx, audit.Row{Event: audit.FactorRecover, Outcome: audit.Succeeded, Account: a.Account, Origin: a.Origin})
}

// alertInterval is the least time between two mails about wrong codes.
const alertInterval = time.Hour

const noteAlert = `
	UPDATE auth.accounts SET factor_alert_time = clock_timestamp()
	WHERE id = @account_id AND (factor_alert_time IS NULL OR factor_alert_time < clock_timestamp() - @interval::interval)
	RETURNING email`

// wrong mails the owner that somebody knows the password, and returns the refusal of a
// wrong code. It is the same for a used one.
func (s *Store) wrong(ctx context.Context, tx pgx.Tx, a admission.Attempt) error {
	if !slices.Contains(a.Challenge.AMR, "pwd") || !s.Mails.Enabled() {
		return challenge.ErrCodeWrong
	}
	rows, err := tx.Query(ctx, noteAlert, pgx.NamedArgs{"account_id": a.Account, "interval": alertInterval})
	if err != nil {
		return fmt.Errorf("note the mail about a wrong code: %w", err)
	}
	emails, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("note the mail about a wrong code: %w", err)
	}
	for _, email := range emails { // none within the interval
		// In the default language: who asks is not known to be the owner.
		err := s.Mails.Enqueue(ctx, tx, outbox.Mail{Kind: outbox.FactorFailed, To: email, Account: a.Account, Values: outbox.Circumstances(a.Origin)})
		if err != nil {
			return err
		}
	}
	return challenge.ErrCodeWrong
}
