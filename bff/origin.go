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
	agent := strings.ToValidUTF8(info.RequestHeader().Get("User-Agent"), "")
	if len(agent) > maxUserAgent {
		agent = strings.ToValidUTF8(agent[:maxUserAgent], "")
	}
	origin := &authv1.Origin{
		IpAddress: s.address(info),
		UserAgent: agent,
		RequestId: rpc.CallFrom(ctx).RequestID,
	}
	if who := caller(ctx); who != nil {
		origin.AccountId, origin.SessionId = who.userID, who.sessionID
	}
	return origin
}

// address is where a call comes from, or "" when that isn't known.
func (s *Service) address(info *connect.CallInfo) string {
	forwarded := info.RequestHeader().Values("X-Forwarded-For")
	address := clientAddress(info.PeerAddr, forwarded, s.proxies)
	if len(forwarded) > 0 && !strings.HasPrefix(forwarded[0], address) && isNear(address) {
		// All who come through a proxy that isn't named count as one address.
		s.unbelieved.Do(func() {
			s.logger.Warn("X-Forwarded-For is not believed: if this is a proxy of yours, name it in GATEHOUSE_TRUSTED_PROXIES", "peer", address)
		})
	}
	return address
}

// isNear reports whether an address is one that proxies of one's own have.
func isNear(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && (address.IsPrivate() || address.IsLoopback() || address.IsLinkLocalUnicast())
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
