package app

import (
	"fmt"
	"net/url"
	"strings"
)

// securityFlags are what security.txt says.
type securityFlags struct {
	SecurityContact string `env:"GATEHOUSE_SECURITY_CONTACT" placeholder:"URL" help:"Publish this address for reports of vulnerabilities in /.well-known/security.txt: mailto:security@example.com or an https:// URL. There is no such document if empty."`
}

func (f *securityFlags) check(c *checks) {
	if f.SecurityContact == "" {
		return
	}
	parsed, err := url.Parse(f.SecurityContact)
	if err != nil || strings.ContainsAny(f.SecurityContact, " \r\n") || parsed.Scheme != "mailto" && (parsed.Scheme != "https" || parsed.Host == "") {
		c.add("GATEHOUSE_SECURITY_CONTACT", fmt.Sprintf("%q is no mailto: or https: URL", f.SecurityContact), "set it to a URL such as mailto:security@example.com")
	}
}
