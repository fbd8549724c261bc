package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"gatehouse/internal/provider"
)

// providersSetting is the setting that the problems are about.
const providersSetting = "GATEHOUSE_PROVIDERS"

// providerFlags name the other providers that people can sign in with.
type providerFlags struct {
	Providers string `env:"GATEHOUSE_PROVIDERS" placeholder:"FILE" help:"Let people sign in with the providers in this YAML or JSON file, such as Google or an OpenID provider of your own. Restart after a change. None if empty."`

	providers []provider.Config
}

// providerEntry is one provider in the file.
type providerEntry struct {
	ID               string   `yaml:"id"`
	Kind             string   `yaml:"kind"`
	Name             string   `yaml:"name"`
	Icon             string   `yaml:"icon"`
	ClientID         string   `yaml:"client_id"`
	ClientIDs        []string `yaml:"client_ids"`
	ClientSecretFile string   `yaml:"client_secret_file"`
	Issuer           string   `yaml:"issuer"`
	Scopes           []string `yaml:"scopes"`
	Tenant           string   `yaml:"tenant"`
	TeamID           string   `yaml:"team_id"`
	KeyID            string   `yaml:"key_id"`
	KeyFile          string   `yaml:"key_file"`
	EmailDomains     []string `yaml:"email_domains"`
	RedirectURIs     []string `yaml:"redirect_uris"`
	SecondFactor     string   `yaml:"second_factor"`
	SignUp           *bool    `yaml:"sign_up"`
}

