package pages

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestANameOfAProductStaysInItsLine(t *testing.T) {
	t.Parallel()
	for name, problem := range map[string]string{
		"":                         "",
		"Loom":                     "",
		"Café & Söhne":             "",
		`Loom "the" <Weaver>`:      "",
		"織機 🧵":                     "",
		"می\u200cخواهم":            "",
		"👩\u200d🔧":                 "",
		strings.Repeat("ü", 64):    "",
		strings.Repeat("ü", 65):    "longer than 64",
		"Loom\r\nBcc: a@b.example": "line break",
		"Loom\nLoom":               "line break",
		"Loom\tLoom":               "control character",
		"Loom\x00":                 "control character",
		"Loom\x7f":                 "control character",
		"Loom\u0085Loom":           "control character",
		"Loom\u2028Loom":           "line break",
		"\u202emooL":               "direction",
		"Loom\u200f":               "direction",
		"\u2066Loom\u2069":         "direction",
		"Loom\u061c":               "direction",
		"Lo\u00adom":               "",
		"\ufeffLoom":               "",
		"Loom \ue000":              "",
		" Loom":                    "",
		"Loom \n":                  "",
		"Loom\xff":                 "UTF-8",
		"=?utf-8?q?Loom?=":         "",
	} {
		got := CheckName(name)
		if (got == "") != (problem == "") || !strings.Contains(got, problem) {
			t.Errorf("%q: got %q, want %q", name, got, problem)
		}
		facts, err := json.Marshal(map[string]string{"name": name})
		if err != nil {
			t.Fatal(err)
		}
		_, err = LoadBrand(write(t, map[string]string{"brand.json": string(facts)}))
		if (err == nil) != (problem == "") && problem != "UTF-8" {
			t.Errorf("%q as the name of a brand: %v", name, err)
		}
	}
}
