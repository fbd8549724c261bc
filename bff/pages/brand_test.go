package pages

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// write writes the files of a brand into a folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

const logo = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path d="M0 0h4v4z"/></svg>`

func TestABrandIsRead(t *testing.T) {
	t.Parallel()
	brand, err := LoadBrand(write(t, map[string]string{
		"brand.json":    `{"name": "Loom", "links": [{"name": "Terms", "url": "https://loom.example/terms"}], "locales": ["de", "en"], "locale": "de"}`,
		"logo.svg":      logo,
		"brand.css":     "/* ours */\n:root {\n  --gh-accent: #5B21B6;\n  --gh-accent-hover: #4C1D95;\n  --gh-radius: 4px;\n}\n@media (prefers-color-scheme: dark) {\n  :root { --gh-accent: #C4B5FD; --gh-accent-hover: #DDD6FE }\n}\n",
		"texts.de.json": `{"sign_in.title": "Willkommen bei {app}"}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if brand.Name != "Loom" || brand.locale() != "de" || len(brand.Links) != 1 || brand.path("logo.svg") == "" || brand.textPaths()["de"] == "" {
		t.Errorf("got %+v", brand)
	}
	want := "@media not (prefers-color-scheme: dark) { :root { --gh-accent: #5B21B6; --gh-accent-hover: #4C1D95; --gh-radius: 4px; } }\n" +
		"@media (prefers-color-scheme: dark) { :root { --gh-accent: #C4B5FD; --gh-accent-hover: #DDD6FE; } }\n"
	if got := string(brand.files["brand.css"]); got != want {
		t.Errorf("brand.css: got\n%s\nwant\n%s", got, want)
	}
}

func TestMistakesOfABrandNameFileAndLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, text, want string }{
		{"brand.css", ":root { --gh-accent: url(https://evil.example/) }", `brand.css:1: --gh-accent: "url`},
		{"brand.css", ":root {\n --gh-shadow-card: url(//evil.example) }", `brand.css:2: --gh-shadow-card`},
		{"brand.css", "\n\ninput[value^=a] { background: red }", `brand.css:3: "input[value^=a]" is refused`},
		{"brand.css", "@import 'https://evil.example/x.css';", `brand.css:1: "@import`},
		{"brand.css", ":root { color: red }", `brand.css:1: "color" is not a property`},
		{"brand.css", ":root { --gh-other: #000000 }", `brand.css:1: "--gh-other" is not a property`},
		{"brand.css", ":root, body { --gh-accent: #5B21B6 }", `brand.css:1: ":root, body" is refused`},
		{"brand.css", ":root { --gh-accent: #5B21B6", `brand.css:1: a block has no }`},
		{"brand.css", ":root { --gh-accent: var(--gh-danger) }", `is not a colour`},
		{"brand.css", ":root { --gh-accent: #5B21B6; } </style><script>", `brand.css:1: "</style><script>" has no {`},
		{"brand.css", ":root { --gh-radius: expression(1) }", `--gh-radius`},
		{"brand.css", ":root { --gh-radius: 4px\\; }", `--gh-radius`},
		{"brand.css", "@font-face { src: url(x) }", `"@font-face" is refused`},
		{"brand.css", "@media print { :root { --gh-bg: #FFFFFF } }", `"@media print" is refused`},
		{"brand.css", "@media (prefers-color-scheme: dark) { :root { --gh-bg: #000000 } a { } }", `may hold one :root alone`},
		{"brand.css", "@media (prefers-color-scheme: dark) { a { } }", `it may hold :root alone`},
		{"brand.css", ":root {\n  --gh-text: #CCCCCC;\n}", `light theme: the contrast of --gh-text on --gh-bg is 1.`},
		{"brand.css", "@media (prefers-color-scheme: dark) { :root { --gh-muted: #333333 } }", `dark theme: the contrast of --gh-muted`},
		{"brand.json", "{\n\"name\": \"Loom\",\n\"colour\": 1}", `brand.json:3: json: unknown field "colour"`},
		{"brand.json", "{\n\"name\": 5}", `brand.json:2:`},
		{"brand.json", "{\n", `brand.json:`},
		{"brand.json", `{"links": [{"name": "x", "url": "javascript:alert(1)"}]}`, `brand.json:1: link "x"`},
		{"brand.json", `{"locales": ["xx"]}`, `brand.json:1: locale "xx"`},
		{"brand.json", `{"locales": ["en"], "locale": "de"}`, `locale "de" is not among locales`},
		{"logo.svg", "<svg>\n<script>alert(1)</script></svg>", `logo.svg:2: a logo has no script`},
		{"logo.svg", `<svg onload="alert(1)"/>`, `logo.svg:1: a logo has no attribute onload`},
		{"logo.svg", `<svg><use href="https://evil.example/x.svg#a"/></svg>`, `a logo has no attribute href`},
		{"logo.svg", "<html/>", `the first element is html`},
		{"logo.svg", "", `holds no picture`},
		{"texts.de.json", "{\n\"sign_in.titel\": \"x\"}", `texts.de.json:2: there is no text "sign_in.titel"`},
		{"texts.de.json", "{\n\"sign_in.title\": 5}", `texts.de.json:2:`},
		{"texts.xx.json", "{}", `texts.xx.json:1: the pages have no texts in "xx"`},
		{"theme.css", "", `theme.css:1: a brand has brand.json`},
	} {
		_, err := LoadBrand(write(t, map[string]string{test.file: test.text}))
		var mistakes Mistakes
		if !errors.As(err, &mistakes) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %q: got %v, want %s", test.file, test.text, err, test.want)
		}
	}
}

func TestAllMistakesOfABrandAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := LoadBrand(write(t, map[string]string{"brand.css": ":root { color: red; width: 1px }", "texts.en.json": `{"no": "x"}`}))
	var mistakes Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) != 3 {
		t.Errorf("got %v, want three mistakes", err)
	}
}

// The colours that the contrast of a brand is computed with are those of the pages, and
// they can be read themselves.
func TestOurColoursHaveContrast(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../web/pages/src/styles/tokens.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, _ := strings.Cut(string(text), "@media")
	for name, theme := range map[string]struct {
		css    string
		colour map[string]string
	}{"light": {light, lightTheme}, "dark": {dark, darkTheme}} {
		for token, colour := range theme.colour {
			if !regexp.MustCompile(regexp.QuoteMeta(token) + `: ` + colour + `;`).MatchString(theme.css) {
				t.Errorf("%s theme: tokens.css does not have %s: %s", name, token, colour)
			}
		}
		for _, p := range pairs {
			if got := contrast(theme.colour[p.front], theme.colour[p.back]); got < p.least-rounding {
				t.Errorf("%s theme: the contrast of %s on %s is %.2f, want at least %.1f", name, p.front, p.back, got, p.least)
			}
		}
	}
}

// The sizes of the type in rem, at 16 px: captions, tables and help, body, and the three
// headings.
var typeScale = []string{".75rem", ".875rem", "1rem", "1.25rem", "1.5rem", "1.875rem", "100%", "inherit"}

// Components take the sizes of their type from the scale.
func TestComponentsUseTheTypeScaleAlone(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../web/pages/src/styles/*.css")
	if err != nil || len(files) < 4 {
		t.Fatalf("got %v, %v", files, err)
	}
	size := regexp.MustCompile(`(?:font-size: |font: \d+ )([^;}/ ]+)`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range size.FindAllStringSubmatch(string(text), -1) {
			found++
			if !slices.Contains(typeScale, match[1]) {
				t.Errorf("%s: %q is not a size of the scale %v", file, match[0], typeScale)
			}
		}
	}
	if found < 20 {
		t.Fatalf("found %d sizes, want those of all components", found)
	}
}

// What the style sheets set is among what a brand may set, so that no component has
// colours of its own.
func TestComponentsUseTokensAlone(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../web/pages/src/styles/*.css")
	if err != nil || len(files) < 4 {
		t.Fatalf("got %v, %v", files, err)
	}
	colour := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range regexp.MustCompile(`--gh-[a-z-]+`).FindAllString(string(text), -1) {
			if _, known := brandTokens[token]; !known {
				t.Errorf("%s: %s is no token", file, token)
			}
		}
		if filepath.Base(file) == "tokens.css" {
			continue
		}
		for _, found := range colour.FindAllString(string(text), -1) {
			if found != "#fff" { // the margin of the QR code, in both themes
				t.Errorf("%s: the colour %s is not a token", file, found)
			}
		}
	}
}
