package provider

import (
	"context"
	"crypto"
	_ "crypto/sha256" // for at_hash
	_ "crypto/sha512" // for at_hash
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claims are those of an ID token that are used. EmailVerified and XMSEDOV come as
// booleans, numbers or texts.
type claims struct {
	Email         string          `json:"email"`
	EmailVerified json.RawMessage `json:"email_verified"`
	XMSEDOV       json.RawMessage `json:"xms_edov"`
	HostedDomain  string          `json:"hd"`
	TID           string          `json:"tid"`
	AZP           string          `json:"azp"`
	AtHash        string          `json:"at_hash"`
	GivenName     string          `json:"given_name"`
	FamilyName    string          `json:"family_name"`
	AuthTime      float64         `json:"auth_time"`
	AMR           json.RawMessage `json:"amr"`
	ACR           string          `json:"acr"`

	issuer, subject, algorithm string
}

// isTrue reports whether a claim is true in one of the forms that the providers use;
// anything else is false.
func isTrue(claim json.RawMessage, forms ...string) bool {
	return slices.Contains(forms, string(claim))
}

// identity returns who the claims are about. appleUser is what Apple sends once, which it
// does not sign: only the name is taken from it.
func (p *Provider) identity(c *claims, appleUser string) (Identity, error) {
	found := Identity{Issuer: c.issuer, Subject: c.subject, FirstName: c.GivenName, LastName: c.FamilyName}
	if p.Kind == Apple && appleUser != "" {
		var user struct {
			Name struct {
				FirstName string `json:"firstName"`
				LastName  string `json:"lastName"`
			} `json:"name"`
		}
		if json.Unmarshal([]byte(appleUser), &user) == nil {
			found.FirstName, found.LastName = user.Name.FirstName, user.Name.LastName
		}
	}
	found.FirstName, found.LastName = shortened(found.FirstName), shortened(found.LastName)
	found.SecondFactor = p.TrustSecondFactor && c.hasSecondFactor()
	if c.AuthTime > 0 {
		found.AuthTime = earlier(time.Unix(int64(c.AuthTime), 0), p.now())
	}
	if !isAddress(c.Email) {
		return found, nil
	}
	found.Email, found.Authoritative = c.Email, p.vouches(c)
	return found, nil
}

// acrOfTwo are the acr of a sign-in with two factors: that of PAPE, which OpenID Connect
// providers use for lack of a registered one, and those of OpenID EAP ACR Values 1.0.
var acrOfTwo = []string{"http://schemas.openid.net/pape/policies/2007/06/multi-factor", "phr", "phrh"}

// hasSecondFactor reports whether the person gave a second factor, which amr says by
// "mfa" (RFC 8176).
func (c *claims) hasSecondFactor() bool {
	var methods []string
	return json.Unmarshal(c.AMR, &methods) == nil && slices.Contains(methods, "mfa") || slices.Contains(acrOfTwo, c.ACR)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// vouches reports whether the provider vouches for the current owner of the address. An
// address that was only verified once may have another owner by now, and one that a
// tenant's administrator typed is nobody's.
func (p *Provider) vouches(c *claims) bool {
	_, domain, _ := strings.Cut(strings.ToLower(c.Email), "@")
	switch p.Kind {
	case Google:
		return isTrue(c.EmailVerified, `true`, `"true"`) && (domain == "gmail.com" || c.HostedDomain != "")
	case Microsoft:
		return isTrue(c.XMSEDOV, `true`, `"true"`, `1`, `"1"`)
	case Apple:
		return isTrue(c.EmailVerified, `true`, `"true"`)
	case OIDC:
		return isTrue(c.EmailVerified, `true`) && slices.ContainsFunc(p.EmailDomains, func(own string) bool { return strings.EqualFold(own, domain) })
	}
	return false
}

// isAddress reports whether a text is one mail address that an account can have.
func isAddress(text string) bool {
	if len(text) > 254 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return false
	}
	parsed, err := mail.ParseAddress(text)
	return err == nil && parsed.Address == text && strings.Count(text, "@") == 1
}

// maxName is the longest part of a name, in characters.
const maxName = 100

func shortened(name string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "")))
	if characters := []rune(name); len(characters) > maxName {
		return strings.TrimSpace(string(characters[:maxName]))
	}
	return name
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func isUUID(text string) bool { return uuidForm.MatchString(text) }

func decode(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

// checkAtHash compares an access token with the ID token's hash of it (OpenID Connect
// Core 1.0, section 3.1.3.6).
func checkAtHash(want, algorithm, token string) error {
	hash := crypto.SHA256
	switch {
	case algorithm == "EdDSA", strings.HasSuffix(algorithm, "512"):
		hash = crypto.SHA512
	case strings.HasSuffix(algorithm, "384"):
		hash = crypto.SHA384
	}
	digest := hash.New()
	digest.Write([]byte(token))
	sum := digest.Sum(nil)
	if subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])), []byte(want)) != 1 {
		return fmt.Errorf("%w: at_hash is of another access token", ErrRefused)
	}
	return nil
}

// appleSecretLife is how long one of Apple's client secrets is valid: for one exchange.
const appleSecretLife = 5 * time.Minute

// appleSecret signs the client secret for one exchange: a stored one would expire after
// six months at most.
func (p *Provider) appleSecret() (string, error) {
	now := p.now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": p.TeamID, "sub": p.ClientID, "aud": p.issuer(), "iat": now.Unix(), "exp": now.Add(appleSecretLife).Unix(),
	})
	token.Header["kid"] = p.KeyID
	signed, err := token.SignedString(p.Key)
	if err != nil {
		return "", fmt.Errorf("sign the client secret: %w", err)
	}
	return signed, nil
}

// githubMetadata describe GitHub, which publishes no metadata.
func (p *Provider) githubMetadata() *metadata {
	return &metadata{
		Issuer: p.issuer(), AuthorizationEndpoint: p.issuer() + "/login/oauth/authorize", TokenEndpoint: p.issuer() + "/login/oauth/access_token",
		AuthMethods: []string{"client_secret_post"},
	}
}

// githubAPI is GitHub's API; an enterprise server has it below its own address.
func (p *Provider) githubAPI() string {
	if p.Issuer == "" {
		return "https://api.github.com"
	}
	return p.Issuer + "/api/v3"
}

// githubIdentity asks GitHub who has authorised a token. The subject is the number:
// another person can take a login that is given up.
func (p *Provider) githubIdentity(ctx context.Context, token string) (Identity, error) {
	var user struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
	if err := p.fetch(ctx, p.githubAPI()+"/user", token, &user); err != nil {
		return Identity{}, err
	}
	if user.ID <= 0 {
		return Identity{}, fmt.Errorf("%w: no user id", ErrRefused)
	}
	var emails []struct {
		Email             string `json:"email"`
		Primary, Verified bool
	}
	if err := p.fetch(ctx, p.githubAPI()+"/user/emails", token, &emails); err != nil {
		return Identity{}, err
	}
	first, last, _ := strings.Cut(strings.TrimSpace(user.Name), " ")
	found := Identity{Issuer: p.issuer(), Subject: strconv.FormatInt(user.ID, 10), FirstName: shortened(first), LastName: shortened(last)}
	for _, one := range emails {
		if one.Primary && isAddress(one.Email) && !strings.HasSuffix(strings.ToLower(one.Email), "@users.noreply.github.com") {
			found.Email, found.Authoritative = one.Email, one.Verified
		}
	}
	return found, nil
}
