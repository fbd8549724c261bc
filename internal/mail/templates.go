package mail

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode"

	"golang.org/x/text/language"
)

//go:embed templates
var builtIn embed.FS

const (
	// fallback is the language with every kind.
	fallback   = "en"
	layoutFile = "layout.tmpl"
	extension  = ".tmpl"
)

// Templates are the mails that can be written, in each language that has them.
//
// The file LANGUAGE/KIND.tmpl defines three templates: "subject", "text" and
// "html". The last two are framed by layout.tmpl, which holds no words, so that
// one file is a whole translation. LANGUAGE is a BCP 47 tag such as pt-BR. A
// mail is looked for from the recipient's language to the more general ones, and
// at last in English (RFC 4647, lookup): pt-BR, pt, en.
type Templates struct {
	// App is the product's name in the mails; the host of the letter's Site if empty.
	App string
	// Pages says that the letter's Site has pages for people, which the advice in a
	// mail links to.
	Pages bool

	byLanguage map[string]map[string]template // by the tag in lower case, and the kind
}

type template struct {
	language string
	text     *texttemplate.Template
	html     *htmltemplate.Template
}

// Rendered is the content of a mail.
type Rendered struct {
	Subject, Text, HTML string
	// Language is the one that it is written in.
	Language string
}

// Letter is the input of a mail.
type Letter struct {
	Kind string
	// Locale is the recipient's BCP 47 tag; empty for the default.
	Locale string
	To     string
	// Link is for kinds that have one, and LinkLife for how long it works.
	Link     string
	LinkLife time.Duration
	// Site is where the recipient has their account.
	Site string
	// Values are "ip_address", "user_agent", "time" (RFC 3339), "new_email",
	// "old_email", "first_name", "code", "codes_left", "provider", "key_name",
	// "expire_time" (RFC 3339), and "webhook_url", as far as they are known.
	Values map[string]string
}

// page is the data of a template.
type page struct {
	Language, Direction string
	// Email is the recipient's.
	Email string
	// App is the product's name.
	App string
	// Site is the public URL, and Host its host.
	Site, Host string
	Pages      pageLinks
	Link       string
	// Minutes is for how long the link works.
	Minutes int
	// The rest may be empty.
	FirstName, IPAddress, UserAgent, Time, NewEmail, OldEmail string
	// Code is to be typed into a page; CodesLeft is how many recovery codes remain.
	Code, CodesLeft string
	// Provider is the name of another provider that signs in.
	Provider string
	// KeyName is the name of an API key, and Expires when it expires.
	KeyName, Expires string
	// WebhookURL is where a webhook is.
	WebhookURL string
}

// Open reads the templates: those of a folder laid out like the built-in ones go
// before them; nil for no folder. It returns every file's fault: that it can't
// be parsed or rendered, lacks a part, has no link where the English one does,
// or is of a kind or language that there isn't.
func Open(folder fs.FS) (*Templates, error) {
	own, err := fs.Sub(builtIn, "templates")
	if err != nil {
		return nil, fmt.Errorf("open the built-in templates: %w", err)
	}
	kinds, err := kindsOf(own)
	if err != nil {
		return nil, err
	}
	layout, err := fs.ReadFile(own, layoutFile)
	if err != nil {
		return nil, fmt.Errorf("read the built-in layout: %w", err)
	}
	if folder != nil {
		switch text, err := fs.ReadFile(folder, layoutFile); {
		case err == nil:
			layout = text
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("read %s: %w", layoutFile, err)
		}
	}
	t := &Templates{byLanguage: map[string]map[string]template{}}
	if err := t.load(own, string(layout), kinds); err != nil {
		return nil, fmt.Errorf("load the built-in templates: %w", err)
	}
	if folder != nil {
		if err := t.load(folder, string(layout), kinds); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// kindsOf are the kinds of mail: what the fallback language has.
func kindsOf(own fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(own, fallback)
	if err != nil {
		return nil, fmt.Errorf("list the built-in templates: %w", err)
	}
	var kinds []string
	for _, entry := range entries {
		kinds = append(kinds, strings.TrimSuffix(entry.Name(), extension))
	}
	return kinds, nil
}

// load adds a folder's templates, replacing existing ones.
func (t *Templates) load(folder fs.FS, layout string, kinds []string) error {
	files, err := fs.Glob(folder, "*/*"+extension)
	if err != nil {
		return fmt.Errorf("list the templates: %w", err)
	}
	top, err := fs.Glob(folder, "*"+extension)
	if err != nil {
		return fmt.Errorf("list the templates: %w", err)
	}
	var faults []error
	for _, file := range top {
		if file != layoutFile {
			faults = append(faults, fmt.Errorf("%s: a template belongs in its language's folder, such as en/%s", file, file))
		}
	}
	// The fallback first, which says which kinds have a link.
	slices.SortStableFunc(files, func(a, b string) int {
		return order(a) - order(b)
	})
	for _, file := range files {
		if err := t.add(folder, file, layout, kinds); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", file, err))
		}
	}
	return errors.Join(faults...)
}

func order(file string) int {
	if path.Dir(file) == fallback {
		return 0
	}
	return 1
}

func (t *Templates) add(folder fs.FS, file, layout string, kinds []string) error {
	kind := strings.TrimSuffix(path.Base(file), extension)
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("there is no such mail: the kinds are %s", strings.Join(kinds, ", "))
	}
	tag, err := language.Parse(path.Dir(file))
	if err != nil {
		return fmt.Errorf("the folder is not a language such as de or pt-BR")
	}
	body, err := fs.ReadFile(folder, file)
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	made, err := parse(tag.String(), layout, string(body))
	if err != nil {
		return err
	}
	original := t.byLanguage[fallback][kind]
	if original.text == nil {
		original = made
	}
	if err := made.check(original); err != nil {
		return err
	}
	key := strings.ToLower(tag.String())
	if t.byLanguage[key] == nil {
		t.byLanguage[key] = map[string]template{}
	}
	t.byLanguage[key][kind] = made
	return nil
}

