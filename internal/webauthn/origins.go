package webauthn

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"golang.org/x/net/publicsuffix"
)

// RelatedOriginsPath is where browsers look for the related origins, on the host of
// the RP ID (Level 3, section 5.11).
const RelatedOriginsPath = protocol.WellKnownPathWebAuthn

const localhost = "localhost"

// CheckID checks that pages of a public URL may use an RP ID: a domain that is the
// URL's host or one of its parents, and not a public suffix; https, except on
// localhost.
func CheckID(id, publicURL string) error {
	parsed, err := url.Parse(publicURL)
	if err != nil {
		return fmt.Errorf("%q is not a web address", publicURL)
	}
	host := parsed.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return fmt.Errorf("the host of %s is an IP address, and browsers offer passkeys for names only", publicURL)
	}
	if parsed.Scheme != "https" && host != localhost {
		return fmt.Errorf("%s is not https, and browsers offer passkeys on secure pages only", publicURL)
	}
	if protocol.ValidateRPID(id) != nil || strings.ToLower(id) != id {
		return fmt.Errorf("%q is not a domain name in lower case with two labels, nor localhost", id)
	}
	if !covers(id, host) {
		return fmt.Errorf("%q is neither the host of %s nor a parent domain of it", id, publicURL)
	}
	if suffix, _ := publicsuffix.PublicSuffix(id); suffix == id && id != localhost {
		return fmt.Errorf("%q is a public suffix: pages of strangers would share the passkeys", id)
	}
	return nil
}

// covers reports whether a host belongs to an RP ID.
func covers(id, host string) bool { return host == id || strings.HasSuffix(host, "."+id) }

// Under reports whether pages of an origin may use an RP ID by their own host.
func Under(id, origin string) bool {
	parsed, err := url.Parse(strings.TrimSuffix(origin, ":*"))
	return err == nil && secure(parsed) && covers(id, parsed.Hostname())
}

// secure reports whether browsers offer passkeys to pages of a web origin.
func secure(origin *url.URL) bool {
	host := origin.Hostname()
	return origin.Scheme == "https" || origin.Scheme == "http" && covers(localhost, host)
}

// IsApp reports whether an origin is that of an app, such as
// android:apk-key-hash:…, and not of a page.
func IsApp(origin string) bool { return protocol.IsKnownOpaqueOrigin(origin) }

// RelatedOrigins returns the document that allows pages of other domains to use the
// RP ID; nil if none of the origins needs it. Browsers read five registrable names.
func RelatedOrigins(id string, origins []string) ([]byte, error) {
	var related []string
	for _, origin := range origins {
		if IsApp(origin) || Under(id, origin) {
			continue
		}
		if parsed, err := url.Parse(origin); err != nil || parsed.Scheme != "https" || strings.HasSuffix(origin, ":*") {
			return nil, fmt.Errorf("%q is not an https origin", origin)
		}
		related = append(related, origin)
	}
	if len(related) == 0 {
		return nil, nil
	}
	document, err := protocol.NewRelatedOriginsWithLabeler(registrableLabel, related...)
	if err != nil {
		return nil, fmt.Errorf("browsers read %d registrable names at most, each with a public suffix", protocol.MaximumRelatedOriginLabels)
	}
	return json.Marshal(document)
}

// registrableLabel is the part of a registrable domain before its public suffix.
func registrableLabel(origin string) (string, error) {
	parsed, err := url.Parse(origin)
	if err != nil {
		return "", errors.New("not a web origin")
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(parsed.Hostname())
	if err != nil {
		return "", fmt.Errorf("no registrable domain: %w", err)
	}
	label, _, _ := strings.Cut(domain, ".")
	return label, nil
}
