package mail

import (
	"html"
	netmail "net/mail"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/mailtest"
)

const product = "Loom & Söhne"

// addresses are those of all pages that mails may link to, by name.
func addresses(site string) map[string]string {
	found := map[string]string{}
	links := reflect.ValueOf(pagesAt(site))
	for i := range links.NumField() {
		found[links.Type().Field(i).Name] = links.Field(i).String()
	}
	return found
}

func TestEveryMailCarriesTheProductsNameAndLinksToAPageThatHelps(t *testing.T) {
	t.Parallel()
	templates := open(t, nil)
	templates.App, templates.Pages = product, true
	used := map[string]bool{}
	for language, kinds := range templates.byLanguage {
		for kind := range kinds {
			got, err := templates.Render(letter(kind, language))
			if err != nil {
				t.Fatal(err)
			}
			for part, text := range map[string]string{"subject": got.Subject, "text": got.Text, "HTML": html.UnescapeString(got.HTML)} {
				if !strings.Contains(text, product) {
					t.Errorf("%s/%s: the %s doesn't name the product:\n%s", language, kind, part, text)
				}
			}
			if strings.Contains(got.HTML, product) || !strings.Contains(got.HTML, `">example.com</a>`) {
				t.Errorf("%s/%s: the HTML has the name unescaped, or no host in its footer:\n%s", language, kind, got.HTML)
			}
			helped := false
			for name, address := range addresses("https://example.com") {
				inText := strings.Contains(got.Text, address)
				if inHTML := strings.Contains(got.HTML, `<a href="`+address+`">`+address+`</a>`); inHTML != inText {
					t.Errorf("%s/%s: %s is in the text: %t, in the HTML: %t", language, kind, address, inText, inHTML)
				}
				helped, used[name] = helped || inText, used[name] || inText
			}
			if !helped {
				t.Errorf("%s/%s links to no page:\n%s", language, kind, got.Text)
			}
		}
	}
	for name := range addresses("https://example.com") {
		if !used[name] {
			t.Errorf("no mail links to %s", name)
		}
	}
}

func TestWithoutPagesAMailLinksToNone(t *testing.T) {
	t.Parallel()
	templates := open(t, nil)
	for _, test := range []struct {
		pages bool
		site  string
	}{{false, "https://example.com"}, {true, ""}} {
		templates.App, templates.Pages = product, test.pages
		for language, kinds := range templates.byLanguage {
			for kind := range kinds {
				l := letter(kind, language)
				l.Site = test.site
				got, err := templates.Render(l)
				if err != nil {
					t.Fatal(err)
				}
				text := strings.ReplaceAll(got.Text, link, "")
				if n := strings.Count(text, "https://example.com"); n > 1 || n == 1 && !strings.Contains(text, "-- \n"+product+"\nhttps://example.com\n") {
					t.Errorf("%s/%s: a link besides those of the mail and of the footer:\n%s", language, kind, got.Text)
				}
				for _, page := range addresses("") {
					if page != "" {
						t.Errorf("a page without a site: %s", page)
					}
				}
				for _, path := range []string{"/account", "/recover", "/sign-in", "/console"} {
					if strings.Contains(got.Text+got.HTML, path) {
						t.Errorf("%s/%s: it has %s:\n%s", language, kind, path, got.Text)
					}
				}
				for _, gap := range []string{"  ", " .", " ,", "{{"} {
					if strings.Contains(got.Text, gap) {
						t.Errorf("%s/%s: %q is in\n%s", language, kind, gap, got.Text)
					}
				}
			}
		}
	}
}

func TestANameOfAProductStaysInItsHeaders(t *testing.T) {
	t.Parallel()
	for name, shown := range map[string]string{
		"Loom":                                  "Loom",
		product:                                 product,
		`Loom "the" Weaver`:                     `Loom "the" Weaver`,
		"Loom <root@evil.example>":              "Loom <root@evil.example>",
		"Loom, root@evil.example":               "Loom, root@evil.example",
		"Loom\r\nBcc: root@evil.example":        "Loom Bcc: root@evil.example",
		"Loom\n\n<script>alert(1)</script>":     "Loom <script>alert(1)</script>",
		"\u202eLoom":                            "\u202eLoom",
		"織機":                                    "織機",
		strings.Repeat("Weberei und Söhne ", 5): strings.TrimSpace(strings.Repeat("Weberei und Söhne ", 5)),
	} {
		server := mailtest.Start(t, mailtest.Config{})
		mailer, err := NewSMTP(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		templates := open(t, nil)
		templates.App = name
		rendered, err := templates.Render(letter("password_changed", "en"))
		if err != nil {
			t.Fatal(err)
		}
		from := &netmail.Address{Name: shown, Address: "no-reply@example.com"}
		message := Message{ID: "1", Kind: "password_changed", MessageID: "1@example.com", From: from.String(), To: "ada@example.com", Rendered: rendered}
		if err := mailer.Send(t.Context(), message); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		got := server.Wait(t, 1)[0]
		if want := "Your password for " + shown + " has changed"; got.Subject() != want {
			t.Errorf("%q: the subject is %q, want %q", name, got.Subject(), want)
		}
		sender, err := got.Header.AddressList("From")
		if err != nil || len(sender) != 1 || *sender[0] != *from {
			t.Errorf("%q: it is from %v, %v, want %v", name, sender, err, from)
		}
		if got.Header.Get("Bcc") != "" || got.To != "ada@example.com" || strings.Contains(got.HTML, "<script>") {
			t.Errorf("%q: it broke out:\n%s", name, got.Raw)
		}
		headers, _, _ := strings.Cut(string(got.Raw), "\r\n\r\n")
		for line := range strings.SplitSeq(headers, "\r\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r > '~' || r < ' ' && r != '\t' }) || len(line) > 998 {
				t.Errorf("%q: a header is %q", name, line)
			}
		}
	}
}

func TestALongNameOfAProductIsFolded(t *testing.T) {
	t.Parallel()
	rendered, err := func() (Rendered, error) {
		templates := open(t, nil)
		templates.App = strings.Repeat("Wörter ", 40)
		return templates.Render(letter("new_sign_in", "de"))
	}()
	if err != nil {
		t.Fatal(err)
	}
	if n := len([]rune(rendered.Subject)); n > 2*maxValue {
		t.Errorf("the subject has %d characters", n)
	}
	msg, err := Message{ID: "1", From: "a@example.com", To: "b@example.com", MessageID: "x@y", Rendered: rendered}.compose("quoted-printable", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var raw strings.Builder
	if _, err := msg.WriteTo(&raw); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(raw.String(), "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
}
