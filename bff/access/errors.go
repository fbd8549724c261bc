package access

import (
	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

var (
	ErrTokenMissing = fault.New(connect.CodeUnauthenticated, "TOKEN_MISSING", "Sign in, and send the access token as \"Authorization: Bearer …\".")
	ErrTokenInvalid = fault.New(connect.CodeUnauthenticated, "TOKEN_INVALID", "This is not a valid access token. Sign in again.")
	ErrTokenExpired = fault.New(connect.CodeUnauthenticated, "TOKEN_EXPIRED", "The access token has expired. Refresh it.")
)
