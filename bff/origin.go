package bff

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

const maxUserAgent = 512

// origin says who is calling and from where.
func (s *Service) origin(ctx context.Context) *authv1.Origin {
	info, _ := connect.CallInfoForServerContext(ctx)
	origin := s.originOf(info.PeerAddr, info.RequestHeader().Values("X-Forwarded-For"), info.RequestHeader().Get("User-Agent"))
	origin.RequestId = rpc.CallFrom(ctx).RequestID
	if who := caller(ctx); who != nil {
		origin.AccountId, origin.SessionId = who.userID, who.sessionID
	}
	return origin
}

// originOf says from where somebody calls.
func (s *Service) originOf(peer string, forwarded []string, agent string) *authv1.Origin {
	agent = strings.ToValidUTF8(agent, "")
	if len(agent) > maxUserAgent {
		agent = strings.ToValidUTF8(agent[:maxUserAgent], "")
	}
	return &authv1.Origin{IpAddress: clientAddress(peer, forwarded, s.proxies), UserAgent: agent}
}

// address is where a call comes from, or "" when that isn't known.
func (s *Service) address(info *connect.CallInfo) string {
	return clientAddress(info.PeerAddr, info.RequestHeader().Values("X-Forwarded-For"), s.proxies)
}

// clientAddress is the peer's address, or, where the peer is a trusted proxy,
// the rightmost forwarded address that no trusted proxy has: whatever stands
// left of it may be made up.
func clientAddress(peer string, forwarded []string, trusted []netip.Prefix) string {
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		host = peer
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	address = address.Unmap().WithZone("")
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(address) }) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if withPort, failure := netip.ParseAddrPort(strings.TrimSpace(hop)); failure == nil {
			next, err = withPort.Addr(), nil // some proxies write the port too
		}
		if err != nil {
			break
		}
		address = next.Unmap().WithZone("")
	}
	return address.String()
}
