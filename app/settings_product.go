package app

import (
	"fmt"
	netmail "net/mail"
	"strings"

	"gatehouse/bff/pages"
	"gatehouse/internal/mail"
)

// productFlags are what people see of the product, on pages and in mails.
type productFlags struct {
	Pages   string `env:"GATEHOUSE_PAGES" default:"on" placeholder:"on|off" help:"Serve pages for signing in, for people's own accounts, and the console (on), or only those that mailed links open (off). Mails link to the pages that help."`
	AppName string `env:"GATEHOUSE_APP_NAME" placeholder:"NAME" help:"Show this name of your product on the pages and in mails. If empty, the pages show the name in the brand's files, or Gatehouse, and mails show the public URL's host."`
}

func (f *productFlags) check(c *checks) {
	if f.Pages != "on" && f.Pages != "off" {
		c.add("GATEHOUSE_PAGES", fmt.Sprintf("%q is not known", f.Pages), "set it to on or off")
	}
	if problem := pages.CheckName(f.AppName); problem != "" {
		c.add("GATEHOUSE_APP_NAME", problem, fmt.Sprintf("set it to a name of one line with at most %d characters", pages.MaxName))
	}
}

// name returns the product's name; empty if there is none.
func (f *productFlags) name(s *settings) string {
	given := strings.TrimSpace(f.AppName)
	if given == "" {
		if look := find[*pagesFlags](s); look != nil && look.brand != nil {
			return look.brand.Name
		}
	}
	return given
}

// mailName returns the product's name without the start of an encoded word (RFC 2047), which
// readers of mails would decode.
func (f *productFlags) mailName(s *settings) string {
	return strings.ReplaceAll(f.name(s), "=?", "= ?")
}

// signMails makes mails carry the product's name and link to its pages.
func (f *productFlags) signMails(s *settings, templates *mail.Templates) *mail.Templates {
	if templates != nil {
		templates.App, templates.Pages = f.mailName(s), f.Pages == "on"
	}
	return templates
}

// sender returns an address with the product's name, unless it has a name of its own.
func (f *productFlags) sender(s *settings, from string) string {
	address, err := netmail.ParseAddress(from)
	if err != nil || address.Name != "" || f.name(s) == "" {
		return from
	}
	address.Name = f.mailName(s)
	return address.String()
}
