package recovery

import (
	"regexp"
	"strings"
	"testing"
)

var form = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}$`)

func TestCodesAreTenAndDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		codes, hashes := New()
		if len(codes) != Count || len(hashes) != Count {
			t.Fatalf("got %d codes and %d hashes, want %d of each", len(codes), len(hashes), Count)
		}
		for i, code := range codes {
			if !form.MatchString(code) {
				t.Errorf("%q has not the form XXXX-XXXX-XXXX-XXXX in Crockford's alphabet", code)
			}
			if hash, ok := Parse(code); !ok || hash != hashes[i] {
				t.Errorf("%q does not have its own hash (%t)", code, ok)
			}
			if seen[code] {
				t.Errorf("%q was made twice", code)
			}
			seen[code] = true
		}
	}
}

func TestACodeIsReadAsPeopleTypeIt(t *testing.T) {
	t.Parallel()
	want, ok := Parse("01AB-CDEF-GHJK-MNPQ")
	if !ok {
		t.Fatal("the code is not read")
	}
	for _, text := range []string{
		"01ab-cdef-ghjk-mnpq", "01ABCDEFGHJKMNPQ", " 01AB CDEF GHJK MNPQ\n", "0-1-A-B-C-D-E-F-G-H-J-K-M-N-P-Q",
		"OIAB-CDEF-GHJK-MNPQ", "olab-cdef-ghjk-mnpq", "\t01AB-CDEF\r\nGHJK-MNPQ",
	} {
		if got, ok := Parse(text); !ok || got != want {
			t.Errorf("%q is another code than 01AB-CDEF-GHJK-MNPQ (%t)", text, ok)
		}
	}
	for _, text := range []string{
		"", "-", "01AB-CDEF-GHJK-MNP", "01AB-CDEF-GHJK-MNPQR", "01AB-CDEF-GHJK-MNPU", "01AB-CDEF-GHJK-MNP=", "０1AB-CDEF-GHJK-MNPQ",
		strings.Repeat("0", 32), "01AB_CDEF_GHJK_MNPQ",
	} {
		if _, ok := Parse(text); ok {
			t.Errorf("%q is read as a code", text)
		}
	}
	if other, _ := Parse("01AB-CDEF-GHJK-MNPR"); other == want {
		t.Error("two codes have one hash")
	}
}
