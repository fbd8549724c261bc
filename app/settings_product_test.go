package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/mail"
)

func TestEveryProblemInTheProductsSettingsIsReported(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		flags productFlags
		want  string
	}{
		"nothing":        {productFlags{Pages: "on"}, ""},
		"a name":         {productFlags{Pages: "off", AppName: `Loom "the" <Weaver>`}, ""},
		"a line break":   {productFlags{Pages: "on", AppName: "Loom\r\nBcc: a@b.example"}, "GATEHOUSE_APP_NAME"},
		"a direction":    {productFlags{Pages: "on", AppName: "\u202emooL"}, "GATEHOUSE_APP_NAME"},
		"half the pages": {productFlags{Pages: "half"}, "GATEHOUSE_PAGES"},
	} {
		var p problems
		s := &settings{}
		s.add(&test.flags)
		s.checkValues(&p)
		if (len(p) > 0) != (test.want != "") || !strings.Contains(p.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, p, test.want)
		}
	}
}

func TestMailsAndPagesHaveTheSameNameWhereTheyShareAProcess(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "brand.json"), []byte(`{"name": "Loom"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, brand, want, from string }{
		{"", "", "", "no-reply@example.com"},
		{"", folder, "Loom", `"Loom" <no-reply@example.com>`},
		{" Loom ", "", "Loom", `"Loom" <no-reply@example.com>`},
		{"=?utf-8?q?Loom?=", "", "= ?utf-8?q?Loom?=", `"= ?utf-8?q?Loom?=" <no-reply@example.com>`},
		{`Web "x"`, folder, `Web "x"`, `"Web \"x\"" <no-reply@example.com>`},
	} {
		product, look := &productFlags{Pages: "on", AppName: test.name}, &pagesFlags{Brand: test.brand}
		var p problems
		s := &settings{}
		s.add(product, look)
		s.checkValues(&p)
		if err := p.err(); err != nil {
			t.Fatal(err)
		}
		templates := product.signMails(s, &mail.Templates{})
		if templates.App != test.want || !templates.Pages {
			t.Errorf("%+v: mails have the name %q, and pages: %t", test, templates.App, templates.Pages)
		}
		if got := product.sender(s, "no-reply@example.com"); got != test.from {
			t.Errorf("%+v: mails are from %s", test, got)
		}
		if got := product.sender(s, "Example <no-reply@example.com>"); got != "Example <no-reply@example.com>" {
			t.Errorf("the sender's own name is lost: %s", got)
		}
	}
	// A process without pages, such as auth alone, has no brand.
	product, s := &productFlags{Pages: "off"}, &settings{}
	s.add(product)
	if templates := product.signMails(s, &mail.Templates{}); templates.App != "" || templates.Pages {
		t.Errorf("got %+v", templates)
	}
}
