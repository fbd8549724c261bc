package pages

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// localeOf returns the language in which a page will show itself, as far as the request
// tells: a choice that the browser keeps is known to the page's script alone.
func (b *Brand) localeOf(r *http.Request) string {
	wishes := strings.Fields(r.URL.Query().Get("ui_locales"))
	accepted, _, _ := language.ParseAcceptLanguage(r.Header.Get("Accept-Language")) // none if it is malformed
	for _, tag := range accepted {
		wishes = append(wishes, tag.String())
	}
	for _, wish := range wishes {
		name, _, _ := strings.Cut(strings.ToLower(wish), "-")
		if slices.Contains(b.locales(), name) {
			return name
		}
	}
	return b.locale()
}
