// Package accesstoken owns the format of access tokens: auth mints them, and the
// gateway verifies them.
//
// An access token is a JWT of RFC 9068, signed with Ed25519. It names the account,
// the session, the account's roles and its authorization version, says how the subject
// signed in, and is valid for [Life].
package accesstoken

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"gatehouse/internal/rpc"
)

// Life is how long an access token is valid.
const Life = 5 * time.Minute

const (
	audience  = "gatehouse"
	clientID  = "gatehouse"
	mediaType = "at+jwt"
	levelOne  = "aal1"
	levelTwo  = "aal2"
)

var (
	// ErrExpired is the error of a token that was valid, and has expired.
	ErrExpired = errors.New("access token has expired")
	// ErrUnknownKey is the error of a token whose header names an unknown key.
	ErrUnknownKey = errors.New("access token names an unknown key")
)

// IssuerError is the error of a token whose signature is valid, and whose issuer
// is not the expected one.
type IssuerError struct {
	Issuer string // as the token says
	cause  error
}

func (e *IssuerError) Error() string { return e.cause.Error() }

// Subject is whom a token is issued to.
type Subject struct {
	AccountID string // a UUID in lower case
	SessionID string // a UUID in lower case
	Roles     []string
	// Version is the account's authorization version, 1 or higher.
	Version int64
	SignIn
}

// SignIn says how and when the subject signed in (RFC 9068, section 2.2.1).
type SignIn struct {
	// Level is the level of assurance, 1 or 2. A token without a level has level 1.
	Level int
	// AMR are the methods that were used (RFC 8176, and "email", "fed" and "rec").
	AMR []string
	// AuthTime is when the first of them was; zero if the token does not say.
	AuthTime time.Time
}

// ACR is the name of the level: "aal1" or "aal2".
func (s SignIn) ACR() string {
	if s.Level >= 2 {
		return levelTwo
	}
	return levelOne
}

// Key is a signing key and its id.
type Key struct {
	ID      string
	Private ed25519.PrivateKey
}

// Mint signs a token for a subject as of a moment.
func Mint(key Key, issuer string, subject Subject, at time.Time) (string, error) {
	said := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: subject.AccountID,
			IssuedAt: jwt.NewNumericDate(at), ExpiresAt: jwt.NewNumericDate(at.Add(Life)),
			ID: uuid.NewString(),
		},
		ClientID: clientID, SessionID: subject.SessionID, Roles: subject.Roles, Version: subject.Version,
		ACR: subject.ACR(), AMR: subject.AMR,
	}
	if !subject.AuthTime.IsZero() {
		said.AuthTime = jwt.NewNumericDate(subject.AuthTime)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, said)
	token.Header["typ"] = mediaType
	token.Header["kid"] = key.ID
	signed, err := token.SignedString(key.Private)
	if err != nil {
		return "", fmt.Errorf("sign an access token: %w", err)
	}
	return signed, nil
}

// Verification says what a token is verified against.
type Verification struct {
	Issuer string
	// PublicKey returns the published key of an id, or nil.
	PublicKey func(keyID string) ed25519.PublicKey
	Now       func() time.Time
}

// Verify checks a token and returns its subject and when it expires. The error is
// [ErrExpired], [ErrUnknownKey], an [IssuerError], or says what else is wrong.
func Verify(token string, v Verification) (Subject, time.Time, error) {
	if strings.ContainsAny(token, "\r\n") { // the base64 decoder skips them, even a strict one
		return Subject{}, time.Time{}, errors.New("token with a line break")
	}
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, v.chooseKey,
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(v.Issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(v.Now), jwt.WithStrictDecoding(),
	)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return Subject{}, time.Time{}, fmt.Errorf("%w: %w", ErrExpired, err)
	case errors.Is(err, jwt.ErrTokenInvalidIssuer): // checked only once the signature is verified
		return Subject{}, time.Time{}, &IssuerError{Issuer: c.Issuer, cause: err}
	case err != nil:
		return Subject{}, time.Time{}, err
	}
	if err := c.check(v.Now()); err != nil {
		return Subject{}, time.Time{}, err
	}
	return Subject{AccountID: c.Subject, SessionID: c.SessionID, Roles: c.Roles, Version: c.Version, SignIn: c.signIn()}, c.ExpiresAt.Time, nil
}