func (f *providerFlags) check(c *checks) {
	f.providers = nil
	if f.Providers == "" {
		return
	}
	text, err := os.ReadFile(f.Providers)
	if err != nil {
		c.add(providersSetting, fmt.Sprintf("%s can't be read", f.Providers), "name a YAML or JSON file")
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var entries []providerEntry
	if err := decoder.Decode(&entries); err != nil && !errors.Is(err, io.EOF) {
		c.add(providersSetting, fmt.Sprintf("%s: %s", f.Providers, strings.ReplaceAll(err.Error(), "\n", " ")), "write a list of providers with the fields of the how-to")
		return
	}
	seen, callbacks := map[string]bool{}, map[string]string{}
	for i, entry := range entries {
		check := entryCheck{checks: c, where: fmt.Sprintf("entry %d (%s)", i+1, entry.ID), folder: filepath.Dir(f.Providers)}
		if seen[entry.ID] {
			check.wrong("its id is another entry's", "give each entry an id of its own")
		}
		seen[entry.ID] = true
		for _, uri := range entry.RedirectURIs {
			if other, taken := callbacks[uri]; taken && other != entry.ID {
				check.wrong(fmt.Sprintf("%q in redirect_uris is also %s's", uri, other), "give each provider a callback of its own, which tells their answers apart")
			}
			callbacks[uri] = entry.ID
		}
		f.providers = append(f.providers, check.config(entry))
	}
}

// open returns the providers.
func (f *providerFlags) open(logger *slog.Logger) []*provider.Provider {
	var opened []*provider.Provider
	for _, config := range f.providers {
		config.Logger = logger
		opened = append(opened, provider.New(config))
	}
	return opened
}

// entryCheck checks one entry.
type entryCheck struct {
	*checks
	where, folder string
}

func (c entryCheck) wrong(text, fix string) { c.add(providersSetting, c.where+": "+text, fix) }

var (
	providerIDForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	tenantForm     = regexp.MustCompile(`^(common|organizations|consumers|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$`)
	domainForm     = regexp.MustCompile(`^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)+$`)
)

// kindNames are the names of the kinds, for people.
var kindNames = map[provider.Kind]string{
	provider.Google: "Google", provider.Microsoft: "Microsoft", provider.Apple: "Apple", provider.GitHub: "GitHub",
}

func (c entryCheck) config(e providerEntry) provider.Config {
	kind := provider.Kind(e.Kind)
	if !providerIDForm.MatchString(e.ID) {
		c.wrong(fmt.Sprintf("its id %q is not lower-case letters, digits and hyphens", e.ID), "choose an id such as google: it is part of the callback's path")
	}
	if !slices.Contains(provider.Kinds, kind) {
		c.wrong(fmt.Sprintf("its kind %q is not known", e.Kind), "set kind to google, microsoft, apple, github or oidc")
	}
	if e.ClientID == "" {
		c.wrong("client_id is missing", "copy it from the provider's console")
	}
	config := provider.Config{
		ID: e.ID, Kind: kind, Name: e.Name, Icon: e.Icon, ClientID: e.ClientID, Issuer: e.Issuer, Tenant: e.Tenant,
		TeamID: e.TeamID, KeyID: e.KeyID, Scopes: e.Scopes, EmailDomains: e.EmailDomains, RedirectURIs: e.RedirectURIs,
		ClientIDs: e.ClientIDs, SignUp: e.SignUp == nil || *e.SignUp, TrustSecondFactor: e.SecondFactor == "trusted",
	}
	if config.Name == "" {
		config.Name = kindNames[kind]
	}
	if config.Name == "" {
		config.Name = e.ID
	}
	if config.Icon == "" && kind != provider.OIDC {
		config.Icon = e.Kind
	}
	c.checkKind(e, kind)
	if kind == provider.Apple {
		config.Key = c.key(e.KeyFile)
	} else {
		config.ClientSecret = c.secret(e, kind)
	}
	c.checkLists(e, kind)
	return config
}

// checkKind checks the fields that some kinds have.
func (c entryCheck) checkKind(e providerEntry, kind provider.Kind) {
	if kind == provider.OIDC {
		if err := provider.CheckIssuer(e.Issuer); err != nil {
			c.wrong(fmt.Sprintf("issuer %q cannot be used: %s", e.Issuer, err), "copy it from the issuer field of the provider's /.well-known/openid-configuration")
		}
	} else if e.Issuer != "" {
		c.wrong("issuer is only for the kind oidc", "remove it, or set kind to oidc")
	}
	switch {
	case kind == provider.Microsoft && !tenantForm.MatchString(e.Tenant):
		c.wrong(fmt.Sprintf("tenant %q is not a tenant", e.Tenant), "set it to common, organizations, consumers or the tenant's UUID")
	case kind != provider.Microsoft && e.Tenant != "":
		c.wrong("tenant is only for the kind microsoft", "remove it")
	case kind == provider.Apple && (e.TeamID == "" || e.KeyID == "" || e.KeyFile == ""):
		c.wrong("team_id, key_id or key_file is missing", "copy them from Apple's Certificates, Identifiers & Profiles")
	case kind != provider.Apple && (e.TeamID != "" || e.KeyID != "" || e.KeyFile != ""):
		c.wrong("team_id, key_id and key_file are only for the kind apple", "remove them")
	}
	if kind == provider.Apple && e.ClientSecretFile != "" {
		c.wrong("client_secret_file is not for the kind apple", "remove it: the secret is signed with key_file for each sign-in")
	}
}

func (c entryCheck) checkLists(e providerEntry, kind provider.Kind) {
	if !slices.Contains([]string{"", "never", "trusted"}, e.SecondFactor) {
		c.wrong(fmt.Sprintf("second_factor %q is not known", e.SecondFactor), "set it to never or trusted")
	}
	if kind == provider.GitHub && (len(e.ClientIDs) > 0 || e.SecondFactor == "trusted") {
		c.wrong("client_ids and second_factor: trusted are not for the kind github", "remove them: GitHub has no ID tokens")
	}
	if kind != provider.OIDC && len(e.EmailDomains) > 0 {
		c.wrong("email_domains is only for the kind oidc", "remove it")
	}
	for _, domain := range e.EmailDomains {
		if !domainForm.MatchString(domain) {
			c.wrong(fmt.Sprintf("%q in email_domains is not a domain", domain), "list domains such as example.com, without @")
		}
	}
	for _, uri := range e.RedirectURIs {
		// An app's own scheme has no host; a page's callback is https, or on this machine.
		parsed, err := url.Parse(uri)
		if err != nil || parsed.Scheme == "" || parsed.Fragment != "" || slices.Contains([]string{"javascript", "data", "file"}, parsed.Scheme) || parsed.Scheme == "http" && !isLoopback(parsed.Hostname()) {
			c.wrong(fmt.Sprintf("%q in redirect_uris is not a callback", uri), "list URLs such as https://app.example.com/callback or com.example.app:/callback; http is for this machine only")
		}
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// path returns the path of a file that the entry names, from the folder of the file.
func (c entryCheck) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.folder, name)
}

func (c entryCheck) secret(e providerEntry, kind provider.Kind) string {
	if e.ClientSecretFile == "" {
		if kind != provider.OIDC && kind != "" {
			c.wrong("client_secret_file is missing", "name a file with the client secret from the provider's console")
		}
		return "" // a public client, by PKCE alone
	}
	text, err := os.ReadFile(c.path(e.ClientSecretFile))
	secret := strings.TrimSpace(string(text))
	if err != nil || secret == "" {
		c.wrong(fmt.Sprintf("client_secret_file %s can't be read or is empty", e.ClientSecretFile), "name a file with the client secret")
	}
	return secret
}

func (c entryCheck) key(name string) *ecdsa.PrivateKey {
	if name == "" {
		return nil // reported
	}
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		c.wrong(fmt.Sprintf("key_file %s can't be read", name), "name the .p8 file that Apple lets you download once")
		return nil
	}
	if block, _ := pem.Decode(text); block != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if key, ok := parsed.(*ecdsa.PrivateKey); err == nil && ok && key.Curve == elliptic.P256() {
			return key
		}
	}
	c.wrong(fmt.Sprintf("key_file %s is not a P-256 key in PKCS #8", name), "name the .p8 file that Apple lets you download once")
	return nil
}
