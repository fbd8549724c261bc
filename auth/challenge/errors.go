package challenge

import (
	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

var (
	ErrInvalid = fault.New(connect.CodeInvalidArgument, "CHALLENGE_INVALID", "This is not a challenge token of ours. Sign in again, and send the token of that answer.")
	// ErrExpired refuses an answer that came too late.
	ErrExpired    = fault.New(connect.CodeFailedPrecondition, "CHALLENGE_EXPIRED", "This challenge is older than 10 minutes. Start again.")
	errUsed       = fault.New(connect.CodeFailedPrecondition, "CHALLENGE_USED", "This challenge was answered already, and works once. Start again.")
	errSuperseded = fault.New(connect.CodeFailedPrecondition, "CHALLENGE_SUPERSEDED", "The account has changed since this challenge was made. Start again.")
	errExhausted  = fault.New(connect.CodeFailedPrecondition, "CHALLENGE_EXHAUSTED", "This challenge was answered wrongly five times. Start again.")
	// ErrCodeWrong is the same for a wrong code and one that was used.
	ErrCodeWrong = fault.New(connect.CodeInvalidArgument, "CODE_WRONG", "The code is wrong or was used already. Wait for the next one, and check the clock of the device.")
	// ErrMailedCodeWrong is the same for a code of another challenge.
	ErrMailedCodeWrong = fault.New(connect.CodeInvalidArgument, "CODE_WRONG", "The code is wrong. Type the code of the latest mail where you asked for it, or ask for another.")
	// ErrFactorRequired refuses what needs an authenticator that the account lacks.
	ErrFactorRequired = fault.New(connect.CodeFailedPrecondition, "FACTOR_REQUIRED", "This needs another way to sign in than the account has. Give the password, or add a passkey or an authenticator app first.")
	// ErrRegistrationLate refuses a passkey that took longer than browsers wait.
	ErrRegistrationLate = fault.New(connect.CodeFailedPrecondition, "CHALLENGE_EXPIRED", "The registration began more than 5 minutes ago. Begin it again.")
	// ErrFactorFirst refuses another email of an account that must have a second factor
	// and has none.
	ErrFactorFirst = fault.New(connect.CodeFailedPrecondition, "FACTOR_REQUIRED", "This account must have a second factor. Add one first, then change the email.")
	// ErrLastFactor refuses the removal of the second factor that an account must have.
	ErrLastFactor = fault.New(connect.CodeFailedPrecondition, "FACTOR_REQUIRED", "This account must have a second factor. Add another one before you remove this one.")
)
