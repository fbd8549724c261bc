package webauthn_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"gatehouse/internal/webauthn"
)

func TestCheckID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ id, url, problem string }{
		{"auth.example.com", "https://auth.example.com", ""},
		{"example.com", "https://auth.example.com", ""},
		{"example.com", "https://auth.example.com:8443", ""},
		{"localhost", "http://localhost:8001", ""},
		{"localhost", "https://localhost:8001", ""},
		{"me.github.io", "https://me.github.io", ""},
		{"github.io", "https://me.github.io", "public suffix"},
		{"co.uk", "https://auth.example.co.uk", "public suffix"},
		{"com", "https://auth.example.com", "not a domain name"},
		{"ample.com", "https://auth.example.com", "neither the host"},
		{"sub.auth.example.com", "https://auth.example.com", "neither the host"},
		{"Example.com", "https://auth.example.com", "lower case"},
		{"127.0.0.1", "http://127.0.0.1:8001", "IP address"},
		{"auth.example.com", "http://auth.example.com", "not https"},
		{"intranet", "https://intranet", "not a domain name"},
	} {
		err := webauthn.CheckID(test.id, test.url)
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("CheckID(%q, %q) = %v, want %q", test.id, test.url, err, test.problem)
		}
	}
}

func TestRelatedOrigins(t *testing.T) {
	t.Parallel()
	app := "android:apk-key-hash:2jmj7l5rSw0yVb-vlWAYkK-YBwk"
	for _, test := range []struct {
		origins  []string
		document string
		refused  bool
	}{
		{[]string{"https://example.com", "https://shop.example.com", app}, "", false},
		{[]string{"https://example.com", "https://example.co.uk", "https://www.example.de"}, `{"origins":["https://example.co.uk","https://www.example.de"]}`, false},
		// One name under many suffixes counts once.
		{[]string{"https://a.co.uk", "https://a.de", "https://a.fr", "https://a.it", "https://a.es", "https://a.nl"}, `{"origins":["https://a.co.uk","https://a.de","https://a.fr","https://a.it","https://a.es","https://a.nl"]}`, false},
		{[]string{"https://a.de", "https://b.de", "https://c.de", "https://d.de", "https://e.de", "https://f.de"}, "", true},
		{[]string{"http://other.example"}, "", true},
		{[]string{"https://co.uk"}, "", true},
	} {
		got, err := webauthn.RelatedOrigins(rpID, test.origins)
		if string(got) != test.document || (err != nil) != test.refused {
			t.Errorf("RelatedOrigins(%v) = %s, %v, want %s", test.origins, got, err, test.document)
		}
	}
}

func TestNameOf(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"fbfc3007-154e-4ecc-8c0b-6e020557d7bd": "iCloud Keychain", "00000000-0000-0000-0000-000000000000": webauthn.DefaultName} {
		if got := webauthn.NameOf(uuid.MustParse(id)); got != want {
			t.Errorf("NameOf(%s) = %q, want %q", id, got, want)
		}
	}
}
