package bff

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/singleflight"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/rpc"
)

// A browser that sends "X-Gatehouse-Session: cookie" with what signs in gets its
// tokens in cookies that no script can read, and none in the answer. From then
// on the cookies are its credentials: a call that they come with is held to
// where it comes from (see crossorigin.go), and the gateway refreshes the
// session when it is about to expire. Everything behind this file sees an
// Authorization header, as from any other client.
const (
	sessionModeHeader = "X-Gatehouse-Session"
	// refreshAhead is how long before its end an access token is replaced.
	refreshAhead = 30 * time.Second
	// deviceCookieLife is the longest that browsers keep a cookie.
	deviceCookieLife = 400 * 24 * time.Hour
)

var errCookiesNeedHTTPS = rpc.NewError(connect.CodeFailedPrecondition, "COOKIES_NEED_HTTPS",
	"Session cookies need https, or localhost. Leave X-Gatehouse-Session out, or have GATEHOUSE_PUBLIC_URL begin with https://.")

// cookies carries tokens to and from browsers.
type cookies struct {
	gateway *Service
	sources *sources
	// The names' prefix and the attribute for https: "__Host-" binds a cookie to
	// the host that set it (RFC 6265bis, section 4.1.3.2).
	prefix string
	secure bool
	usable bool
	flight singleflight.Group
}

// CookieProfile says how session cookies are protected.
type CookieProfile string

const (
	// CookiesAuto is CookiesSecure where the public URL is https, and
	// CookiesLocalhost where it is plain http on this machine. Elsewhere no
	// session begins in cookies.
	CookiesAuto CookieProfile = "auto"
	// CookiesSecure has browsers send the cookies over https alone, or to
	// localhost where they trust that as well.
	CookiesSecure CookieProfile = "secure"
	// CookiesLocalhost is for development over plain http on this machine.
	CookiesLocalhost CookieProfile = "localhost"
)

func newCookies(gateway *Service, config Config, sources *sources) *cookies {
	c := &cookies{gateway: gateway, sources: sources, prefix: "__Host-", secure: true, usable: true}
	parsed, err := url.Parse(config.PublicURL)
	if config.Cookies != CookiesSecure && err == nil && parsed.Scheme != "https" {
		c.prefix, c.secure, c.usable = "", false, IsLoopback(parsed.Hostname())
	}
	return c
}

// IsLoopback reports whether a host is this machine by its name: browsers trust
// plain http there, and nowhere else.
func IsLoopback(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "127.0.0.1" || host == "::1"
}

func (c *cookies) accessName() string  { return c.prefix + "gatehouse-access" }
func (c *cookies) refreshName() string { return c.prefix + "gatehouse-refresh" }
func (c *cookies) deviceName() string  { return c.prefix + "gatehouse-device" }

// borne is what a request's cookies hold.
type borne struct {
	refresh, device string
	// failure is why the session could not be refreshed.
	failure error
}

type borneKey struct{}

// borneBy returns what the request's cookies hold; nothing if it has none.
func borneBy(ctx context.Context) borne {
	found, _ := ctx.Value(borneKey{}).(borne)
	return found
}

// handler puts a request's cookies where the gateway looks for credentials. A
// request with an Authorization header stands on that alone.
func (c *cookies) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.isCall(r) {
			next.ServeHTTP(w, r)
			return
		}
		access, refresh, device := value(r, c.accessName()), value(r, c.refreshName()), value(r, c.deviceName())
		// Nothing behind this is to see, log or pass on a cookie.
		r.Header.Del("Cookie")
		asked := wantsCookies(r.Header.Get(sessionModeHeader))
		switch {
		case asked && !c.usable:
			refuse(w, r, errCookiesNeedHTTPS)
			return
		case asked && !c.sources.mayBegin(r), r.Header.Get("Authorization") == "" && (access != "" || refresh != "") && !c.sources.mayUse(r):
			refuse(w, r, errCrossOrigin)
			return
		case r.Header.Get("Authorization") != "":
			next.ServeHTTP(w, r)
			return
		}
		if err := c.gateway.limitedUnlessKnownCookie(r, access, refresh); err != nil {
			refuse(w, r, err)
			return
		}
		found := borne{refresh: refresh, device: device}
		if refresh != "" && c.isExpiring(access) {
			fresh, err := c.refreshed(r.Context(), refresh, r)
			if err != nil {
				// The cookies stay: the next call may fare better, and a browser's
				// other call may have been given better ones.
				found.failure = err
			} else {
				access, found.refresh = fresh.GetAccessToken(), fresh.GetRefreshToken()
				c.set(w.Header().Add, fresh)
			}
		}
		if access != "" {
			r.Header.Set("Authorization", "Bearer "+access)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), borneKey{}, found)))
	})
}

