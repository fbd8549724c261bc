// Package returnto decides where a browser may be led after a sign-in: to a path of the
// site, or to a page of an allowed web origin.
//
// A target that is compared as text and then read by a browser is an open redirect as
// soon as the two disagree, so a target is parsed, compared, and returned as it was
// compared. What browsers repair ("https:evil", "/\evil", tabs) is refused.
package returnto

import (
	"net/url"
	"path"
	"strings"
)

// maxLength of a target in bytes.
const maxLength = 2048

// Check returns the target in the form in which a browser may be sent to it, and whether
// it is allowed. allowed reports whether a web origin, such as https://app.example.com,
// is in the allow-list; nil allows none. An empty target is refused.
func Check(target string, allowed func(origin string) bool) (string, bool) {
	if target == "" || len(target) > maxLength || strings.ContainsFunc(target, isUnsafe) {
		return "", false
	}
	parsed, err := url.Parse(target)
	if err != nil || parsed.Opaque != "" || parsed.User != nil || !isPlain(parsed.Path) {
		return "", false
	}
	if strings.HasPrefix(target, "/") {
		return parsed.String(), parsed.Scheme == "" && parsed.Host == "" && parsed.Path != ""
	}
	origin, ok := originOf(target, parsed)
	return parsed.String(), ok && allowed != nil && allowed(origin)
}

// isUnsafe reports whether browsers remove, repair or re-encode a character of an
// address. A path is sent percent-encoded, so nothing is lost by ASCII alone.
func isUnsafe(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }

// isPlain reports whether a decoded path means the same to every reader: it begins with
// one slash, and has no dot segments, empty segments at its beginning, backslashes or
// control characters.
func isPlain(decoded string) bool {
	if decoded == "" {
		return true
	}
	if !strings.HasPrefix(decoded, "/") || strings.HasPrefix(decoded, "//") {
		return false
	}
	if strings.ContainsFunc(decoded, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return false
	}
	cleaned := path.Clean(decoded)
	return cleaned == decoded || cleaned+"/" == decoded
}

// originOf returns the web origin of an absolute URL, in the form that browsers send.
func originOf(target string, parsed *url.URL) (string, bool) {
	defaultPort := map[string]string{"http": ":80", "https": ":443"}[parsed.Scheme]
	if defaultPort == "" || parsed.Hostname() == "" || !strings.HasPrefix(target, parsed.Scheme+"://") {
		return "", false
	}
	return parsed.Scheme + "://" + strings.TrimSuffix(strings.ToLower(parsed.Host), defaultPort), true
}
