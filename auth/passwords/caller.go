package passwords

import (
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/password"
)

// SignedIn is the caller of a session, whose account is proven.
func SignedIn(account string) password.Caller {
	return password.Caller{Class: password.SignedIn, Flow: account}
}

// KnownDevice is a caller that signs in with a token of the account's device.
func KnownDevice(account string) password.Caller {
	return password.Caller{Class: password.KnownDevice, Flow: account}
}

// LinkHolder is a caller with the token of a mailed link. Anybody can have many
// links, so that holders share the hasher by network.
func LinkHolder(origin *authv1.Origin) password.Caller {
	return password.Caller{Class: password.Link, Flow: throttle.Network(origin.GetIpAddress())}
}

// Stranger is a caller that proves nothing.
func Stranger(origin *authv1.Origin) password.Caller {
	return password.Caller{Class: password.Stranger, Flow: throttle.Network(origin.GetIpAddress())}
}

// Anybody is a caller with or without a session.
func Anybody(origin *authv1.Origin) password.Caller {
	if account := origin.GetAccountId(); account != "" {
		return SignedIn(account)
	}
	return Stranger(origin)
}
