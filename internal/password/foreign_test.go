package password

import (
	"strings"
	"testing"
)

// The parameters of Firebase's sample project, and the hash of its sample account
// (github.com/firebase/scrypt, README).
const (
	firebaseSigner = "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="
	firebaseHash   = "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="
	firebaseSample = "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=" + firebaseSigner + "$42xEC+ixf3L2lw==$" + firebaseHash
)

// Made by Django 3.2 with argon2-cffi 21.1 and bcrypt 3.2, and for scrypt by Python's hashlib
// as Django 5 calls it.
var frameworkHashes = map[string]struct{ hash, password string }{
	"Firebase":             {firebaseSample, "user1password"},
	"Django argon2":        {"argon2$argon2id$v=19$m=102400,t=2,p=8$ejJHSzFibTVEeWhSYXdmdklPcDJ2VQ$uAZtM63hVJo3cfGF3OF4rQ", "correct horse battery"},
	"Django scrypt":        {"scrypt$16384$q7Jd0PzYc1mWn3Xk5Rv8Tb$8$5$JwKu1xpvoNLSekZkrN80k/DEz3K3ZR2VSM5ND9hsQ1PrW6VwpfqY6MZixqm6NlC/7VSKdvuki79nA/RmjnDasQ==", "correct horse battery"},
	"Django bcrypt":        {"bcrypt$$2b$04$uTmpkJTWMbrClp8Cx7jAYuusU2YmxqFvVS/JNDHtNYVcCUumziXXa", "correct horse battery"},
	"Django bcrypt_sha256": {"bcrypt_sha256$$2b$04$7S2Ospvk.4N03/LMryE2GOItAYnSYhpwNBmS1mQypBfMC8mZf4qTu", "correct horse battery"},
}

func TestHashesOfFirebaseAndDjangoVerifyAndAreOutdated(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	for name, test := range frameworkHashes {
		if err := Acceptable(test.hash); err != nil {
			t.Errorf("%s: %s: %v", name, test.hash, err)
			continue
		}
		right, outdated, err := h.Check(t.Context(), Caller{}, test.password, Imported(test.hash))
		if !right || !outdated || err != nil {
			t.Errorf("%s: right %v, outdated %v, error %v; want right and outdated", name, right, outdated, err)
		}
		if right, _, err := h.Check(t.Context(), Caller{}, test.password+"x", test.hash); right || err != nil {
			t.Errorf("%s: with another password: right %v, error %v; want wrong", name, right, err)
		}
	}
}

func TestUnboundedHashesOfFirebaseAndDjangoAreRefused(t *testing.T) {
	t.Parallel()
	change := func(from, to string) string { return strings.Replace(firebaseSample, from, to, 1) }
	django := frameworkHashes["Django scrypt"].hash
	for _, test := range []struct{ hash, want string }{
		{change("v=1", "v=2"), "version is 2"},
		{change("n=14", "n=18"), "n is 18"},
		{change("n=14", "n=60"), "n is 60"},
		{change("r=8", "r=0"), "r is 0"},
		{change("p=1", "p=9"), "p is 9"},
		{change("v=1,n=14", "n=14"), "not v, n, r, p"},
		{change(",sk=", ",key="), "not v, n, r, p, ss, sk"},
		{change("ss=Bw==", "ss=!"), "base64"},
		{change("42xEC+ixf3L2lw==", "AAAA"), "salt"},
		{change("42xEC+ixf3L2lw==", strings.Repeat("AAAA", 22)), "salt"},
		{change(firebaseHash, "AAAA"), "its hash 3"},
		{strings.ReplaceAll(change(firebaseHash, ""), firebaseSigner, ""), "0 bytes"},
		{"$fbscrypt$v=1", "it isn't"},
		{strings.Replace(django, "16384", "16385", 1), "N is 16385"},
		{strings.Replace(django, "16384", "0", 1), "N is 0"},
		{strings.Replace(django, "16384", "1", 1), "log2 N is 0"},
		{strings.Replace(django, "16384", "262144", 1), "log2 N is 18"},
		{strings.Replace(django, "$8$5$", "$8$9$", 1), "p is 9"},
		{strings.Replace(django, "$8$5$", "$65$5$", 1), "r is 65"},
		{"scrypt$16384$short$8$1$" + firebaseHash, "salt"},
		{"scrypt$16384$q7Jd0PzYc1mWn3Xk5Rv8Tb$8$1$AAAA", "3 bytes"},
		{"scrypt$16384$q7Jd0PzYc1mWn3Xk5Rv8Tb$8$1$!", "base64"},
		{"scrypt", "it isn't"},
		{"argon2$argon2$argon2id", "no form"},
		{"argon2$argon2id$v=19$m=1000000,t=2,p=8$ejJHSzFibTVEeWhSYXdmdklPcDJ2VQ$uAZtM63hVJo3cfGF3OF4rQ", "m is 1000000"},
		{"bcrypt$$2b$15$" + strings.Repeat("a", 53), "cost is 15"},
		{"bcrypt_sha256$$2b$15$" + strings.Repeat("a", 53), "cost is 15"},
		{"bcrypt_sha256$", "it isn't"},
		{"md5$salt$5f4dcc3b5aa765d61d8327deb882cf99", "no form"},
		{"!", "no form"},
	} {
		if err := Acceptable(test.hash); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.hash, err, test.want)
		}
	}
}