// parse reads one file twice: what is HTML must be escaped, what is text must
// not.
func parse(tag, layout, body string) (template, error) {
	made := template{language: tag, text: texttemplate.New("mail"), html: htmltemplate.New("mail")}
	for _, source := range []string{layout, body} {
		if _, err := made.text.Parse(source); err != nil {
			return template{}, err
		}
		if _, err := made.html.Parse(source); err != nil {
			return template{}, err
		}
	}
	for _, part := range []string{"subject", "text", "html"} {
		if made.text.Lookup(part) == nil {
			return template{}, fmt.Errorf("it doesn't define %q", part)
		}
	}
	return made, nil
}

const (
	sampleLink = "https://example.com/link/verify#token=sample"
	sampleCode = "SMPL2345"
)

// check renders it with everything and with nothing.
func (t template) check(original template) error {
	sample := page{Email: "ada@example.com", Site: "https://example.com", Host: "example.com", Link: sampleLink, Minutes: 30}
	sample.App = sample.Host
	bare := sample
	sample.App, sample.Pages = "Example", pagesAt(sample.Site)
	sample.FirstName, sample.IPAddress, sample.UserAgent, sample.Time = "Ada", "203.0.113.7", "Firefox", "2026-01-02 03:04 UTC"
	sample.NewEmail, sample.OldEmail, sample.Code, sample.CodesLeft, sample.Provider = "new@example.com", "old@example.com", sampleCode, "9", "Google"
	for _, p := range []page{sample, bare} {
		got, err := t.render(p)
		if err != nil {
			return err
		}
		want, err := original.render(p)
		if err != nil {
			return err
		}
		switch {
		case got.Subject == "":
			return errors.New(`its "subject" is empty`)
		case hasLink(want.Text) && !hasLink(got.Text):
			return errors.New(`its "text" has no {{.Link}}`)
		case hasLink(want.HTML) && !hasLink(got.HTML):
			return errors.New(`its "html" has no {{.Link}}`)
		case hasCode(want.Text) && !hasCode(got.Text):
			return errors.New(`its "text" has no {{.Code}}`)
		case hasCode(want.HTML) && !hasCode(got.HTML):
			return errors.New(`its "html" has no {{.Code}}`)
		}
	}
	return nil
}

func hasLink(text string) bool { return strings.Contains(text, sampleLink) }

func hasCode(text string) bool { return strings.Contains(text, sampleCode) }

// Has reports whether there is a template of the kind.
func (t *Templates) Has(kind string) bool {
	_, ok := t.byLanguage[fallback][kind]
	return ok
}

// Render writes a letter in the recipient's language or the nearest that there
// is. What people choose, such as their names, can't break out of its place nor
// pass for a link.
func (t *Templates) Render(letter Letter) (Rendered, error) {
	found, ok := t.lookup(letter.Locale, letter.Kind)
	if !ok {
		return Rendered{}, fmt.Errorf("no template for the mail %q", letter.Kind)
	}
	host := letter.Site
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	var pages pageLinks
	if t.Pages {
		pages = pagesAt(letter.Site)
	}
	rendered, err := found.render(page{
		App: cmp.Or(short(t.App), host), Pages: pages,
		Email: letter.To, Site: letter.Site, Host: host, Link: letter.Link, Minutes: int(letter.LinkLife.Minutes()),
		FirstName:  name(letter.Values["first_name"]),
		IPAddress:  short(letter.Values["ip_address"]),
		UserAgent:  program(letter.Values["user_agent"]),
		Time:       moment(letter.Values["time"]),
		NewEmail:   short(letter.Values["new_email"]),
		OldEmail:   short(letter.Values["old_email"]),
		Code:       short(letter.Values["code"]),
		CodesLeft:  short(letter.Values["codes_left"]),
		Provider:   short(letter.Values["provider"]),
		KeyName:    name(letter.Values["key_name"]),
		Expires:    moment(letter.Values["expire_time"]),
		WebhookURL: short(letter.Values["webhook_url"]),
	})
	if err != nil {
		return Rendered{}, fmt.Errorf("render the mail %q in %s: %w", letter.Kind, found.language, err)
	}
	return rendered, nil
}

