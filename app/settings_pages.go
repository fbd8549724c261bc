package app

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"gatehouse/bff/pages"
)

// pagesFlags are the pages for people.
type pagesFlags struct {
	Pages   string `env:"GATEHOUSE_PAGES" default:"on" placeholder:"on|off" help:"Serve pages for signing in, for people's own accounts, and the console (on), or only those that mailed links open (off)."`
	AppName string `env:"GATEHOUSE_APP_NAME" placeholder:"NAME" help:"Show this name of your product on the pages. If empty, the name in the brand's files, or Gatehouse."`
	Brand   string `env:"GATEHOUSE_BRAND" placeholder:"FOLDER" help:"Show the pages with the name, logo, colours and texts in this folder: brand.json, logo.svg, brand.css, texts.de.json. They look like Gatehouse's own if empty."`

	brand *pages.Brand
}

// maxAppName is the longest name of a product, in characters.
const maxAppName = 64

func (f *pagesFlags) check(c *checks) {
	if f.Pages != "on" && f.Pages != "off" {
		c.add("GATEHOUSE_PAGES", fmt.Sprintf("%q is not known", f.Pages), "set it to on or off")
	}
	if len([]rune(f.AppName)) > maxAppName || strings.ContainsFunc(f.AppName, func(r rune) bool { return r < ' ' }) {
		c.add("GATEHOUSE_APP_NAME", "is not a name of one line", fmt.Sprintf("use at most %d characters", maxAppName))
	}
	if f.Brand == "" {
		return
	}
	var err error
	if f.brand, err = pages.LoadBrand(f.Brand); err == nil {
		return
	}
	var mistakes pages.Mistakes
	if !errors.As(err, &mistakes) {
		mistakes = pages.Mistakes{err.Error()}
	}
	for _, mistake := range mistakes {
		c.add("GATEHOUSE_BRAND", mistake, "")
	}
}

// config returns the configuration of the pages.
func (f *pagesFlags) config(s *settings) pages.Config {
	name := ""
	if f.brand != nil {
		name = f.brand.Name
	}
	config := pages.Config{
		Off: f.Pages == "off", AppName: cmp.Or(f.AppName, name), Brand: f.brand,
		Origins: find[*originFlags](s).origins, Passkeys: find[*passkeyFlags](s).party != nil,
		EmailSignIn: find[*emailSignInFlags](s).on(),
	}
	if accounts := find[*accountFlags](s); accounts != nil {
		config.Registration = accounts.Registration
	}
	if s.command == commandUp {
		config.FirstRun = &pages.FirstRun{URL: find[*publicFlags](s).url, Administrator: find[*accountFlags](s).AdminEmail, Mailbox: find[*mailFlags](s).mailbox}
	}
	return config
}
