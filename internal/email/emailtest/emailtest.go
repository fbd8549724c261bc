// Package emailtest holds addresses that everything which takes one is to agree
// about.
package emailtest

import "strings"

var label = strings.Repeat("d", 60)

// Addresses says of each whether an account may be given it.
var Addresses = map[string]bool{
	"ada@example.com":                               true,
	"Ada.Lovelace+news@example.com":                 true,
	"admin@localhost":                               true,
	"o'neil_{1}@example.co.uk":                      true,
	"ada@xn--mnchen-3ya.example":                    true,
	"ada@1and1.example":                             true,
	strings.Repeat("a", 64) + "@example.com":        true,
	"a@" + strings.Repeat(label+".", 4) + "example": true,

	"":                      false,
	"ada":                   false,
	"@example.com":          false,
	"ada@":                  false,
	".ada@example.com":      false,
	"ada.@example.com":      false,
	"a..b@example.com":      false,
	".@example.com":         false,
	"ada@@example.com":      false,
	"a b@example.com":       false,
	`"a b"@example.com`:     false,
	"Ada <ada@example.com>": false,
	"ad\u00e4@example.com":  false,
	"ada@example..com":      false,
	"ada@.example.com":      false,
	"ada@example.com.":      false,
	"ada@-example.com":      false,
	"ada@example-.com":      false,
	"ada@exa_mple.com":      false,
	"ada@[192.0.2.1]":       false,
	"ada@192.0.2.1":         false,
	"ada@example.123":       false,
	"ada@" + strings.Repeat("d", 64) + ".com":         false,
	strings.Repeat("a", 65) + "@example.com":          false,
	"ad@" + strings.Repeat(label+".", 4) + "examples": false,
}
