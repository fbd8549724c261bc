package app

import (
	"errors"

	"gatehouse/bff/pages"
)

// pagesFlags are the look of the pages for people.
type pagesFlags struct {
	Brand string `env:"GATEHOUSE_BRAND" placeholder:"FOLDER" help:"Show the pages with the name, logo, colours and texts in this folder: brand.json, logo.svg, brand.css, texts.de.json. They look like Gatehouse's own if empty."`

	brand *pages.Brand
}

func (f *pagesFlags) check(c *checks) {
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
	product := find[*productFlags](s)
	config := pages.Config{
		Off: product.Pages == "off", AppName: product.name(s), Brand: f.brand,
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