func (t *Templates) lookup(locale, kind string) (template, bool) {
	tag := strings.ToLower(strings.ReplaceAll(locale, "_", "-"))
	for tag != "" {
		if found, ok := t.byLanguage[tag][kind]; ok {
			return found, true
		}
		tag = tag[:max(0, strings.LastIndexByte(tag, '-'))]
		// A single letter begins an extension, and means nothing without it.
		if len(tag) > 2 && tag[len(tag)-2] == '-' {
			tag = tag[:len(tag)-2]
		}
	}
	found, ok := t.byLanguage[fallback][kind]
	return found, ok
}

func (t template) render(p page) (Rendered, error) {
	p.Language, p.Direction = t.language, direction(t.language)
	var subject, text, html strings.Builder
	if err := t.text.ExecuteTemplate(&subject, "subject", p); err != nil {
		return Rendered{}, err
	}
	if err := t.text.ExecuteTemplate(&text, "text_layout", p); err != nil {
		return Rendered{}, err
	}
	if err := t.html.ExecuteTemplate(&html, "html_layout", p); err != nil {
		return Rendered{}, err
	}
	return Rendered{
		Subject: oneLine(subject.String()), Text: strings.TrimSpace(text.String()) + "\n",
		HTML: strings.TrimSpace(html.String()) + "\n", Language: t.language,
	}, nil
}

// direction is how a language's lines run.
func direction(tag string) string {
	script, _ := language.Make(tag).Script()
	if slices.Contains([]string{"Arab", "Hebr", "Syrc", "Thaa", "Nkoo", "Adlm"}, script.String()) {
		return "rtl"
	}
	return "ltr"
}

// maxValue bounds the shown part of a value that somebody else chose.
const maxValue = 120

// short converts a value to one line of bounded length.
func short(text string) string {
	runes := []rune(oneLine(text))
	if len(runes) > maxValue {
		return string(runes[:maxValue]) + "…"
	}
	return string(runes)
}

// name removes what mail programs turn into links: anybody who registers with
// another person's email chooses the name in the mail.
func name(text string) string {
	text = short(text)
	runes := []rune(text)
	for i, r := range runes {
		if strings.ContainsRune("/\\@:<>", r) {
			return ""
		}
		if r == '.' && i+1 < len(runes) && !unicode.IsSpace(runes[i+1]) {
			return ""
		}
	}
	return text
}

// program names the program that a User-Agent is of, without what mail programs
// would make a link of: a word with a host name, an address or a path in it. What
// remains of "Mozilla/5.0 (…) Firefox/140.0" is as it was.
func program(text string) string {
	words := strings.Fields(oneLine(text))
	kept := words[:0]
	for _, word := range words {
		if !isLinkLike(word) {
			kept = append(kept, word)
		}
	}
	return short(strings.Join(kept, " "))
}

// isLinkLike reports whether mail programs may make a link of a word: it has a
// dot with a letter behind it, as host names have and version numbers don't, or
// an @, a scheme, "<" or ">", or is written in a way that no browser's name is.
func isLinkLike(word string) bool {
	if strings.ContainsAny(word, "@<>\\") || strings.Contains(word, "//") {
		return true
	}
	dot := false
	for _, r := range word {
		switch {
		case r > unicode.MaxASCII: // some scripts have dots of their own
			return true
		case dot && unicode.IsLetter(r):
			return true
		}
		dot = r == '.'
	}
	return isAddress(word)
}

// isAddress reports whether a word holds an IPv4 address that isn't a version:
// "Chrome/142.0.0.0" stays.
func isAddress(word string) bool {
	word, _, _ = strings.Cut(word, "/")
	host, _, _ := strings.Cut(strings.NewReplacer("(", "", ")", "", "[", "", "]", "").Replace(word), ":")
	_, err := netip.ParseAddr(strings.Trim(host, ";,."))
	return err == nil
}

// moment formats a time independently of the language: 2026-01-02 03:04 UTC.
func moment(text string) string {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04 UTC")
}
