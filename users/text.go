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
		return fault.Invalid(fault.ReasonInvalid, field, "must not hold control characters")
	}
	return nil
}

// storable refuses only text that Postgres can't store. The relay retries for ever
// what is refused here, so everything else that auth accepts is accepted.
func storable(field, text string) error {
	if !utf8.ValidString(text) {
		return fault.Invalid(fault.ReasonInvalid, field, "must be valid UTF-8")
	}
	if strings.ContainsRune(text, 0) {
		return fault.Invalid(fault.ReasonInvalid, field, "must not hold the NUL character")
	}
	return nil
}
