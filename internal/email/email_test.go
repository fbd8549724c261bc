package email_test

import (
	"strings"
	"testing"

	"gatehouse/internal/email"
	"gatehouse/internal/email/emailtest"
)

func TestMailable(t *testing.T) {
	t.Parallel()
	for address, want := range emailtest.Addresses {
		if got := email.Mailable(email.Normalize(address)); got != want {
			t.Errorf("%q: got %t, want %t", address, got, want)
		}
	}
}

func TestNormalizeKeepsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		" Ada@EXAMPLE.com ":                   "Ada@example.com",
		"ada@M\u00dcNCHEN.example":            "ada@xn--mnchen-3ya.example",
		"no address":                          "no address",
		"a@" + strings.Repeat("\u00fc", 2000): "a@" + strings.Repeat("\u00fc", 2000),
	} {
		if got := email.Normalize(given); got != want {
			t.Errorf("%.40q: got %.40q, want %.40q", given, got, want)
		}
	}
}
