// Package browser lets pages call the gateway: Cookies keep a session where no script
// can read it, and Origins say which pages may call, and which may use the cookies.
package browser

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/singleflight"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// A browser that signs in with "X-Gatehouse-Session: cookie" receives its tokens in
// cookies that no script can read, and none in the response. From then on the cookies
// are its credentials: the gateway checks the web origin of every call that has them
// (see [Origins]), and refreshes a session that is about to expire when it
// authenticates a call.
const (
	// refreshLimit bounds a refresh that outlives its call.
	refreshLimit = 5 * time.Second
	// refreshAhead is how long before its expiry an access token is refreshed.
	refreshAhead = 30 * time.Second
	// deviceCookieLife is the longest lifetime of a cookie that browsers allow.
	deviceCookieLife = 400 * 24 * time.Hour
)

var errCookiesNeedHTTPS = fault.New(connect.CodeFailedPrecondition, "COOKIES_NEED_HTTPS",
	"Session cookies need https, or localhost. Omit X-Gatehouse-Session, or set GATEHOUSE_PUBLIC_URL to an https:// URL.")

// Config is what session cookies need.
type Config struct {
	// Profile says how the cookies are protected; CookiesAuto if empty.
	Profile   CookieProfile
	PublicURL string
	Origins   *Origins
	Verifier  *access.Verifier
	Revoked   *access.Revocations
	// Serves reports whether a path is the path of a method.
	Serves func(path string) bool
	// Identify returns the principal of an access token.
	Identify func(ctx context.Context, token string) (*access.Principal, error)
	// Refresh exchanges a refresh token. It sets the time limit, and its errors are for
	// the gateway's caller.
	Refresh func(context.Context, *authv1.RefreshRequest) (*authv1.RefreshResponse, error)
	// Limit counts the call against the rate of the caller's IP address.
	Limit func(context.Context) error
	// ClientInfo returns the caller with their IP address and user agent.
	ClientInfo func(context.Context) *authv1.Origin
}

// Cookies carries tokens to and from browsers.
type Cookies struct {
	Config
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
	// CookiesAuto is CookiesSecure if the public URL is https, and CookiesLocalhost if
	// it is plain http on this machine. Otherwise the gateway starts no session in
	// cookies.
	CookiesAuto CookieProfile = "auto"
	// CookiesSecure restricts the cookies to https, and to localhost in browsers that
	// trust it.
	CookiesSecure CookieProfile = "secure"
	// CookiesLocalhost is for development over plain http on this machine.
	CookiesLocalhost CookieProfile = "localhost"
)

// NewCookies returns session cookies that are protected as the profile says.
func NewCookies(config Config) *Cookies {
	c := &Cookies{Config: config, prefix: "__Host-", secure: true, usable: true}
	parsed, err := url.Parse(config.PublicURL)
	if config.Profile != CookiesSecure && err == nil && parsed.Scheme != "https" {
		c.prefix, c.secure, c.usable = "", false, IsLoopback(parsed.Hostname())
	}
	return c
}

// IsLoopback reports whether a host name means this machine. Browsers trust plain http
// only there.
func IsLoopback(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "127.0.0.1" || host == "::1"
}

func (c *Cookies) accessName() string  { return c.prefix + "gatehouse-access" }
func (c *Cookies) refreshName() string { return c.prefix + "gatehouse-refresh" }
func (c *Cookies) deviceName() string  { return c.prefix + "gatehouse-device" }

// Handler moves a call's cookies from its header to its context, so that no later
// handler can log or forward them.
func (c *Cookies) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.isCall(r) {
			next.ServeHTTP(w, r)
			return
		}
		if found := c.of(r); found != (Carried{}) {
			r = r.WithContext(context.WithValue(r.Context(), carriedKey{}, found))
		}
		r.Header.Del("Cookie")
		next.ServeHTTP(w, r)
	})
}

// of returns a request's cookies. It ignores them if the request has an Authorization
// header.
func (c *Cookies) of(r *http.Request) Carried {
	var found Carried
	asked := wantsCookies(r.Header.Get(sessionModeHeader))
	if r.Header.Get("Authorization") == "" {
		access, refresh := values(r, c.accessName()), values(r, c.refreshName())
		found = Carried{access: access[0], refresh: refresh[0], Device: values(r, c.deviceName())[0]}
		if flow := values(r, c.flowName())[0]; flow != "" && c.Origins.mayUse(r) {
			found.Flow = flow
		}
		if len(access)+len(refresh) > 2 {
			found.others = &otherCookies{access: access[1:], refresh: refresh[1:]}
		}
		found.KeepsSession = asked || names(r, c.accessName()) || names(r, c.refreshName())
	}
	switch {
	case asked && !c.usable:
		found.refusal = errCookiesNeedHTTPS
	case asked && !c.Origins.mayBegin(r), (found.Session() || found.KeepsSession && !asked) && !c.Origins.mayUse(r):
		found.refusal = errCrossOrigin
	case asked && isCrossSite(r):
		found.refusal = errCookiesCrossSite
	}
	return found
}

// Session reports whether the cookies have a token of a session.
func (b Carried) Session() bool { return b.access != "" || b.refresh != "" }

// RefuseCrossOrigin refuses calls that a page of another web origin makes with the
// user's cookies. It is an [rpc.Interceptor].
func RefuseCrossOrigin(*policy.Method) (connect.ServerInterceptor, error) {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if refusal := CarriedBy(ctx).refusal; refusal != nil {
				return refusal
			}
			return next(ctx, spec, stream)
		}
	}, nil
}

