package pages

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Brand is a product's look: its name, logo, colours and texts. [LoadBrand] reads it from
// a folder. The zero value is ours.
type Brand struct {
	// Name is the product's name; empty if the folder has none.
	Name string
	// Links are shown below the pages, such as terms and privacy.
	Links []Link

	offered  []string // languages
	fallback string   // the language of people whose languages are not offered
	files    map[string][]byte
	version  string
}

// Link is a link below the pages.
type Link struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// ourLocales are the languages that the pages have complete texts in.
var ourLocales = []string{"en", "de"}

// Mistakes are all mistakes of a brand's files, each with its file and line.
type Mistakes []string

func (m Mistakes) Error() string { return strings.Join(m, "\n") }

func (m *Mistakes) add(file string, line int, problem string, values ...any) {
	*m = append(*m, file+":"+strconv.Itoa(line)+": "+fmt.Sprintf(problem, values...))
}

// maxBrandFile bounds each file of a brand.
const maxBrandFile = 256 << 10

// brandFile is the name of a file that a brand's folder may have.
var brandFile = regexp.MustCompile(`^(brand\.json|logo\.svg|brand\.css|texts\.([a-z]{2})\.json)$`)

// LoadBrand reads and checks the files of a brand: brand.json, logo.svg, brand.css and
// texts.LANGUAGE.json, each of which may be absent. It returns all mistakes at once, as
// [Mistakes].
func LoadBrand(folder string) (*Brand, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	b := &Brand{files: map[string][]byte{}}
	var mistakes Mistakes
	sum := sha256.New()
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		matched := brandFile.FindStringSubmatch(name)
		if matched == nil {
			mistakes.add(name, 1, "a brand has brand.json, logo.svg, brand.css and texts.LANGUAGE.json; remove this file")
			continue
		}
		text, err := readBrandFile(path.Join(folder, name))
		if err != nil {
			mistakes.add(name, 1, "%v", err)
			continue
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
		b.take(name, matched[2], text, &mistakes)
	}
	if b.fallback != "" && !slices.Contains(b.locales(), b.fallback) {
		mistakes.add("brand.json", 1, "locale %q is not among locales", b.fallback)
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	b.version = hex.EncodeToString(sum.Sum(nil)[:8])
	return b, nil
}

func readBrandFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("is not a regular file"))
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBrandFile+1))
	if err == nil && len(text) > maxBrandFile {
		err = fmt.Errorf("is larger than %d KiB", maxBrandFile>>10)
	}
	return text, err
}

// take checks a file and keeps what it holds.
func (b *Brand) take(name, locale string, text []byte, mistakes *Mistakes) {
	switch {
	case locale != "":
		b.takeTexts(name, text, mistakes)
	case name == "brand.json":
		b.takeFacts(text, mistakes)
	case name == "brand.css":
		b.files[name] = parseBrandCSS(name, text, mistakes)
	case name == "logo.svg":
		b.files[name] = text
		checkSVG(name, text, mistakes)
	}
}

