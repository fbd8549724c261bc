package password

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// parseFirebase reads $fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=key$salt$hash, as Supabase
// writes hashes of Firebase Authentication: n is the logarithm of scrypt's N, ss the salt
// separator and sk the signer key of the project. The hash is the signer key, encrypted by
// AES-256 in counter mode with the key that scrypt derives from the password
// (github.com/firebase/scrypt).
func parseFirebase(text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 || parts[0] != "" {
		return stored{}, errors.New("it isn't $fbscrypt$v=1,n=…,r=…,p=…,ss=…,sk=…$salt$hash")
	}
	costs, rest, ok := strings.Cut(parts[2], ",ss=")
	separatorText, signerText, ok2 := strings.Cut(rest, ",sk=")
	if !ok || !ok2 {
		return stored{}, errors.New("its parameters are not v, n, r, p, ss, sk")
	}
	values, err := parameters(costs, "v", "n", "r", "p")
	if err != nil {
		return stored{}, err
	}
	if values[0] != 1 {
		return stored{}, fmt.Errorf("fbscrypt's version is %d, not 1", values[0])
	}
	if err := scryptCosts("n", values[1], values[2], values[3]); err != nil {
		return stored{}, err
	}
	decoded := make([][]byte, 4)
	for i, field := range []string{separatorText, signerText, parts[3], parts[4]} {
		if decoded[i], err = base64.StdEncoding.DecodeString(field); err != nil {
			return stored{}, errors.New("its salt separator, signer key, salt or hash is not base64 with padding")
		}
	}
	separator, signer, salt, want := decoded[0], decoded[1], decoded[2], decoded[3]
	switch {
	case len(salt) < minSaltLength || len(salt)+len(separator) > maxSaltLength:
		return stored{}, errSalt
	case len(signer) < minHashLength || len(signer) > maxHashLength || len(want) != len(signer):
		return stored{}, fmt.Errorf("its signer key has %d bytes and its hash %d, not %d to %d and as many", len(signer), len(want), minHashLength, maxHashLength)
	}
	salt = append(salt, separator...)
	return stored{lanes: 1, matches: func(password string) bool {
		key, err := scrypt.Key([]byte(password), salt, 1<<values[1], values[2], values[3], 32)
		if err != nil {
			return false
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return false
		}
		got := make([]byte, len(signer))
		cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(got, signer)
		return equal(got, want)
	}}, nil
}

// scryptCosts checks the costs of scrypt, whose N is given by its logarithm.
func scryptCosts(name string, logN, r, p int) error {
	switch {
	case r < 1 || r > 64:
		return fmt.Errorf("scrypt's r is %d, not 1 to 64", r)
	case p < 1 || p > maxScryptLanes:
		return fmt.Errorf("scrypt's p is %d, not 1 to %d", p, maxScryptLanes)
	case logN < 1 || logN > 24 || r<<logN > maxMemory*8: // 128 bytes each
		return fmt.Errorf("scrypt's %s is %d, which with r=%d takes more than %d MiB, or is less than 1", name, logN, r, maxMemory/1024)
	}
	return nil
}

// parseDjangoScrypt reads scrypt$16384$salt$8$5$hash, whose salt is plain text.
func parseDjangoScrypt(text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 {
		return stored{}, errors.New("it isn't scrypt$N$salt$r$p$hash")
	}
	var costs [3]int
	for i, digits := range []string{parts[1], parts[3], parts[4]} {
		value, err := number(digits)
		if err != nil {
			return stored{}, err
		}
		costs[i] = value
	}
	n, r, p := costs[0], costs[1], costs[2]
	logN := 0
	for 1<<logN < n && logN < 25 {
		logN++
	}
	if 1<<logN != n {
		return stored{}, fmt.Errorf("scrypt's N is %d, not a power of two up to %d", n, 1<<24)
	}
	if err := scryptCosts("log2 N", logN, r, p); err != nil {
		return stored{}, err
	}
	want, err := base64.StdEncoding.DecodeString(parts[5])
	switch {
	case err != nil:
		return stored{}, errors.New("its hash is not base64")
	case len(parts[2]) < minSaltLength || len(parts[2]) > maxSaltLength:
		return stored{}, errSalt
	case len(want) < minHashLength || len(want) > maxHashLength:
		return stored{}, fmt.Errorf("its hash has %d bytes, not %d to %d", len(want), minHashLength, maxHashLength)
	}
	return stored{lanes: 1, matches: func(password string) bool {
		got, err := scrypt.Key([]byte(password), []byte(parts[2]), n, r, p, len(want))
		return err == nil && equal(got, want)
	}}, nil
}

// parseDjangoPrefix reads a hash in the format of another library after Django's name for
// its algorithm, such as argon2$argon2id$v=19$….
func parseDjangoPrefix(text string) (stored, error) {
	algorithm, hash, _ := strings.Cut(text, "$")
	switch {
	case algorithm == "argon2" && strings.HasPrefix(hash, "argon2id$"):
		return parseArgon2("$"+hash, argon2.IDKey)
	case algorithm == "argon2" && strings.HasPrefix(hash, "argon2i$"):
		return parseArgon2("$"+hash, argon2.Key)
	case algorithm == "bcrypt":
		return parseBcrypt(hash)
	case algorithm == "bcrypt_sha256":
		return parseDjangoBcrypt(hash)
	}
	return stored{}, errFormat
}

// parseDjangoBcrypt reads the bcrypt hash of the SHA-256 hash of a password in hexadecimal.
func parseDjangoBcrypt(hash string) (stored, error) {
	known, err := parseBcrypt(hash)
	if err != nil {
		return stored{}, err
	}
	known.matches = func(password string) bool {
		sum := sha256.Sum256([]byte(password))
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(hex.EncodeToString(sum[:]))) == nil
	}
	return known, nil
}
