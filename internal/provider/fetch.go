package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// callLimit bounds one call of a provider.
	callLimit = 4 * time.Second
	// maxBody bounds an answer of a provider.
	maxBody = 1 << 20
	// maxRedirects bounds the redirects of one call.
	maxRedirects = 3
)

var errTooLarge = errors.New("the answer is larger than 1 MiB")

// newClient returns a client for calls of providers.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Timeout:   callLimit,
		Transport: bounded{transport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch first := via[0].URL; {
			case len(via) > maxRedirects:
				return errors.New("too many redirects")
			case r.URL.Host != first.Host || r.URL.Scheme != first.Scheme:
				return fmt.Errorf("a redirect to another host, %s", r.URL.Host)
			}
			return nil
		},
	}
}

// bounded limits the bodies of answers.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxBody}
	return response, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// fetch returns a JSON document. token, if not empty, authorises the call. Errors:
// ErrUnavailable, and ErrRefused for a document that is none.
func (p *Provider) fetch(ctx context.Context, address, token string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	request.Header.Set("Accept", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := p.http.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%w: read %s: %w", ErrUnavailable, address, err)
	case response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s from %s", ErrUnavailable, response.Status, address)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: %s from %s", ErrRefused, response.Status, address)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: decode %s: %w", ErrRefused, address, err)
	}
	return nil
}

// metadata are the parts of a provider's metadata that are used (OpenID Connect
// Discovery 1.0, section 3; RFC 9207).
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	UserinfoEndpoint      string   `json:"userinfo_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	Algorithms            []string `json:"id_token_signing_alg_values_supported"`
	AuthMethods           []string `json:"token_endpoint_auth_methods_supported"`
	IssInResponse         bool     `json:"authorization_response_iss_parameter_supported"`
}

// metadataLife is how long metadata are used before they are fetched again.
const metadataLife = time.Hour

// discover returns the provider's metadata. Metadata that cannot be fetched again stay in
// use.
func (p *Provider) discover(ctx context.Context) (*metadata, error) {
	if p.Kind == GitHub {
		return p.githubMetadata(), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.metadata != nil && p.now().Before(p.expire) {
		return p.metadata, nil
	}
	found, err := p.fetchMetadata(ctx)
	if err != nil && p.metadata != nil {
		p.expire = p.now().Add(time.Minute)
		return p.metadata, nil
	}
	if err != nil {
		return nil, err
	}
	p.metadata, p.expire = found, p.now().Add(metadataLife)
	return found, nil
}

func (p *Provider) fetchMetadata(ctx context.Context) (*metadata, error) {
	base := p.issuer()
	if p.Kind == Microsoft {
		base = p.authority() + "/" + p.Tenant + "/v2.0"
	}
	var found metadata
	if err := p.fetch(ctx, strings.TrimSuffix(base, "/")+"/.well-known/openid-configuration", "", &found); err != nil {
		if errors.Is(err, ErrRefused) { // its operator has to fix it
			err = fmt.Errorf("%w: %w", ErrUnavailable, errors.New(err.Error()))
		}
		return nil, err
	}
	if found.Issuer != p.issuer() {
		return nil, fmt.Errorf("%w: its metadata are of the issuer %q, want %q", ErrUnavailable, found.Issuer, p.issuer())
	}
	for name, address := range map[string]string{
		"authorization_endpoint": found.AuthorizationEndpoint, "token_endpoint": found.TokenEndpoint, "jwks_uri": found.JWKSURI,
	} {
		if parsed, err := url.Parse(address); err != nil || parsed.Host == "" || !isSecure(parsed) || !p.mayName(parsed) {
			return nil, fmt.Errorf("%w: its %s %q is not an https URL", ErrUnavailable, name, address)
		}
	}
	return &found, nil
}

// mayName reports whether the metadata may name an address: one of this machine only if
// the issuer is on it too.
func (p *Provider) mayName(u *url.URL) bool {
	if u.Scheme == "https" {
		return true
	}
	own, err := url.Parse(p.issuer())
	return err == nil && own.Scheme == "http"
}

// Check reports why the provider cannot be used, as far as its metadata tell.
func (p *Provider) Check(ctx context.Context) error {
	_, err := p.discover(ctx)
	return err
}