// IdentifySession returns the principal of the session in the cookies. It refreshes a
// session that is about to expire, and sets the new cookies in the response.
func (c *Cookies) IdentifySession(ctx context.Context, info *connect.CallInfo, held Carried) (*access.Principal, error) {
	who, err := FirstGood(held.AccessTokens(), func(token string) (*access.Principal, error) { return c.Identify(ctx, token) })
	if held.refresh == "" || !c.isExpiring(who, err) {
		return who, err
	}
	fresh, failure := FirstGood(held.RefreshTokens(), func(token string) (*authv1.Tokens, error) { return c.refreshed(ctx, token) })
	if failure != nil {
		// Keep the cookies: the next call may succeed, and another call of the browser
		// may have received new ones. An access token that is still valid remains so.
		if err == nil {
			err = c.Revoked.Check(ctx, who)
		}
		if connect.CodeOf(err) == connect.CodeUnauthenticated {
			err = failure
		}
		return who, err
	}
	c.set(info.ResponseHeader().Add, fresh)
	return c.Verifier.Verify(fresh.GetAccessToken())
}

// isCall reports whether the request is a call of a method. Pages need no session.
func (c *Cookies) isCall(r *http.Request) bool {
	return c.Serves(r.URL.Path) || strings.HasPrefix(r.URL.Path, "/api/")
}

// values returns the distinct values of the request's cookies of a name, without empty
// ones; a single empty value if there are none.
func values(r *http.Request, name string) []string {
	var found []string
	for _, cookie := range r.CookiesNamed(name) {
		if cookie.Value != "" && len(found) < maxSameName && !slices.Contains(found, cookie.Value) {
			found = append(found, cookie.Value)
		}
	}
	if len(found) == 0 {
		return []string{""}
	}
	return found
}

// names reports whether the request has a cookie of that name, even with an invalid
// value.
func names(r *http.Request, name string) bool {
	for _, line := range r.Header.Values("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			if given, _, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && strings.TrimSpace(given) == name {
				return true
			}
		}
	}
	return false
}

func wantsCookies(mode string) bool { return strings.EqualFold(mode, "cookie") }

// isExpiring reports whether a call by an access token would fail, now or in a
// moment, and a refresh would fix it.
func (c *Cookies) isExpiring(who *access.Principal, err error) bool {
	if err != nil {
		return connect.CodeOf(err) == connect.CodeUnauthenticated
	}
	return c.Verifier.Now().Add(refreshAhead).After(who.Expire) || c.Revoked.IsStale(who)
}

// refreshed exchanges a refresh token, once for all concurrent calls that have it. The
// idempotency key is derived from the token, so that auth can distinguish a repetition,
// by this gateway or another, from a theft.
func (c *Cookies) refreshed(ctx context.Context, token string) (*authv1.Tokens, error) {
	if err := c.Limit(ctx); err != nil { // a refresh always calls auth
		return nil, err
	}
	origin := c.ClientInfo(ctx)
	sum := sha256.Sum256([]byte("cookie refresh " + token))
	key := base64.RawURLEncoding.EncodeToString(sum[:])
	result := c.flight.DoChan(key, func() (any, error) {
		// A call that the browser cancels must not cancel the refresh for its other calls.
		ctx, cancel := rpc.Detached(ctx, refreshLimit)
		defer cancel()
		return c.Refresh(ctx, &authv1.RefreshRequest{RefreshToken: token, IdempotencyKey: key, Origin: origin})
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case done := <-result:
		response, _ := done.Val.(*authv1.RefreshResponse)
		return response.GetTokens(), done.Err
	}
}

// set adds the cookies of a session to a response.
func (c *Cookies) set(add func(name, value string), tokens *authv1.Tokens) {
	add("Set-Cookie", c.cookie(c.accessName(), tokens.GetAccessToken(), time.Duration(tokens.GetExpiresIn())*time.Second))
	add("Set-Cookie", c.cookie(c.refreshName(), tokens.GetRefreshToken(), time.Duration(tokens.GetRefreshExpiresIn())*time.Second))
}

func (c *Cookies) cookie(name, value string, life time.Duration) string {
	return c.sameSite(name, value, life, http.SameSiteStrictMode)
}

func (c *Cookies) sameSite(name, value string, life time.Duration, mode http.SameSite) string {
	age := int(life.Seconds())
	if value == "" {
		age = -1
	}
	return (&http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: c.secure, SameSite: mode}).String()
}

// HandOver sets the cookies of a session in the response, if the client keeps its
// session in cookies, and reports whether it does. If so, the message must have no
// token that a script could read.
func (c *Cookies) HandOver(ctx context.Context, tokens *authv1.Tokens, device string) bool {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok || !c.inUse(ctx) {
		return false
	}
	c.set(info.ResponseHeader().Add, tokens)
	if device != "" {
		info.ResponseHeader().Add("Set-Cookie", c.cookie(c.deviceName(), device, deviceCookieLife))
	}
	return true
}

// inUse reports whether the call's client keeps its session in cookies.
func (c *Cookies) inUse(ctx context.Context) bool {
	info, ok := connect.CallInfoForServerContext(ctx)
	return ok && (wantsCookies(info.RequestHeader().Get(sessionModeHeader)) || CarriedBy(ctx).refresh != "")
}

// Clear deletes both cookies of a session, whichever the request had. The device cookie
// remains: it only shows that somebody has signed in here before.
func (c *Cookies) Clear(ctx context.Context) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok && CarriedBy(ctx).KeepsSession {
		info.ResponseHeader().Add("Set-Cookie", c.cookie(c.accessName(), "", 0))
		info.ResponseHeader().Add("Set-Cookie", c.cookie(c.refreshName(), "", 0))
	}
}
