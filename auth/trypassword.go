package auth

import (
	"context"

	"gatehouse/internal/fault"
	"gatehouse/internal/password"
)

// passwordTry is a password that is held against an account's.
type passwordTry struct {
	guesser
	caller   password.Caller
	password string
	hash     string // "" when there is no account, or none has been set
	wrong    error  // what it means that it isn't right
	row      audited
}

// tryPassword returns nil when the password is right, and whether its hash
// should be made anew. A refusal is audited. No connection is held while the
// password is hashed. Errors: the try's wrong, resource_exhausted
// TOO_MANY_ATTEMPTS or TOO_MANY_PASSWORD_CHECKS.
func (s *Service) tryPassword(ctx context.Context, try passwordTry) (outdated bool, err error) {
	begun, held, err := s.beginAttempt(ctx, try.guesser)
	if fault.Reason(err) != "" {
		return false, s.refuse(ctx, s.heldRow(try, held), err)
	}
	if err != nil {
		return false, err
	}
	right, outdated, err := s.passwords.Check(ctx, try.caller, try.password, try.hash)
	if err != nil { // it was not looked at
		if failure := s.settle(ctx, begun, nil); failure != nil {
			return false, failure
		}
		return false, err
	}
	if !right {
		if err := s.fail(ctx, begun); err != nil {
			return false, err
		}
		return false, s.refuse(ctx, try.row, try.wrong)
	}
	return outdated, s.settle(ctx, begun, begun.cleared)
}