// chooseKey returns the key that the token's header names, if the header is one
// that Mint writes. A key that is carried by the token itself is never used.
func (v Verification) chooseKey(token *jwt.Token) (any, error) {
	// A media type, in any case, with or without its tree (RFC 9068, section 4;
	// RFC 7515, section 4.1.9).
	typ, _ := token.Header["typ"].(string)
	if strings.TrimPrefix(strings.ToLower(typ), "application/") != mediaType {
		return nil, errors.New("not an access token by its type")
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit"} {
		if _, ok := token.Header[name]; ok {
			return nil, fmt.Errorf("header %q is not allowed", name)
		}
	}
	id, _ := token.Header["kid"].(string)
	key := v.PublicKey(id)
	if key == nil {
		return nil, ErrUnknownKey
	}
	return key, nil
}

// claims are the claims of an access token (RFC 9068).
type claims struct {
	jwt.RegisteredClaims
	ClientID  string   `json:"client_id"`
	SessionID string   `json:"sid"`
	Roles     []string `json:"roles"`
	Version   int64    `json:"ver"`

	ACR      string           `json:"acr,omitempty"`
	AMR      []string         `json:"amr,omitempty"`
	AuthTime *jwt.NumericDate `json:"auth_time,omitempty"`
}

func (c *claims) signIn() SignIn {
	said := SignIn{Level: 1, AMR: c.AMR}
	if c.ACR == levelTwo {
		said.Level = 2
	}
	if c.AuthTime != nil {
		said.AuthTime = c.AuthTime.Time
	}
	return said
}

// check checks what the JWT library does not.
func (c *claims) check(now time.Time) error {
	if c.ClientID != clientID {
		return errors.New("token of another client")
	}
	if c.Version < 1 {
		return errors.New("token without a version")
	}
	// auth's clock may be ahead of the verifier's: its newest tokens are valid at once.
	if c.IssuedAt == nil || c.IssuedAt.After(now.Add(rpc.ClockSkew)) {
		return errors.New("token from the future")
	}
	if life := c.ExpiresAt.Sub(c.IssuedAt.Time); life > Life+rpc.ClockSkew {
		return fmt.Errorf("token lives for %s", life)
	}
	for _, id := range []string{c.Subject, c.SessionID} {
		// In the canonical form, with which others compare.
		if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
			return fmt.Errorf("subject or session %q is no UUID", id)
		}
	}
	return nil
}

// UnmarshalJSON accepts each claim by its exact name, once, and a time only as a
// number (RFC 7519, sections 2 and 4). encoding/json alone would accept "SUB" for
// "sub", the last of two claims of one name, and a time in quotes.
func (c *claims) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return errors.New("the claims are no object")
	}
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return fmt.Errorf("claim %q comes twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		field := c.field(name)
		if _, ok := field.(**jwt.NumericDate); ok {
			if err := rpc.CheckNumericDate(value); err != nil {
				return fmt.Errorf("claim %q: %w", name, err)
			}
		}
		if err := json.Unmarshal(value, field); err != nil {
			return fmt.Errorf("claim %q: %w", name, err)
		}
	}
	return nil
}

// field returns the destination of a claim. An unknown claim is discarded.
func (c *claims) field(name string) any {
	switch name {
	case "iss":
		return &c.Issuer
	case "sub":
		return &c.Subject
	case "aud":
		return &c.Audience
	case "exp":
		return &c.ExpiresAt
	case "nbf":
		return &c.NotBefore
	case "iat":
		return &c.IssuedAt
	case "client_id":
		return &c.ClientID
	case "sid":
		return &c.SessionID
	case "roles":
		return &c.Roles
	case "ver":
		return &c.Version
	case "acr":
		return &c.ACR
	case "amr":
		return &c.AMR
	case "auth_time":
		return &c.AuthTime
	default:
		return new(json.RawMessage)
	}
}
