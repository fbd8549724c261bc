package apikey_test

import (
	"crypto/rand"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"gatehouse/internal/apikey"
)

func TestAKeyIsReadAndEveryChangeOfItIsNot(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`^` + apikey.Pattern + `$`)
	for range 200 {
		id := uuid.Must(uuid.NewV7())
		var secret [32]byte
		_, _ = rand.Read(secret[:])
		text := apikey.Format(id, secret)
		if got, ok := apikey.Parse(text); !ok || got != id || !pattern.MatchString(text) {
			t.Fatalf("%s: got %s, %t, want %s and a match of %s", text, got, ok, id, pattern)
		}
		for i := range len(text) {
			for _, c := range []byte{'A', 'b', '-', '\n', text[i] ^ 0x20} {
				if changed := text[:i] + string(c) + text[i+1:]; changed != text {
					if _, ok := apikey.Parse(changed); ok {
						t.Fatalf("%q is accepted, and is not %q", changed, text)
					}
				}
			}
		}
		for _, other := range []string{"", text[1:], text[:len(text)-1], text + "\n", " " + text, text + text, text + " " + text, strings.ToUpper(text), strings.ToLower(text)} {
			if _, ok := apikey.Parse(other); ok && other != text {
				t.Fatalf("%q is accepted, and is not %q", other, text)
			}
		}
	}
}

// Scanners of other companies compute the checksum too: it must never change.
func TestTheFormatIsFixed(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse("0199f2b0-1c2d-7e3f-8a4b-5c6d7e8f9a0b")
	const want = "ghk_AZnysBwtfj-KS1xtfo-aCw_bGlrZS1hLXNlY3JldC1vZi0zMi1ieXRlcy4uLi4uLi43BaQGC" // the checksum by zlib
	if got := apikey.Format(id, [32]byte([]byte("like-a-secret-of-32-bytes......."))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
