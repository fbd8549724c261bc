package app

import (
	"errors"
	"fmt"
	"gatehouse/bff/browser"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// addressError is a problem of a web address, and its fix.
type addressError struct{ problem, fix string }

func (e addressError) Error() string { return e.problem + ": " + e.fix }

// webOrigin returns the origin of a web address as browsers serialize it (URL
// Standard, section 4.5, "origin"): the scheme and the host in lower case, an
// international domain name in punycode, no default port. Browsers compare
// origins byte by byte, so an address that they would write otherwise never
// matches what they send. The error is an addressError.
func webOrigin(text string) (string, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return "", addressError{fmt.Sprintf("%q is not a web address", text), "set it to one such as http://localhost:8001 or https://auth.example.com"}
	}
	if parsed.User != nil || parsed.Path != "" && parsed.Path != "/" || parsed.RawQuery != "" || parsed.ForceQuery || parsed.Fragment != "" || strings.HasSuffix(text, "#") {
		return "", addressError{fmt.Sprintf("%q has more than a scheme, a host and a port", parsed.Redacted()), "leave the rest out"}
	}
	host, err := webHost(parsed.Hostname())
	if err != nil {
		return "", err
	}
	port, err := webPort(parsed.Scheme, parsed.Port())
	if err != nil {
		return "", err
	}
	return parsed.Scheme + "://" + host + port, nil
}

// domainProfile is how browsers read domain names (URL Standard, "domain to
// ASCII"): UTS 46, non-transitional.
var domainProfile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(false), idna.CheckHyphens(false))

func webHost(host string) (string, error) {
	if strings.Contains(host, ":") {
		address, err := netip.ParseAddr(host)
		if err != nil || address.Zone() != "" || address.Is4In6() {
			return "", addressError{fmt.Sprintf("%q is not an address that browsers accept", host), "give a plain IPv6 or IPv4 address"}
		}
		return "[" + address.String() + "]", nil
	}
	ascii, err := domainProfile.ToASCII(host)
	switch {
	case err != nil || strings.ContainsAny(ascii, " %*\"'<>^`{|}\\") || strings.HasPrefix(ascii, ".") || strings.Contains(ascii, ".."):
		return "", addressError{fmt.Sprintf("%q is not a host name", host), "give one such as auth.example.com"}
	case strings.HasSuffix(ascii, "."):
		return "", addressError{fmt.Sprintf("%q ends with a dot, which makes it another origin for browsers", host), "leave the dot out"}
	case !endsInNumber(ascii):
		return ascii, nil
	}
	// Browsers read such a host as an IPv4 address, or refuse it.
	address, err := netip.ParseAddr(ascii)
	if err != nil {
		return "", addressError{fmt.Sprintf("%q is not an IPv4 address", host), "give all four numbers, such as 127.0.0.1"}
	}
	return address.String(), nil
}

// endsInNumber reports whether browsers take a host for an IPv4 address (URL
// Standard, "ends in a number checker").
func endsInNumber(host string) bool {
	last := host[strings.LastIndex(host, ".")+1:]
	if last != "" && strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(last, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// webPort is ":" and the port, or "" for the scheme's default port.
func webPort(scheme, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return "", addressError{fmt.Sprintf("%q is not a port", text), "give a number from 1 to 65535"}
	}
	if scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return "", nil
	}
	return ":" + strconv.FormatUint(port, 10), nil
}

// webOrigin returns the origin that a setting names, or reports the problem.
func (p *problems) webOrigin(setting, text string) (origin string, ok bool) {
	origin, err := webOrigin(text)
	if failure, ok := errors.AsType[addressError](err); ok {
		p.add(setting, failure.problem, failure.fix)
		return "", false
	}
	return origin, err == nil
}

// developmentOrigins are what up allows where no origins are set: the pages of
// development servers on this machine.
var developmentOrigins = []string{"http://localhost:*", "http://127.0.0.1:*"}

// parseOrigins checks GATEHOUSE_ORIGINS. An origin on this machine may have "*"
// for its port, which stands for all of them.
func parseOrigins(p *problems, text string) []string {
	var origins []string
	for _, item := range list(text) {
		fixed, anyPort := strings.CutSuffix(item, ":*")
		origin, ok := p.webOrigin("GATEHOUSE_ORIGINS", fixed)
		if !ok {
			continue
		}
		if anyPort {
			parsed, err := url.Parse(origin)
			if err != nil || !browser.IsLoopback(parsed.Hostname()) || parsed.Port() != "" {
				p.add("GATEHOUSE_ORIGINS", fmt.Sprintf("%q allows every port of another machine", item), "name the port; * is for localhost, 127.0.0.1 and [::1]")
				continue
			}
			origin += ":*"
		}
		origins = append(origins, origin)
	}
	return origins
}

// isDevelopment reports whether a public URL is one that only this machine
// reaches.
func isDevelopment(publicURL string) bool {
	parsed, err := url.Parse(publicURL)
	return err == nil && parsed.Scheme == "http" && browser.IsLoopback(parsed.Hostname())
}
