package pages

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest name of a product, in characters.
const MaxName = 64

// CheckName returns what is wrong with the name of a product; empty for nothing. The name
// is shown on pages and in the headers of mails, so each of its characters can be seen.
func CheckName(name string) string {
	switch {
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case utf8.RuneCountInString(name) > MaxName:
		return fmt.Sprintf("is longer than %d characters", MaxName)
	case strings.TrimSpace(name) != name:
		return "begins or ends with white space"
	case strings.Contains(name, "=?"):
		return `has "=?", which begins an encoded word in the headers of mails (RFC 2047)`
	case strings.ContainsFunc(name, isHidden):
		return "has a line break, a control character, or a mark that changes the direction of text"
	}
	return ""
}

// isHidden reports whether a character shows nothing. The two joiners change the shape of
// their neighbours: Persian words and some emoji need them.
func isHidden(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	return !unicode.IsGraphic(r) && r != nonJoiner && r != joiner
}
