// Package email owns the grammar of email addresses: which ones an account can
// be given, and the one form in which an address is kept.
//
// The grammar is that of addresses that mail programs and servers pass on
// unquoted (RFC 5321, section 4.1.2, Dot-string). The rule string.mailable in
// proto/policy/v1/address.proto says the same to callers of the API.
package email

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// maxLength is that of a path without its angle brackets (RFC 5321, section
// 4.5.3.1.3), and maxLocal that of a local part (section 4.5.3.1.1).
const (
	maxLength = 254
	maxLocal  = 64
)

var (
	localPart = regexp.MustCompile("^[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(\\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*$")
	domain    = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
	// number is a last label that makes the domain an IP address, or nothing.
	number = regexp.MustCompile(`(^|\.)[0-9]+$`)
)

// Mailable reports whether mail can be sent to an address in its normal form. An
// international domain is in A-labels there.
func Mailable(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || len(address) > maxLength || at > maxLocal {
		return false
	}
	host := address[at+1:]
	return localPart.MatchString(address[:at]) && domain.MatchString(host) && !number.MatchString(host)
}

// maxDomain is more bytes than a domain of 253 octets has in any script.
const maxDomain = 1024

// Normalize brings an address to the form in which it is kept: without white
// space around it, in NFC, the domain in lower case and in A-labels (RFC 5891).
// The case of the local part is its owner's. It leaves alone what it can't read,
// for [Mailable] to refuse.
func Normalize(text string) string {
	text = norm.NFC.String(strings.TrimSpace(text))
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return text
	}
	host := strings.ToLower(text[at+1:])
	// A-labels take time by the square of the length, and what is longer than any
	// domain is refused anyway.
	if len(host) <= maxDomain && strings.ContainsFunc(host, func(c rune) bool { return c > unicode.MaxASCII }) {
		if ascii, err := idna.Lookup.ToASCII(host); err == nil {
			host = ascii
		}
	}
	return text[:at+1] + host
}
