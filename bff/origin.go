package bff

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"golang.org/x/text/language"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

const (
	maxUserAgent = 512
	maxLocale    = 35 // RFC 5646 lets no tag without extensions need more
)

// origin says who is calling and from where.
func (s *Service) origin(ctx context.Context) *authv1.Origin {
	info, _ := connect.CallInfoForServerContext(ctx)
	origin := s.originOf(s.address(info), info.RequestHeader().Get("User-Agent"))
	origin.RequestId = rpc.CallFrom(ctx).RequestID
	origin.Locale = acceptedLocale(info.RequestHeader().Get("Accept-Language"))
	if who := caller(ctx); who != nil {
		origin.AccountId, origin.SessionId = who.userID, who.sessionID
		origin.RequireRecentSignIn = rpc.CallFrom(ctx).WantsRecentSignIn()
	}
	return origin
}

// originOf says from where somebody calls.
func (s *Service) originOf(address, agent string) *authv1.Origin {
	agent = strings.ToValidUTF8(agent, "")
	if len(agent) > maxUserAgent {
		agent = strings.ToValidUTF8(agent[:maxUserAgent], "")
	}
	return &authv1.Origin{IpAddress: address, UserAgent: agent}
}

// acceptedLocale is the language that a client wants most (RFC 9110, section
// 12.5.4), as a BCP 47 tag; empty when it names none.
func acceptedLocale(header string) string {
	tags, _, err := language.ParseAcceptLanguage(header)
	if err != nil {
		return ""
	}
	for _, tag := range tags {
		// "mul" is what a * is read as.
		if text := tag.String(); len(text) <= maxLocale && text != "und" && text != "mul" {
			return text
		}
	}
	return ""
}

// address is where a call comes from, or "" when that isn't known.
func (s *Service) address(info *connect.CallInfo) string {
	return s.addressOf(info.PeerAddr, info.RequestHeader().Values("X-Forwarded-For"))
}

func (s *Service) addressOf(peer string, forwarded []string) string {
	address := clientAddress(peer, forwarded, s.proxies)
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
		hop = strings.TrimSpace(hop)
		if hop == "" {
			continue // a list may have empty elements (RFC 9110, section 5.6.1.2)
		}
		next, ok := forwardedAddress(hop)
		if !ok {
			break
		}
		address = next
	}
	return address.String()
}

// forwardedAddress reads an element of X-Forwarded-For. Proxies write an address
// bare, in brackets, or with a port.
func forwardedAddress(hop string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(hop); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(hop, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(inner, ":") {
			return netip.Addr{}, false
		}
		hop = inner
	}
	address, err := netip.ParseAddr(hop)
	return address.Unmap().WithZone(""), err == nil
}
