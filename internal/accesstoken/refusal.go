package accesstoken

import (
	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// These errors refuse a token that is no longer valid, although it has not expired: the
// gateway returns them by the revocations that it knows, auth by its database.
var (
	ErrSessionEnded = fault.New(connect.CodeUnauthenticated, "SESSION_ENDED", "This session has ended. Sign in again.")
	ErrStale        = fault.New(connect.CodeUnauthenticated, "TOKEN_STALE", "This access token is out of date: your roles or your account have changed. Refresh it.")
)

// ErrSecondFactor refuses a token of a session whose level of assurance is too low. The
// gateway returns it by the policy, auth by the account.
var ErrSecondFactor = fault.New(connect.CodeFailedPrecondition, ReasonSecondFactor,
	"This needs your second factor. Give it (Reauthenticate, then CompleteReauthentication; to sign in, Login, then CompleteLogin), then repeat this.")

// ReasonSecondFactor is the reason of ErrSecondFactor, which the header of RFC 9470 goes
// with.
const ReasonSecondFactor = "SECOND_FACTOR_REQUIRED"
