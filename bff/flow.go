package bff

import (
	"context"
	"net/http"
	"net/netip"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	"gatehouse/internal/apikey"
	"gatehouse/internal/limit"
	"gatehouse/internal/rpc"
)

// flows determines the flow of a call in the queue: its principal, or the network of its
// IP address if it has none. It ignores unverified claims.
type flows struct {
	proxies  *proxies
	verifier *access.Verifier
	identity *identity
}

// ofCall returns the flow of a call whose caller is authenticated.
func (f flows) ofCall(ctx context.Context) limit.Flow {
	if who := caller(ctx); who != nil {
		return limit.Flow{Subject: who.UserID}
	}
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return limit.Flow{}
	}
	return flowOf(f.proxies.addressOfCall(info))
}

// ofRequest returns the flow of a request without verifying a token: the principal of a
// cached token or key, or else the network.
func (f flows) ofRequest(r *http.Request) limit.Flow {
	if token, ok := rpc.BearerToken(r.Header.Get("Authorization")); ok {
		remembered := f.verifier.Remembered
		if apikey.IsKey(token) {
			remembered = f.identity.keys.Remembered
		}
		if who := remembered(token); who != nil {
			return limit.Flow{Subject: who.UserID}
		}
	}
	return flowOf(f.proxies.addressOfRequest(r))
}

// network returns the network that a request counts against.
func (f flows) network(r *http.Request) netip.Prefix {
	return flowOf(f.proxies.addressOfRequest(r)).Network
}

func flowOf(text string) limit.Flow {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return limit.Flow{}
	}
	return limit.Flow{Network: limit.Network(address)}
}
