package pages

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A page loads the texts of its language with its scripts, and not after them.
func TestAPageLoadsItsTextsWithItsScripts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		brand        Brand
		query, wants string
		language     string
	}{
		"no wish":                 {Brand{}, "", "", "en"},
		"the browser's language":  {Brand{}, "", "de-AT,de;q=0.9,en;q=0.8", "de"},
		"the one that it prefers": {Brand{}, "", "en;q=0.5,de;q=0.9", "de"},
		"one that there is not":   {Brand{}, "", "fr-FR,fr;q=0.9", "en"},
		"a wish in the address":   {Brand{}, "?ui_locales=fr+de", "en", "de"},
		"no language":             {Brand{}, "", ";;q=,-", "en"},
		"the brand's own":         {Brand{fallback: "de", offered: []string{"de"}}, "", "en", "de"},
	} {
		handler := NewHandler(Config{Brand: &test.brand})
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/sign-in"+test.query, http.NoBody)
		request.Header.Set("Accept-Language", test.wants)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		for _, language := range []string{"en", "de"} {
			file := embedded().texts[language]
			if len(embedded().files[file]) == 0 {
				t.Fatalf("the bundle has no texts of %s", language)
			}
			link := `<link rel="modulepreload" href="` + assetsRoot + file + `">`
			if got := strings.Contains(recorder.Body.String(), link); got != (language == test.language) {
				t.Errorf("%s: the page loads the texts of %s: %t", name, language, got)
			}
		}
	}
}
