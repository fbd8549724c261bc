package password

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Made by other implementations than those that check them here: bcryptjs 3.0.3,
// hash-wasm 4.13.0 (Argon2) and OpenSSL by way of Node's crypto (scrypt,
// PBKDF2); the last ones stand in the documentation of passlib 1.7.
var foreignHashes = map[string]struct{ hash, password string }{
	"bcrypt":             {"$2b$05$0.wUeNFL93Q4uJmxzo6pIOvigk1jpdNk9mTt.12yQ9Y1QRmXSnZTi", "correct horse battery"},
	"bcrypt of PHP":      {"$2y$05$0.wUeNFL93Q4uJmxzo6pIOvigk1jpdNk9mTt.12yQ9Y1QRmXSnZTi", "correct horse battery"},
	"bcrypt, old":        {"$2a$05$0.wUeNFL93Q4uJmxzo6pIOvigk1jpdNk9mTt.12yQ9Y1QRmXSnZTi", "correct horse battery"},
	"bcrypt of Cyrillic": {"$2b$04$QF/ulRM6mXeHqcD28ScFYO2voygNH8Ph0AtOV3b90EARRVhPDMHRm", "пароль надёжный"},
	"argon2i":            {"$argon2i$v=19$m=512,t=3,p=2$MDEyMzQ1Njc4OWFiY2RlZg$Ni12sM924VM2rUbPj+tU5QvPi3h7TZVWgD9aiSzkn38", "correct horse battery"},
	"argon2id":           {"$argon2id$v=19$m=1024,t=2,p=4$MDEyMzQ1Njc4OWFiY2RlZg$F97S9LyfF8y17QFGHCFUpGrkVqj7MW6bR8n2gLHKu5E", "correct horse battery"},
	"scrypt":             {"$scrypt$ln=10,r=8,p=2$MDEyMzQ1Njc4OWFiY2RlZg$faCG2Y2MU7gpu0yKEJONexUzhBri6oOSfKdyxUHubQ0", "correct horse battery"},
	"PBKDF2 SHA-1":       {"$pbkdf2-sha1$i=1500,l=20$MDEyMzQ1Njc4OWFiY2RlZg$GNW3UW20OZcVAv5HeoTvuVZI01s", "correct horse battery"},
	"PBKDF2 SHA-256":     {"$pbkdf2-sha256$i=1500,l=32$MDEyMzQ1Njc4OWFiY2RlZg$8jzpfkAtYmdiesTnpCyStVQCn+OFAuJ8pJ515t+CZUc", "correct horse battery"},
	"PBKDF2, no length":  {"$pbkdf2-sha256$i=1500$MDEyMzQ1Njc4OWFiY2RlZg$8jzpfkAtYmdiesTnpCyStVQCn+OFAuJ8pJ515t+CZUc", "correct horse battery"},
	"PBKDF2 SHA-512":     {"$pbkdf2-sha512$i=1500,l=64$MDEyMzQ1Njc4OWFiY2RlZg$LvyABy9wPQbX/rDtcLAN0S20CKBY04vng7YOIc8pY7VWPCMNEfZkVci8wLMRQb8GjZMnNaSl1lqstc3HpPWrqw", "correct horse battery"},
	"Django SHA-1":       {"pbkdf2_sha1$1500$0123456789abcdef$GNW3UW20OZcVAv5HeoTvuVZI01s=", "correct horse battery"},
	"Django SHA-256":     {"pbkdf2_sha256$1500$0123456789abcdef$8jzpfkAtYmdiesTnpCyStVQCn+OFAuJ8pJ515t+CZUc=", "correct horse battery"},
	"Django SHA-512":     {"pbkdf2_sha512$1500$0123456789abcdef$LvyABy9wPQbX/rDtcLAN0S20CKBY04vng7YOIc8pY7VWPCMNEfZkVci8wLMRQb8GjZMnNaSl1lqstc3HpPWrqw==", "correct horse battery"},
	"passlib's scrypt":   {"$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", "password"},
	"passlib's PBKDF2":   {"$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44", "password"},
}

func TestHashesOfOtherSystemsVerifyAndAreOutdated(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	for name, test := range foreignHashes {
		if err := Acceptable(test.hash); err != nil {
			t.Errorf("%s: %s: %v", name, test.hash, err)
			continue
		}
		right, outdated, err := h.Check(t.Context(), Caller{}, test.password, test.hash)
		if !right || !outdated || err != nil {
			t.Errorf("%s: %q for %s: right %v, outdated %v, error %v; want right and outdated", name, test.password, test.hash, right, outdated, err)
		}
		for _, wrong := range []string{"", "wrong", test.password + "x", test.password[1:], strings.ToUpper(test.password)} {
			if right, _, err := h.Check(t.Context(), Caller{}, wrong, test.hash); right || err != nil {
				t.Errorf("%s: %q for %s: right %v, error %v; want wrong", name, wrong, test.hash, right, err)
			}
		}
	}
}

