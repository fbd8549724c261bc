package users

import (
	"gatehouse/internal/fault"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain refuses text that isn't valid UTF-8 or contains control characters.
func plain(field, text string) error {
	if !utf8.ValidString(text) {
		return fault.Invalid(fault.ReasonInvalid, field, "must be valid UTF-8")
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return fault.Invalid(fault.ReasonInvalid, field, "must not contain control characters")
	}
	return nil
}

// storable refuses only text that Postgres can't store. auth retries a refused
// delivery forever, so any other text that auth accepts is accepted.
func storable(field, text string) error {
	if !utf8.ValidString(text) {
		return fault.Invalid(fault.ReasonInvalid, field, "must be valid UTF-8")
	}
	if strings.ContainsRune(text, 0) {
		return fault.Invalid(fault.ReasonInvalid, field, "must not contain the NUL character")
	}
	return nil
}
