package apikey

import (
	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

// These errors refuse a key: the gateway returns them by what it knows, auth by its
// database.
var (
	ErrInvalid = fault.New(connect.CodeUnauthenticated, "KEY_INVALID", "This API key does not exist, or was revoked. Create another one (CreateKey).")
	ErrExpired = fault.New(connect.CodeUnauthenticated, "KEY_EXPIRED", "This API key has expired. Create another one (CreateKey).")
)