func TestOurOwnHashesAreNotOutdated(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	hash, err := h.Hash(t.Context(), Caller{}, "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	if right, outdated, err := h.Check(t.Context(), Caller{}, "correct horse battery", hash); !right || outdated || err != nil {
		t.Errorf("right %v, outdated %v, error %v; want right and current", right, outdated, err)
	}
}

// Other systems hash what was typed; we, its NFKC. Either spelling is right for
// an imported hash that holds it. What isn't imported costs one hash.
func TestAnImportedPasswordIsTriedAsTypedAndNormalised(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	typed := "cafe\u0301 ﬁne horse" // decomposed, with a ligature
	ours, err := h.Hash(t.Context(), Caller{}, typed)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, typed, hash string
		right, outdated   bool
		hashes            int64
	}{
		{"imported, as typed", typed, Imported(argon2Hash(typed)), true, true, 2},
		{"imported, in NFKC", typed, Imported(argon2Hash(norm.NFKC.String(typed))), true, true, 1},
		{"imported, wrong", typed + "x", Imported(argon2Hash(typed)), false, false, 2},
		{"imported with other costs", typed, foreignHashes["bcrypt"].hash, false, false, 2},
		{"ours", typed, ours, true, false, 1},
		{"ours, wrong", typed + "x", ours, false, false, 1},
		{"no account", typed, "", false, false, 1},
	} {
		before := h.Count()
		right, outdated, err := h.Check(t.Context(), Caller{}, test.typed, test.hash)
		if right != test.right || outdated != test.outdated || err != nil || h.Count()-before != test.hashes {
			t.Errorf("%s: right %v, outdated %v, error %v, %d hashes; want %v, %v, %d hashes", test.name, right, outdated, err,
				h.Count()-before, test.right, test.outdated, test.hashes)
		}
	}
	if right, _, _ := h.Check(t.Context(), Caller{}, norm.NFKC.String(typed), argon2Hash(typed)); right {
		t.Error("the normalised password is right for a hash of another spelling")
	}
	if err := Acceptable(Imported(ours)); err != nil {
		t.Errorf("a hash as it is stored after an import: %v", err)
	}
}

func argon2Hash(password string) string {
	salt := make([]byte, saltLength)
	return encode(live, salt, argon2.IDKey([]byte(password), salt, live.passes, live.memory, live.lanes, hashLength))
}

