package rpc

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

// Internal tokens are short-lived JWTs (RFC 7519, HS256) that authenticate one service to
// another. Each pair of caller and callee has its own key, so that no service can
// impersonate another.
//
// The issuer backdates a token by internalTokenBackdate, and reuses it until only that
// much of its lifetime remains. So the callee's clock may be behind or ahead by that much
// plus the callee's leeway: [ClockSkew] in total.
const (
	internalTokenLife     = 60 * time.Second
	internalTokenBackdate = 20 * time.Second
	internalTokenReuse    = internalTokenLife - 2*internalTokenBackdate
	internalTokenLeeway   = ClockSkew - internalTokenBackdate
)

// InternalKeys are the system's internal keys of 32 bytes, newest first. Tokens are signed
// with the first and accepted with any.
type InternalKeys [][]byte

// pair derives the keys of a pair of caller and callee (RFC 5869).
func (k InternalKeys) pair(caller, callee string) ([][]byte, error) {
	var keys [][]byte
	for _, master := range k {
		key, err := hkdf.Key(sha256.New, master, nil, "gatehouse internal call v1: "+caller+" to "+callee, 32)
		if err != nil {
			return nil, fmt.Errorf("derive the key of %s with %s: %w", caller, callee, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Issuer issues tokens of one caller for one callee.
type Issuer struct {
	caller, callee string
	key            []byte
	now            func() time.Time

	mu    sync.Mutex
	token string
	made  time.Time
}

func NewIssuer(keys InternalKeys, caller, callee string) (*Issuer, error) {
	pair, err := keys.pair(caller, callee)
	if err != nil {
		return nil, err
	}
	if len(pair) == 0 {
		return nil, fmt.Errorf("no internal key: %s cannot call %s", caller, callee)
	}
	return &Issuer{caller: caller, callee: callee, key: pair[0], now: time.Now}, nil
}

// Token returns a token that is valid for at least 20 s more.
func (i *Issuer) Token() (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	// Compare the wall clock, as the callee does: the monotonic clock stops while a laptop
	// sleeps.
	now := i.now().Round(0)
	if age := now.Sub(i.made); i.token != "" && age >= 0 && age < internalTokenReuse {
		return i.token, nil
	}
	issued := now.Add(-internalTokenBackdate)
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer:    i.caller,
		Audience:  jwt.ClaimStrings{i.callee},
		IssuedAt:  jwt.NewNumericDate(issued),
		ExpiresAt: jwt.NewNumericDate(issued.Add(internalTokenLife)),
	}).SignedString(i.key)
	if err != nil {
		return "", fmt.Errorf("sign an internal token: %w", err)
	}
	i.token, i.made = token, now
	return token, nil
}

// tokenVerifier verifies the internal tokens of one callee.
type tokenVerifier struct {
	callee  string
	keys    map[string][][]byte // by caller
	masters InternalKeys        // unless nil, any service may call; its keys are derived when it does
	now     func() time.Time

	mu   sync.RWMutex
	seen map[string]seenToken
}

type seenToken struct {
	caller string
	expire time.Time
}

// maxSeenTokens limits the cache of verified tokens: a few for each process of each
// caller.
const maxSeenTokens = 256

func newTokenVerifier(callee string) *tokenVerifier {
	return &tokenVerifier{callee: callee, keys: map[string][][]byte{}, now: time.Now, seen: map[string]seenToken{}}
}

// anyService stands in a policy for every service.
const anyService = "*"

// serviceName is the form of a service's name.
var serviceName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// addCallers adds the keys of callers, before the first call.
func (c *tokenVerifier) addCallers(keys InternalKeys, callers []string) error {
	for _, caller := range callers {
		if caller == anyService {
			c.masters = keys
			continue
		}
		pair, err := keys.pair(caller, c.callee)
		if err != nil {
			return err
		}
		c.keys[caller] = pair
	}
	return nil
}

// verify returns the name of the service that issued the token.
func (c *tokenVerifier) verify(token string) (string, error) {
	if strings.ContainsAny(token, "\r\n") { // which the base64 decoder skips, even a strict one
		return "", errors.New("token with a line break")
	}
	now := c.now()
	c.mu.RLock()
	known, ok := c.seen[token]
	c.mu.RUnlock()
	if ok && now.Before(known.expire) {
		return known.caller, nil
	}
	var claims internalClaims
	_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) {
		pair, ok := c.keys[claims.Issuer]
		if !ok && c.masters != nil && serviceName.MatchString(claims.Issuer) {
			var err error
			if pair, err = c.masters.pair(claims.Issuer, c.callee); err != nil {
				return nil, err
			}
		}
		keys := jwt.VerificationKeySet{}
		for _, key := range pair {
			keys.Keys = append(keys.Keys, key)
		}
		return keys, nil
	},
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithAudience(c.callee),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(internalTokenLeeway),
		jwt.WithTimeFunc(c.now), jwt.WithStrictDecoding(),
	)
	if err != nil {
		return "", err
	}
	if claims.IssuedAt == nil || claims.ExpiresAt.Sub(claims.IssuedAt.Time) > internalTokenLife {
		return "", fmt.Errorf("internal token is valid for longer than %s", internalTokenLife)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) >= maxSeenTokens {
		clear(c.seen)
	}
	c.seen[token] = seenToken{caller: claims.Issuer, expire: claims.ExpiresAt.Add(internalTokenLeeway)}
	return claims.Issuer, nil
}

// ServicesOnly admits only other services of this system, and to each method only
// those that its policy names, or any where that is "*".
func ServicesOnly(keys InternalKeys, callee string) Authorizer {
	check := newTokenVerifier(callee)
	return func(p *policy.Method) (Admission, error) {
		services := p.Access.GetServices().GetAnyOf()
		if len(services) == 0 {
			return Admission{}, fmt.Errorf("%s: an internal method must name the services that may call it", p.Procedure)
		}
		if err := check.addCallers(keys, services); err != nil {
			return Admission{}, err
		}
		return Admission{Authenticate: func(next connect.ServerFunc) connect.ServerFunc {
			return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
				info, _ := connect.CallInfoForServerContext(ctx)
				caller, err := check.caller(info)
				if err != nil {
					return err
				}
				CallFrom(ctx).Principal = "service:" + caller
				if !slices.Contains(services, caller) && !slices.Contains(services, anyService) {
					return errInternalCaller
				}
				return next(ctx, spec, stream)
			}
		}}, nil
	}
}

// caller returns the name of the calling service: from the in-process transport, or from
// the call's token.
func (c *tokenVerifier) caller(info *connect.CallInfo) (string, error) {
	if caller := inProcessCallerOf(info); caller != nil {
		return caller.name, nil
	}
	token, ok := BearerToken(info.RequestHeader().Get("Authorization"))
	if !ok {
		return "", errInternalToken
	}
	caller, err := c.verify(token)
	if isClockError(err) {
		// The token is authentic, and the clock of another replica may be right.
		return "", fault.Unavailable().WithCause(fmt.Errorf("the caller's clock and ours differ by more than %s: %w", ClockSkew, err))
	}
	if err != nil {
		return "", errInternalToken.WithCause(err)
	}
	return caller, nil
}

var (
	errInternalToken  = fault.New(connect.CodeUnauthenticated, fault.ReasonInternalToken, "Only other services of this system may call, with a fresh internal token. Check that all share one GATEHOUSE_INTERNAL_KEY.")
	errInternalCaller = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "This service may not call this method.")
)

// BearerToken returns the token in an Authorization header (RFC 6750), and reports
// whether there is one.
func BearerToken(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	token = strings.TrimSpace(token)
	return token, token != ""
}
