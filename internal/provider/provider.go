// Package provider signs people in at other providers, as an OpenID Connect relying
// party (OpenID Connect Core 1.0) or, for GitHub, an OAuth 2.0 client.
//
// [Provider.Authorize] makes the address that a browser is sent to, and
// [Provider.Redeem] exchanges the code that comes back for an [Identity]. What go-oidc
// leaves to its caller is checked here: nonce, azp, at_hash, the issuer of the response
// (RFC 9207), and whether the provider vouches for the address. Nothing that a caller
// sends becomes a URL that is fetched, and tokens of the provider are not kept.
package provider

import (
	"cmp"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// Kind is the kind of a provider.
type Kind string

const (
	Google    Kind = "google"
	Microsoft Kind = "microsoft"
	Apple     Kind = "apple"
	GitHub    Kind = "github"
	OIDC      Kind = "oidc" // any other OpenID provider
)

// Kinds are all of them.
var Kinds = []Kind{Google, Microsoft, Apple, GitHub, OIDC}

var (
	// ErrUnavailable reports that the provider does not answer, or answers with a fault
	// of its own.
	ErrUnavailable = errors.New("the provider is unavailable")
	// ErrRefused reports an answer that must not be accepted.
	ErrRefused = errors.New("the provider's answer is refused")
)

// Config is one provider.
type Config struct {
	// ID names the provider in paths and rows.
	ID   string
	Kind Kind
	// Name and Icon are for people. Icon names a built-in picture.
	Name, Icon string
	ClientID   string
	// ClientIDs are those of apps that sign in with the provider's own library, whose ID
	// tokens are accepted too.
	ClientIDs []string
	// ClientSecret is empty for a public client, and for Apple.
	ClientSecret string
	// Issuer is that of an OpenID provider. For the other kinds it is empty, or replaces
	// the provider's own address.
	Issuer string
	// Tenant is Microsoft's: common, organizations, consumers or a tenant's UUID.
	Tenant string
	// TeamID, KeyID and Key sign Apple's client secret.
	TeamID, KeyID string
	Key           *ecdsa.PrivateKey
	// Scopes are asked for in addition to those of the kind.
	Scopes []string
	// EmailDomains are those whose verified addresses an OpenID provider vouches for.
	EmailDomains []string
	// RedirectURIs are callbacks of apps, besides the gateway's.
	RedirectURIs []string
	// SignUp says whether a new person gets an account.
	SignUp bool
	// TrustSecondFactor says that a second factor at the provider counts here.
	TrustSecondFactor bool
	Logger            *slog.Logger
}

// Identity is who somebody is at a provider.
type Identity struct {
	// Issuer and Subject identify the person for ever; Email does not.
	Issuer, Subject string
	Email           string
	// Authoritative says that the provider vouches for the address's current owner.
	Authoritative       bool
	FirstName, LastName string
	// AuthTime is when the person gave a proof to the provider; zero if it does not say.
	AuthTime time.Time
	// SecondFactor says that they gave a second one there, and that the provider is
	// trusted with it.
	SecondFactor bool
}

// Provider is one provider. Its methods may be called concurrently.
type Provider struct {
	Config
	http    *http.Client
	keys    *keySet
	circuit circuitbreaker.CircuitBreaker[any]
	now     func() time.Time

	mu       sync.Mutex
	metadata *metadata
	expire   time.Time // of the metadata
}

const (
	// After failureThreshold failures in a row, the provider is not called for
	// circuitDelay.
	failureThreshold = 5
	circuitDelay     = 30 * time.Second
)

// New returns a provider. It does not call it.
func New(config Config) *Provider {
	p := &Provider{Config: config, now: time.Now}
	p.http = newClient()
	p.keys = &keySet{fetch: p.fetch, now: func() time.Time { return p.now() }}
	p.circuit = circuitbreaker.NewBuilder[any]().WithFailureThreshold(failureThreshold).WithDelay(circuitDelay).
		OnStateChanged(func(change circuitbreaker.StateChangedEvent) {
			if config.Logger != nil {
				config.Logger.Warn("provider: circuit breaker changed", "provider", config.ID, "state", change.NewState.String())
			}
		}).Build()
	return p
}

// guarded calls the provider unless it failed repeatedly. Only a fault of the provider
// counts: otherwise anybody could open the circuit by answers that are refused, or by
// calls that they cancel, so call has a context without the caller's deadline. callLimit
// bounds each request.
func (p *Provider) guarded(call func() error) error {
	if !p.circuit.TryAcquirePermit() {
		return fmt.Errorf("%w: circuit breaker open", ErrUnavailable)
	}
	err := call()
	if errors.Is(err, ErrUnavailable) {
		p.circuit.RecordFailure()
	} else {
		p.circuit.RecordSuccess()
	}
	return err
}

// consumersTenant is the tenant of personal accounts, which the metadata of "consumers" name.
const consumersTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// issuer is the configured issuer; for Microsoft, with "{tenantid}" where several tenants
// sign in.
func (p *Provider) issuer() string {
	switch p.Kind {
	case Google:
		return cmp.Or(p.Issuer, "https://accounts.google.com")
	case Apple:
		return cmp.Or(p.Issuer, "https://appleid.apple.com")
	case GitHub:
		return cmp.Or(p.Issuer, "https://github.com")
	case Microsoft:
		tenant := p.Tenant
		if tenant == "consumers" {
			tenant = consumersTenant
		}
		if !isUUID(tenant) {
			tenant = "{tenantid}"
		}
		return p.authority() + "/" + tenant + "/v2.0"
	}
	return p.Issuer
}

// IssuerPattern is a pattern of SQL's LIKE that matches the issuers of the provider's
// identities: with several tenants of Microsoft there are several.
func (p *Provider) IssuerPattern() string {
	escaped := strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(p.issuer())
	return strings.Replace(escaped, "{tenantid}", "%", 1)
}

func (p *Provider) authority() string { return cmp.Or(p.Issuer, "https://login.microsoftonline.com") }

// CheckIssuer reports why a URL cannot be an issuer: it has to be https, or plain http on
// this machine, without a query.
func CheckIssuer(issuer string) error {
	parsed, err := url.Parse(issuer)
	switch {
	case err != nil || parsed.Host == "" || parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "":
		return errors.New("it is not a URL such as https://login.example.com")
	case !isSecure(parsed):
		return errors.New("it is not https")
	}
	return nil
}

// isSecure reports whether nobody on the way can read or change what is fetched.
func isSecure(u *url.URL) bool {
	host := u.Hostname()
	return u.Scheme == "https" || u.Scheme == "http" && (host == "localhost" || host == "127.0.0.1" || host == "::1" || strings.HasSuffix(host, ".localhost"))
}