// What costs more than the bounds isn't begun: a row can't take the machine.
func TestHashesOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	b64 := base64.RawStdEncoding.EncodeToString
	salt, hash := b64(make([]byte, 16)), b64(make([]byte, 32))
	h := NewHasher()
	for _, test := range []struct{ hash, want string }{
		{"plain", "no form"},
		{"5f4dcc3b5aa765d61d8327deb882cf99", "no form"},
		{"$1$salt$hash", "no form"},
		{"$2x$10$" + strings.Repeat("a", 53), "no form"},
		{"$2b$15$" + strings.Repeat("a", 53), "cost is 15, more than 14"},
		{"$2b$31$" + strings.Repeat("a", 53), "cost is 31, more than 14"},
		{"$2b$03$" + strings.Repeat("a", 53), "less than 4"},
		{"$2b$10$" + strings.Repeat("a", 52), "53 characters"},
		{"$2b$10$" + strings.Repeat("a", 52) + "!", "53 characters"},
		{"$argon2d$v=19$m=64,t=1,p=1$" + salt + "$" + hash, "no form"},
		{"$argon2id$m=64,t=1,p=1$" + salt + "$" + hash, "it isn't"},
		{"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + hash, "version"},
		{"$argon2id$v=19$m=131073,t=1,p=1$" + salt + "$" + hash, "m is 131073"},
		{"$argon2id$v=19$m=7,t=1,p=1$" + salt + "$" + hash, "m is 7"},
		{"$argon2id$v=19$m=131072,t=9,p=1$" + salt + "$" + hash, "t is 9"},
		{"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + hash, "t is 0"},
		{"$argon2id$v=19$m=1024,t=1,p=0$" + salt + "$" + hash, "p is 0"},
		{"$argon2id$v=19$m=1024,t=1,p=17$" + salt + "$" + hash, "p is 17"},
		{"$argon2id$v=19$m=1024,t=1,p=1,x=1$" + salt + "$" + hash, "not m, t, p"},
		{"$argon2id$v=19$t=1,m=1024,p=1$" + salt + "$" + hash, "not m, t, p"},
		{"$argon2id$v=19$m=-1,t=1,p=1$" + salt + "$" + hash, "no number"},
		{"$argon2id$v=19$m=99999999999999999999,t=1,p=1$" + salt + "$" + hash, "no number"},
		{"$argon2id$v=19$m=1024,t=1,p=1$" + salt + "$AAAA", "has 3 bytes"},
		{"$argon2id$v=19$m=1024,t=1,p=1$" + salt + "$" + b64(make([]byte, 65)), "has 65 bytes"},
		{"$argon2id$v=19$m=1024,t=1,p=1$AAAA$" + hash, "salt"},
		{"$argon2id$v=19$m=1024,t=1,p=1$A!$" + hash, "base64"},
		{"$scrypt$ln=18,r=8,p=1$" + salt + "$" + hash, "ln is 18"},
		{"$scrypt$ln=17,r=16,p=1$" + salt + "$" + hash, "ln is 17"},
		{"$scrypt$ln=60,r=1,p=1$" + salt + "$" + hash, "ln is 60"},
		{"$scrypt$ln=0,r=8,p=1$" + salt + "$" + hash, "ln is 0"},
		{"$scrypt$ln=10,r=0,p=1$" + salt + "$" + hash, "r is 0"},
		{"$scrypt$ln=10,r=1000,p=1$" + salt + "$" + hash, "r is 1000"},
		{"$scrypt$ln=10,r=8,p=9$" + salt + "$" + hash, "p is 9"},
		{"$scrypt$ln=10,r=8$" + salt + "$" + hash, "not ln, r, p"},
		{"$scrypt$ln=10,r=8,p=1$" + salt, "it isn't"},
		{"$pbkdf2-sha256$i=2000001,l=32$" + salt + "$" + hash, "iterations are 2000001"},
		{"$pbkdf2-sha1$i=1500000,l=32$" + salt + "$" + hash, "not 1 to 1000000"}, // two blocks
		{"$pbkdf2-sha256$i=0,l=32$" + salt + "$" + hash, "iterations are 0"},
		{"$pbkdf2-sha256$i=1000,l=64$" + salt + "$" + hash, "l is 64"},
		{"$pbkdf2-sha224$i=1000,l=28$" + salt + "$" + hash, "no form"},
		{"$pbkdf2-sha256$2000001$" + salt + "$" + hash, "iterations are 2000001"},
		{"pbkdf2_sha256$2000001$0123456789abcdef$" + hash, "iterations are 2000001"},
		{"pbkdf2_sha256$1000$short$" + hash, "salt"},
		{"pbkdf2_sha256$1000$" + strings.Repeat("a", 65) + "$" + hash, "salt"},
		{"pbkdf2_sha256$1000$0123456789abcdef$!", "base64"},
		{"pbkdf2_sha256$1000$0123456789abcdef", "it isn't"},
	} {
		if err := Acceptable(test.hash); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.hash, err, test.want)
			continue // to compute it could take for ever
		}
		if right, _, err := h.Check(t.Context(), Caller{}, "password", test.hash); err == nil || right {
			t.Errorf("%s: right %v, error %v; want an error", test.hash, right, err)
		}
	}
	if h.Count() != 0 {
		t.Errorf("%d hashes were computed, want none", h.Count())
	}
	for _, hash := range []string{ // at the bounds
		"$scrypt$ln=17,r=8,p=1$" + salt + "$" + hash, "$pbkdf2-sha256$i=2000000,l=32$" + salt + "$" + hash,
		"$argon2id$v=19$m=131072,t=8,p=16$" + salt + "$" + hash, "$2b$14$" + strings.Repeat("a", 53),
	} {
		if err := Acceptable(hash); err != nil {
			t.Errorf("%s: %v, want it to be acceptable", hash, err)
		}
	}
}

func TestCommonPasswordsAreKnownInAnyCase(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"123456", "password", "Password", "PASSWORD1", "qwertyuiop", "iloveyou", "1234567890", "trustno1", "sunshine", "Princess", "1qaz2wsx3edc", "ｐａｓｓｗｏｒｄ"} {
		if !Common(password) {
			t.Errorf("%q is not known to be common", password)
		}
	}
	for _, password := range []string{"", "correct horse battery", "пароль надёжный", "a quiet lighthouse keeper"} {
		if Common(password) {
			t.Errorf("%q was found to be common", password)
		}
	}
	if count := len(common) / prefixLength; count < 40_000 || len(common)%prefixLength != 0 || len(common) > 256*1024 {
		t.Errorf("the filter holds %d passwords in %d bytes, want at least 40,000 in at most 256 KiB", count, len(common))
	}
}

func TestUncommonPasswordsAreNotTakenForCommonOnes(t *testing.T) {
	t.Parallel()
	for i := range 100_000 {
		sum := sha256.Sum256(fmt.Append(nil, "uncommon", i))
		if password := base64.RawURLEncoding.EncodeToString(sum[:12]); Common(password) {
			t.Errorf("%q was found to be common", password)
		}
	}
}
