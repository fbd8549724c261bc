package opaque

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

func TestATokenHasOneSpelling(t *testing.T) {
	t.Parallel()
	for length := range 70 {
		raw := make([]byte, length)
		for i := range raw {
			raw[i] = byte(37*i + length)
		}
		text := Encode("ghx_", raw)
		if got, ok := Decode("ghx_", text); !ok || !bytes.Equal(got, raw) {
			t.Fatalf("Decode(%q) = %x, %v, want %x", text, got, ok, raw)
		}
		for name, other := range otherSpellings("ghx_", text) {
			if got, ok := Decode("ghx_", other); ok && bytes.Equal(got, raw) {
				t.Errorf("%d bytes, %s: %q was decoded like %q", length, name, other, text)
			}
		}
	}
}

// otherSpellings are texts that a lenient reader takes for the token.
func otherSpellings(prefix, text string) map[string]string {
	body := strings.TrimPrefix(text, prefix)
	others := map[string]string{
		"padded": text + "=", "padded twice": text + "==", "no prefix": body, "upper-case prefix": strings.ToUpper(prefix) + body,
		"standard alphabet": prefix + strings.NewReplacer("-", "+", "_", "/").Replace(body),
	}
	for _, space := range []string{"\n", "\r", "\r\n", " ", "\t", "\v", "\f", "\x00", "\u00a0", "\u2028"} {
		others["space behind "+space], others["space before "+space] = text+space, space+text
		others["space behind the prefix "+space] = prefix + space + body
		others["space within "+space] = prefix + body[:len(body)/2] + space + body[len(body)/2:]
	}
	if body != "" {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, body[len(body)-1])
		for spare := 1; spare < 16; spare++ {
			others["spare bits "+string(alphabet[last^spare])] = text[:len(text)-1] + string(alphabet[last^spare])
		}
	}
	for name, other := range others {
		if other == text {
			delete(others, name)
		}
	}
	return others
}

func FuzzDecodeTakesOnlyWhatEncodeGives(f *testing.F) {
	for _, seed := range []string{"", "ghx_", "ghx_AAAA", "ghx_AAAA\n", "ghx_AB", "ghx_\r", "ghx_AA=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		raw, ok := Decode("ghx_", text)
		if ok && Encode("ghx_", raw) != text {
			t.Errorf("Decode(%q) gave %x, whose spelling is %q", text, raw, Encode("ghx_", raw))
		}
		lenient, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(text, "ghx_"))
		if canonical := strings.HasPrefix(text, "ghx_") && err == nil && !strings.ContainsAny(text, "\r\n"); ok != canonical {
			t.Errorf("Decode(%q) = %x, %v, want accepted: %v (%x)", text, raw, ok, canonical, lenient)
		}
	})
}
