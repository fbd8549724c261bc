package pages

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The style sheet of a brand is not the browser's CSS: attribute selectors and url() can
// tell another site what a page holds. It is a list of custom properties in ":root", and
// in ":root" of the dark theme. What is served is written again from what was understood.

// brandTokens are the properties that a brand may set, and whether each is a colour.
var brandTokens = map[string]bool{
	"--gh-bg": true, "--gh-surface": true, "--gh-sunken": true, "--gh-line": true, "--gh-control": true, "--gh-text": true, "--gh-muted": true,
	"--gh-accent": true, "--gh-accent-hover": true, "--gh-on-accent": true, "--gh-danger": true, "--gh-on-danger": true, "--gh-danger-bg": true,
	"--gh-success": true, "--gh-success-bg": true, "--gh-warning": true, "--gh-warning-bg": true, "--gh-info-bg": true, "--gh-focus": true,
	"--gh-radius": false, "--gh-shadow-card": false, "--gh-shadow-dialog": false,
}

var (
	hexColour = regexp.MustCompile(`^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)
	// measure is what radii and shadows are made of: lengths and colours.
	measure    = regexp.MustCompile(`^(-?\d{1,4}(\.\d{1,4})?(px|rem)?|none|inset|#[0-9a-fA-F]{3,8}|rgb\(\d{1,3} \d{1,3} \d{1,3}( / \d{1,3}%)?\)|,)$`)
	darkQuery  = regexp.MustCompile(`^@media\s*\(\s*prefers-color-scheme\s*:\s*dark\s*\)$`)
	rgbSpacing = regexp.MustCompile(`rgb\([^)]*\)`)
)

// cssReader reads the text of a style sheet, without its comments.
type cssReader struct {
	file     string
	rest     string
	line     int
	mistakes *Mistakes
}

// parseBrandCSS returns a style sheet with the custom properties of a brand's.
func parseBrandCSS(file string, text []byte, mistakes *Mistakes) []byte {
	r := &cssReader{file: file, rest: withoutComments(string(text)), line: 1, mistakes: mistakes}
	before := len(*mistakes)
	light, dark := map[string]string{}, map[string]string{}
	for r.skip(); r.rest != ""; r.skip() {
		line := r.line
		switch head, ok := r.until("{"); {
		case !ok:
			mistakes.add(file, line, "%q has no {", short(head))
			return nil
		case head == ":root":
			r.properties(light)
		case darkQuery.MatchString(head):
			r.skip()
			if inner, ok := r.until("{"); !ok || inner != ":root" {
				mistakes.add(file, line, "the dark theme holds %q; it may hold :root alone", short(inner))
				return nil
			}
			r.properties(dark)
			r.skip()
			if !strings.HasPrefix(r.rest, "}") {
				mistakes.add(file, r.line, "the dark theme may hold one :root alone")
				return nil
			}
			r.rest = r.rest[1:]
		default:
			mistakes.add(file, line, "%q is refused: a brand sets custom properties in :root and in @media (prefers-color-scheme: dark) { :root }", short(head))
			return nil
		}
	}
	if len(*mistakes) == before {
		checkContrast(file, light, dark, mistakes)
	}
	return fmt.Appendf(nil, "@media not (prefers-color-scheme: dark) { :root {%s} }\n@media (prefers-color-scheme: dark) { :root {%s} }\n", declarations(light), declarations(dark))
}

// withoutComments replaces comments by the line ends in them, so that lines keep their
// numbers.
func withoutComments(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "/*")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		comment, rest, _ := strings.Cut(after, "*/")
		b.WriteString(" " + strings.Repeat("\n", strings.Count(comment, "\n")))
		text = rest
	}
}

func (r *cssReader) skip() {
	trimmed := strings.TrimLeft(r.rest, " \t\r\n")
	r.line += strings.Count(r.rest[:len(r.rest)-len(trimmed)], "\n")
	r.rest = trimmed
}

// until returns the text before a mark, and reads both.
func (r *cssReader) until(mark string) (string, bool) {
	before, after, found := strings.Cut(r.rest, mark)
	r.line += strings.Count(before, "\n")
	r.rest = after
	return strings.TrimSpace(before), found
}

// properties reads declarations up to the closing brace.
func (r *cssReader) properties(into map[string]string) {
	for {
		r.skip()
		if rest, closed := strings.CutPrefix(r.rest, "}"); closed {
			r.rest = rest
			return
		}
		line := r.line
		end := strings.IndexAny(r.rest, ";}")
		if end < 0 {
			r.mistakes.add(r.file, line, "a block has no }")
			r.rest = ""
			return
		}
		declaration := r.rest[:end]
		r.line += strings.Count(declaration, "\n")
		r.rest = strings.TrimPrefix(r.rest[end:], ";")
		name, value, _ := strings.Cut(declaration, ":")
		name, value = strings.TrimSpace(name), strings.Join(strings.Fields(value), " ")
		isColour, known := brandTokens[name]
		switch {
		case !known:
			r.mistakes.add(r.file, line, "%q is not a property that a brand may set", short(name))
		case isColour && !hexColour.MatchString(value):
			r.mistakes.add(r.file, line, "%s: %q is not a colour such as #1F5FD6", name, short(value))
		case !isColour && !isMeasure(value):
			r.mistakes.add(r.file, line, "%s: %q is not made of lengths and colours", name, short(value))
		}
		into[name] = value
	}
}

// isMeasure reports whether a value is made of lengths and colours.
func isMeasure(value string) bool {
	if value == "" || len(value) > 200 {
		return false
	}
	for _, colour := range rgbSpacing.FindAllString(value, -1) {
		if !measure.MatchString(colour) {
			return false
		}
	}
	words := strings.Fields(strings.ReplaceAll(rgbSpacing.ReplaceAllString(value, "#000"), ",", " , "))
	return !slices.ContainsFunc(words, func(word string) bool { return !measure.MatchString(word) })
}

func short(text string) string {
	if runes := []rune(text); len(runes) > 40 {
		return string(runes[:40]) + "…"
	}
	return text
}

// declarations returns the properties in the order of their names.
func declarations(properties map[string]string) string {
	var b strings.Builder
	for _, name := range sortedKeys(properties) {
		fmt.Fprintf(&b, " %s: %s;", name, properties[name])
	}
	return b.String() + " "
}
