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
// is shown on pages and in the headers of mails: nothing in it may begin another line or
// turn the text around it. White space at its ends is not part of it.
func CheckName(name string) string {
	name = strings.TrimSpace(name)
	switch {
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case utf8.RuneCountInString(name) > MaxName:
		return fmt.Sprintf("is longer than %d characters", MaxName)
	case strings.ContainsFunc(name, isHarmful):
		return "has a line break, a control character, or a mark that changes the direction of text"
	}
	return ""
}

// isHarmful reports whether a character controls the line or the direction of text.
func isHarmful(r rune) bool {
	return unicode.Is(unicode.Cc, r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}
