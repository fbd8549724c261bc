package bff

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"connectrpc.com/connect/v2"
	"golang.org/x/text/language"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

const (
	maxUserAgent = 512
	maxLocale    = 35 // RFC 5646, section 4.4.1: enough for a tag without extensions
)

// proxies determines the IP address of a client behind trusted proxies.
type proxies struct {
	trusted []netip.Prefix
	logger  *slog.Logger
	// warned limits the warning about an untrusted proxy to once per process.
	warned sync.Once
}

// clientInfo returns the caller with their IP address and user agent.
func (p *proxies) clientInfo(ctx context.Context) *authv1.Origin {
	info, _ := connect.CallInfoForServerContext(ctx)
	client := &authv1.Origin{
		IpAddress: p.addressOfCall(info), UserAgent: userAgent(info.RequestHeader().Get("User-Agent")), RequestId: rpc.CallFrom(ctx).RequestID,
		Locale: acceptedLocale(info.RequestHeader().Get("Accept-Language")),
	}
	if who := caller(ctx); who != nil {
		client.AccountId, client.SessionId = who.UserID, who.SessionID
		client.RequireRecentSignIn, client.RequireOwnLevel = rpc.CallFrom(ctx).WantsRecentSignIn(), rpc.CallFrom(ctx).WantsOwnLevel()
	}
	return client
}

// clientInfoOfRequest returns the IP address and user agent of a request that is no call.
func (p *proxies) clientInfoOfRequest(r *http.Request) *authv1.Origin {
	return &authv1.Origin{IpAddress: p.addressOfRequest(r), UserAgent: userAgent(r.Header.Get("User-Agent"))}
}

func userAgent(text string) string {
	text = strings.ToValidUTF8(text, "")
	if len(text) > maxUserAgent {
		text = strings.ToValidUTF8(text[:maxUserAgent], "")
	}
	return text
}

// acceptedLocale returns the language that a client prefers (RFC 9110, section 12.5.4)
// as a BCP 47 tag, or "" if it names none.
func acceptedLocale(header string) string {
	tags, _, err := language.ParseAcceptLanguage(header)
	if err != nil {
		return ""
	}
	for _, tag := range tags {
		// The parser returns "mul" for "*".
		if text := tag.String(); len(text) <= maxLocale && text != "und" && text != "mul" {
			return text
		}
	}
	return ""
}

// addressOfCall returns the IP address of a call's client, or "" if it is unknown.
func (p *proxies) addressOfCall(info *connect.CallInfo) string {
	return p.addressOf(info.PeerAddr, info.RequestHeader().Values("X-Forwarded-For"))
}

// addressOfRequest is addressOfCall for an HTTP request.
func (p *proxies) addressOfRequest(r *http.Request) string {
	return p.addressOf(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))
}

// addressOf returns the IP address of a client from the address of the peer and the
// forwarded addresses.
func (p *proxies) addressOf(peer string, forwarded []string) string {
	address := clientAddress(peer, forwarded, p.trusted)
	if len(forwarded) > 0 && !strings.HasPrefix(forwarded[0], address) && isNear(address) {
		// All clients behind an untrusted proxy share its address and its rate.
		p.warned.Do(func() {
			p.logger.Warn("client info: X-Forwarded-For ignored, peer is no trusted proxy; if it is yours, add it to GATEHOUSE_TRUSTED_PROXIES", "peer", address)
		})
	}
	return address
}

// isNear reports whether an address is in a range that the operator's own proxies use.
func isNear(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && (address.IsPrivate() || address.IsLoopback() || address.IsLinkLocalUnicast())
}

// clientAddress returns the peer's address or, if the peer is a trusted proxy, the
// rightmost forwarded address that is not a trusted proxy. The client may have forged
// the addresses left of it.
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
	if len(forwarded) == 0 {
		return address.String()
	}
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

// forwardedAddress parses an element of X-Forwarded-For: an address without a port, in
// brackets, or with a port.
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
