package auth

import (
	"context"
	"errors"

	"gatehouse/internal/password"
	"gatehouse/internal/rpc"
)

// passwordTry is a password that is held against an account's.
type passwordTry struct {
	guesser
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
	begun, err := s.beginAttempt(ctx, try.guesser)
	if rpc.Reason(err) != "" {
		return false, s.refuse(ctx, try.row, err)
	}
	if err != nil {
		return false, err
	}
	right, outdated, err := s.passwords.Check(ctx, try.password, try.hash)
	if errors.Is(err, password.ErrTooManyChecks) {
		if failure := s.settle(ctx, begun, nil); failure != nil { // it was not looked at
			return false, failure
		}
	}
	if err != nil {
		return false, err
	}
	if !right {
		return false, s.refuse(ctx, try.row, try.wrong)
	}
	return outdated, s.settle(ctx, begun, begun.cleared)
}