// isCall reports whether the request is one for a method: pages need no session.
func (c *cookies) isCall(r *http.Request) bool {
	return c.gateway.rpc.Serves(r.URL.Path) || strings.HasPrefix(r.URL.Path, "/api/")
}

func value(r *http.Request, name string) string {
	cookie, err := r.Cookie(name)
	if err != nil {
		return ""
	}
	return cookie.Value
}

func wantsCookies(mode string) bool { return strings.EqualFold(mode, "cookie") }

// isExpiring reports whether a call with the access token would fail, now or in
// a moment, for a reason that a refresh mends.
func (c *cookies) isExpiring(access string) bool {
	if access == "" {
		return true
	}
	who, err := c.gateway.verifier.verify(access)
	if err != nil {
		return connect.CodeOf(err) == connect.CodeUnauthenticated
	}
	return c.gateway.verifier.now().Add(refreshAhead).After(who.expire) || c.gateway.revoked.isStale(who)
}

// refreshed exchanges a refresh token, once for all of a browser's calls that
// come with it. The key lets auth tell a repetition, by this gateway or another,
// from a theft: it follows from the token.
func (c *cookies) refreshed(ctx context.Context, token string, r *http.Request) (*authv1.Tokens, error) {
	sum := sha256.Sum256([]byte("cookie refresh " + token))
	key := base64.RawURLEncoding.EncodeToString(sum[:])
	result := c.flight.DoChan(key, func() (any, error) {
		// A browser that goes away must not undo it for its other calls.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit)
		defer cancel()
		return fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.RefreshResponse, error) {
			return c.gateway.sessions.Refresh(ctx, &authv1.RefreshRequest{
				RefreshToken: token, IdempotencyKey: key,
				Origin: c.gateway.originOf(c.gateway.addressOf(r.RemoteAddr, r.Header.Values("X-Forwarded-For")), r.UserAgent()),
			})
		})
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case done := <-result:
		response, _ := done.Val.(*authv1.RefreshResponse)
		return response.GetTokens(), done.Err
	}
}

// set writes a session's cookies.
func (c *cookies) set(add func(name, value string), tokens *authv1.Tokens) {
	add("Set-Cookie", c.cookie(c.accessName(), tokens.GetAccessToken(), time.Duration(tokens.GetExpiresIn())*time.Second))
	add("Set-Cookie", c.cookie(c.refreshName(), tokens.GetRefreshToken(), time.Duration(tokens.GetRefreshExpiresIn())*time.Second))
}

func (c *cookies) cookie(name, value string, life time.Duration) string {
	age := int(life.Seconds())
	if value == "" {
		age = -1
	}
	return (&http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteStrictMode,
	}).String()
}

// handOver gives a client its tokens: in the answer, or where it asked for that,
// in cookies, with nothing in the answer that a script could take.
func (c *cookies) handOver(ctx context.Context, tokens *authv1.Tokens, device string) (*bffv1.Tokens, string) {
	public := tokensOf(tokens)
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok || !c.inUse(ctx) {
		return public, device
	}
	c.set(info.ResponseHeader().Add, tokens)
	if device != "" {
		info.ResponseHeader().Add("Set-Cookie", c.cookie(c.deviceName(), device, deviceCookieLife))
	}
	public.AccessToken, public.RefreshToken = "", ""
	return public, ""
}

// inUse reports whether the call's client keeps its session in cookies.
func (c *cookies) inUse(ctx context.Context) bool {
	info, ok := connect.CallInfoForServerContext(ctx)
	return ok && (wantsCookies(info.RequestHeader().Get(sessionModeHeader)) || borneBy(ctx).refresh != "")
}

// clear takes a session's cookies away. The device's stays: it only tells that
// somebody has signed in here before.
func (c *cookies) clear(ctx context.Context) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok && borneBy(ctx).refresh != "" {
		info.ResponseHeader().Add("Set-Cookie", c.cookie(c.accessName(), "", 0))
		info.ResponseHeader().Add("Set-Cookie", c.cookie(c.refreshName(), "", 0))
	}
}
