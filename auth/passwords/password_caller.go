package passwords

import (
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/password"
)

// signedIn is the turn of a call of a session, whose account is proven.
func SignedIn(account string) password.Caller {
	return password.Caller{Class: password.SignedIn, Flow: account}
}

// knownDevice is the turn of a sign-in that shows a token of the account's
// device.
func KnownDevice(account string) password.Caller {
	return password.Caller{Class: password.KnownDevice, Flow: account}
}

// linkHolder is the turn of a call with the token of a mailed link. Anybody can
// have many links, so that holders take turns by network.
func LinkHolder(origin *authv1.Origin) password.Caller {
	return password.Caller{Class: password.Link, Flow: throttle.Network(origin.GetIpAddress())}
}

// stranger is the turn of a call that proves nothing.
func Stranger(origin *authv1.Origin) password.Caller {
	return password.Caller{Class: password.Stranger, Flow: throttle.Network(origin.GetIpAddress())}
}

// anybody is the turn of a call that may be made with or without a session.
func Anybody(origin *authv1.Origin) password.Caller {
	if account := origin.GetAccountId(); account != "" {
		return SignedIn(account)
	}
	return Stranger(origin)
}