// takeFacts reads brand.json.
func (b *Brand) takeFacts(text []byte, mistakes *Mistakes) {
	var facts struct {
		Name    string   `json:"name"`
		Links   []Link   `json:"links"`
		Locales []string `json:"locales"`
		Locale  string   `json:"locale"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&facts); err != nil {
		mistakes.add("brand.json", lineOf(text, err, decoder.InputOffset()), "%v", err)
		return
	}
	if problem := CheckName(facts.Name); problem != "" {
		mistakes.add("brand.json", lineWith(text, `"name"`), "name %s", problem)
	}
	for _, link := range facts.Links {
		parsed, err := url.Parse(link.URL)
		if err != nil || link.Name == "" || parsed.Scheme != "https" && parsed.Scheme != "http" && parsed.Scheme != "mailto" {
			mistakes.add("brand.json", lineWith(text, link.URL), "link %q needs a name and a url that begins with https://, http:// or mailto:", link.Name)
		}
	}
	for _, locale := range facts.Locales {
		if !slices.Contains(ourLocales, locale) {
			mistakes.add("brand.json", lineWith(text, `"`+locale+`"`), "locale %q is not one of %s", locale, strings.Join(ourLocales, ", "))
		}
	}
	b.Name, b.Links, b.offered, b.fallback = strings.TrimSpace(facts.Name), facts.Links, facts.Locales, facts.Locale
}

// takeTexts reads the texts that replace ours in one language.
func (b *Brand) takeTexts(name string, text []byte, mistakes *Mistakes) {
	texts := map[string]string{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&texts); err != nil {
		mistakes.add(name, lineOf(text, err, decoder.InputOffset()), "%v", err)
		return
	}
	keys := embedded().keys
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		if !keys[key] {
			mistakes.add(name, lineWith(text, `"`+key+`"`), "there is no text %q", key)
		}
	}
	if locale := brandFile.FindStringSubmatch(name)[2]; !slices.Contains(ourLocales, locale) {
		mistakes.add(name, 1, "the pages have no texts in %q", locale)
	}
	b.files[name], _ = json.Marshal(texts) // strings can be encoded
}

// checkSVG refuses a logo that is no picture, or more than one. Browsers run no script of
// an image; a person who opens it alone does not get one either.
func checkSVG(name string, text []byte, mistakes *Mistakes) {
	decoder := xml.NewDecoder(bytes.NewReader(text))
	depth := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := decoder.InputPos()
		if err != nil {
			mistakes.add(name, line, "%v", err)
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		depth++
		element := strings.ToLower(start.Name.Local)
		if depth == 1 && element != "svg" {
			mistakes.add(name, line, "the first element is %s, not svg", element)
			return
		}
		if element == "script" || element == "foreignobject" {
			mistakes.add(name, line, "a logo has no %s", element)
		}
		for _, attribute := range start.Attr {
			if key := strings.ToLower(attribute.Name.Local); strings.HasPrefix(key, "on") || key == "href" && !strings.HasPrefix(attribute.Value, "#") && !strings.HasPrefix(attribute.Value, "data:image/") {
				mistakes.add(name, line, "a logo has no attribute %s", attribute.Name.Local)
			}
		}
	}
	if depth == 0 {
		mistakes.add(name, 1, "holds no picture")
	}
}

// lineOf returns the line of an error of JSON.
func lineOf(text []byte, err error, offset int64) int {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	if unknown, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return lineWith(text, unknown)
	}
	return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
}

// lineWith returns the first line that has a text.
func lineWith(text []byte, part string) int {
	return 1 + bytes.Count(text[:max(0, bytes.Index(text, []byte(part)))], []byte("\n"))
}

func (b *Brand) locales() []string {
	if len(b.offered) == 0 {
		return ourLocales
	}
	return b.offered
}

func (b *Brand) locale() string {
	if b.fallback == "" {
		return b.locales()[0]
	}
	return b.fallback
}

// brandRoot is the path below which the files of the brand are served, with a hash of
// them all, so that a browser may keep them for ever.
const brandRoot = "/assets/brand/"

// path returns where a file is served; empty if the brand does not have it.
func (b *Brand) path(name string) string {
	if _, ok := b.files[name]; !ok {
		return ""
	}
	return brandRoot + b.version + "/" + name
}

// textPaths returns where the texts are served, by language.
func (b *Brand) textPaths() map[string]string {
	paths := map[string]string{}
	for name := range b.files {
		if matched := brandFile.FindStringSubmatch(name); matched[2] != "" {
			paths[matched[2]] = b.path(name)
		}
	}
	return paths
}

// serveBrand serves a file of the brand.
func (h *Handler) serveBrand(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	header := w.Header()
	header.Set("Content-Type", mediaType(name))
	header.Set("Cache-Control", "public, max-age=31536000, immutable")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	_, _ = w.Write(h.config.Brand.files[name])
}
