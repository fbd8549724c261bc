package totp

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"gatehouse/auth/secretkey"
)

// The secret of RFC 6238, appendix B, for SHA-1.
var appendixB = Secret([]byte("12345678901234567890"))

func TestCodesAreThoseOfTheStandard(t *testing.T) {
	t.Parallel()
	// Appendix B has eight digits; with six, they are the last six.
	for _, vector := range []struct {
		seconds int64
		eight   string
	}{
		{59, "94287082"},
		{1111111109, "07081804"},
		{1111111111, "14050471"},
		{1234567890, "89005924"},
		{2000000000, "69279037"},
		{20000000000, "65353130"},
	} {
		if got, want := appendixB.Code(vector.seconds/Period), vector.eight[2:]; got != want {
			t.Errorf("the code at %d s is %s, want %s", vector.seconds, got, want)
		}
	}
	// RFC 4226, appendix D.
	for counter, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := appendixB.Code(int64(counter)); got != want {
			t.Errorf("the code of counter %d is %s, want %s", counter, got, want)
		}
	}
}

func TestACodeMatchesTheStepsAroundTheCurrentOne(t *testing.T) {
	t.Parallel()
	const current = 37_037_036
	for distance := int64(-3); distance <= 3; distance++ {
		step, ok := appendixB.Match(appendixB.Code(current+distance), current)
		if want := distance >= -1 && distance <= 1; ok != want {
			t.Errorf("the code of step %+d matches: %t, want %t", distance, ok, want)
		} else if ok && step != current+distance {
			t.Errorf("the code of step %+d matches step %+d", distance, step-current)
		}
	}
	for _, code := range []string{"", "0", "12345", "1234567", "abcdef", "１２３４５６", appendixB.Code(current) + "0"} {
		if _, ok := appendixB.Match(code, current); ok {
			t.Errorf("%q matches", code)
		}
	}
	spaced := appendixB.Code(current)
	spaced = " " + spaced[:3] + " " + spaced[3:] + "\n"
	if _, ok := appendixB.Match(spaced, current); !ok {
		t.Errorf("%q does not match, want it to match as its digits do", spaced)
	}
}

func TestACodeOfTwoStepsMatchesTheLatest(t *testing.T) {
	t.Parallel()
	secret, step := twice(t)
	for _, current := range []int64{step, step + 1} {
		if got, ok := secret.Match(secret.Code(step), current); !ok || got != step+1 {
			t.Errorf("at step %+d the code matches step %+d (%t), want +1: otherwise it is accepted again at the next step", current-step, got-step, ok)
		}
	}
}

// twice finds a step that has the same code as the next one.
func twice(t *testing.T) (Secret, int64) {
	t.Helper()
	last := ""
	for step := int64(0); step < 100_000_000; step++ {
		code := appendixB.Code(step)
		if code == last {
			return appendixB, step - 1
		}
		last = code
	}
	t.Fatal("no two steps in a row have the same code")
	return Secret{}, 0
}

func TestTheURICarriesTheSecret(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	text := secret.URI("Example: Shop & Co", "ada+1@example.com")
	uri, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if uri.Scheme != "otpauth" || uri.Host != "totp" || uri.Path != "/Example  Shop & Co:ada+1@example.com" {
		t.Errorf("got %s, want otpauth://totp/ISSUER:ACCOUNT", text)
	}
	if strings.Contains(uri.RawQuery, "+") {
		t.Errorf("%s has a plus for a space, which apps show", text)
	}
	query := uri.Query()
	for name, want := range map[string]string{
		"secret": secret.String(), "issuer": "Example  Shop & Co", "algorithm": "SHA1", "digits": "6", "period": "30",
	} {
		if got := query.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(secret.String()) != 32 {
		t.Errorf("the secret is %q, want 32 characters of base32", secret)
	}
	if NewSecret() == secret {
		t.Error("two secrets are the same")
	}
}

func TestASecretOpensWithItsKeyForItsAccountOnly(t *testing.T) {
	t.Parallel()
	older, newer := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("n", 32))
	secret := NewSecret()
	sealed, err := secret.Seal(older, "ada")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open([][]byte{newer, older}, "ada", sealed); err != nil || got != secret {
		t.Errorf("open with the newer and the older key: %v, %v", got, err)
	}
	for name, open := range map[string]func() (Secret, error){
		"another key":     func() (Secret, error) { return Open([][]byte{newer}, "ada", sealed) },
		"another account": func() (Secret, error) { return Open([][]byte{older}, "bob", sealed) },
	} {
		if _, err := open(); !errors.Is(err, secretkey.ErrSealed) {
			t.Errorf("open for %s: %v, want %v", name, err, secretkey.ErrSealed)
		}
	}
}
