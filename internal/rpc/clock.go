package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// ClockSkew is the tolerated difference between the clocks of two machines of the system.
// Internal tokens and access tokens have times of their issuer's clock, and the verifier
// compares them with its own clock.
const ClockSkew = 45 * time.Second

// maxNumericDate is 2^53, the first number that a double does not represent uniquely:
// 2^53 + 1 is rounded to it.
const maxNumericDate = 1 << 53

// CheckNumericDate returns an error if a time in a JWT is not a number, or not one that a
// double represents exactly (RFC 7519, section 2; RFC 8259, section 6). Converted to a
// [time.Time], 1e300 would be in the past.
func CheckNumericDate(raw json.RawMessage) error {
	text := strings.TrimSpace(string(raw))
	if text == "null" {
		return nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return errors.New("is not a number")
	}
	if math.IsNaN(seconds) || math.Abs(seconds) >= maxNumericDate {
		return fmt.Errorf("%g is beyond 2^53", seconds)
	}
	return nil
}

// internalClaims are an internal token's claims.
type internalClaims struct{ jwt.RegisteredClaims }

// UnmarshalJSON implements [json.Unmarshaler].
func (c *internalClaims) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	for name, value := range raw {
		for _, date := range []string{"exp", "nbf", "iat"} {
			if !strings.EqualFold(name, date) { // encoding/json ignores case
				continue
			}
			if err := CheckNumericDate(value); err != nil {
				return fmt.Errorf("claim %q: %w", name, err)
			}
		}
	}
	return json.Unmarshal(data, &c.RegisteredClaims)
}

// isClockError reports whether a token with a valid signature was refused only for its
// times: one of the two clocks is wrong, or the token was delayed for long.
func isClockError(err error) bool {
	times := errors.Is(err, jwt.ErrTokenUsedBeforeIssued) || errors.Is(err, jwt.ErrTokenNotValidYet) || errors.Is(err, jwt.ErrTokenExpired)
	for _, other := range []error{
		jwt.ErrTokenMalformed, jwt.ErrTokenUnverifiable, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenRequiredClaimMissing,
		jwt.ErrTokenInvalidAudience, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenInvalidSubject,
	} {
		times = times && !errors.Is(err, other)
	}
	return times
}
