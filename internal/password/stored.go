package password

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// Bounds on the costs of a stored hash, so that no row makes one check exhaust the
// machine.
const (
	maxMemory       = 128 * 1024 // KiB: what OWASP asks of scrypt
	maxArgon2Work   = 1 << 20    // KiB times passes
	maxLanes        = 16
	maxBcryptCost   = 14
	maxScryptLanes  = 8
	maxPBKDF2Rounds = 2_000_000 // of all blocks together
	minSaltLength   = 8
	maxSaltLength   = 64
	minHashLength   = 16
	maxHashLength   = 64
)

// stored is a parsed hash.
type stored struct {
	matches func(password string) bool
	lanes   int64 // how many cores that keeps busy
	live    bool  // whether it has the parameters of new ones
}

var errFormat = errors.New("it has no form that is known: bcrypt, argon2id, argon2i, scrypt, pbkdf2-sha1, -sha256 or -sha512, fbscrypt, or one of Django's")

// Acceptable says whether [Hasher.Check] can check passwords against the hash,
// and if not, why.
func Acceptable(hash string) error {
	_, err := parse(hash)
	return err
}

func parse(text string) (stored, error) {
	scheme, _, _ := strings.Cut(strings.TrimPrefix(text, "$"), "$")
	switch scheme {
	case "argon2id":
		return parseArgon2(text, argon2.IDKey)
	case "argon2i":
		return parseArgon2(text, argon2.Key)
	case "2a", "2b", "2y":
		return parseBcrypt(text)
	case "scrypt":
		if text[0] != '$' {
			return parseDjangoScrypt(text)
		}
		return parseScrypt(text)
	case "fbscrypt":
		return parseFirebase(text)
	case "pbkdf2", "pbkdf2-sha1":
		return parsePBKDF2(text, sha1.New)
	case "pbkdf2-sha256":
		return parsePBKDF2(text, sha256.New)
	case "pbkdf2-sha512":
		return parsePBKDF2(text, sha512.New)
	case "pbkdf2_sha1":
		return parseDjango(text, sha1.New)
	case "pbkdf2_sha256":
		return parseDjango(text, sha256.New)
	case "pbkdf2_sha512":
		return parseDjango(text, sha512.New)
	default:
		return parseDjangoPrefix(text)
	}
}

// Costs as new hashes have them, and the same ones as [Imported] spells them.
var (
	liveCosts     = fmt.Sprintf("m=%d,t=%d,p=%d", live.memory, live.passes, live.lanes)
	importedCosts = fmt.Sprintf("m=%d,t=0%d,p=%d", live.memory, live.passes, live.lanes)
)

// Imported returns an acceptable hash of another system in the form to store. With
// our costs it would otherwise be mistaken for one of ours, which hash the password
// in NFKC; the other system may have hashed it as typed.
func Imported(hash string) string {
	return strings.Replace(hash, "$"+liveCosts+"$", "$"+importedCosts+"$", 1)
}

type argon2Function func(password, salt []byte, passes, memory uint32, lanes uint8, length uint32) []byte

// parseArgon2 reads $argon2id$v=19$m=19456,t=2,p=1$salt$hash, the PHC string
// format.
func parseArgon2(text string, function argon2Function) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" {
		return stored{}, errors.New("it isn't $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return stored{}, fmt.Errorf("argon2's version is not %d", argon2.Version)
	}
	costs, err := parameters(parts[3], "m", "t", "p")
	if err != nil {
		return stored{}, err
	}
	memory, passes, lanes := costs[0], costs[1], costs[2]
	switch {
	case lanes < 1 || lanes > maxLanes:
		return stored{}, fmt.Errorf("argon2's p is %d, not 1 to %d", lanes, maxLanes)
	case memory < 8*lanes || memory > maxMemory:
		return stored{}, fmt.Errorf("argon2's m is %d, not %d to %d KiB", memory, 8*lanes, maxMemory)
	case passes < 1 || memory*passes > maxArgon2Work:
		return stored{}, fmt.Errorf("argon2's t is %d, not 1 to %d with that memory", passes, maxArgon2Work/memory)
	}
	salt, want, err := saltAndHash(parts[4], parts[5])
	if err != nil {
		return stored{}, err
	}
	p := argon2Params{memory: uint32(memory), passes: uint32(passes), lanes: uint8(lanes)}
	known := argon2Stored(function, p, salt, want)
	known.live = parts[1] == "argon2id" && parts[3] == liveCosts && p == live && len(salt) == saltLength && len(want) == hashLength
	return known, nil
}

func argon2Stored(function argon2Function, p argon2Params, salt, want []byte) stored {
	return stored{lanes: int64(p.lanes), matches: func(password string) bool {
		return equal(function([]byte(password), salt, p.passes, p.memory, p.lanes, uint32(len(want))), want)
	}}
}

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$`)

func parseBcrypt(text string) (stored, error) {
	if !bcryptForm.MatchString(text) {
		return stored{}, errors.New("it isn't $2b$ and a cost, $ and 53 characters")
	}
	cost, err := bcrypt.Cost([]byte(text))
	if err != nil {
		return stored{}, errors.New("bcrypt's cost is less than 4 or more than 31")
	}
	if cost > maxBcryptCost {
		return stored{}, fmt.Errorf("bcrypt's cost is %d, more than %d", cost, maxBcryptCost)
	}
	return stored{lanes: 1, matches: func(password string) bool {
		return bcrypt.CompareHashAndPassword([]byte(text), []byte(password)) == nil
	}}, nil
}

// parseScrypt reads $scrypt$ln=14,r=8,p=1$salt$hash, the PHC string format; ln
// is the logarithm of N (RFC 7914).
func parseScrypt(text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 || parts[0] != "" {
		return stored{}, errors.New("it isn't $scrypt$ln=…,r=…,p=…$salt$hash")
	}
	costs, err := parameters(parts[2], "ln", "r", "p")
	if err != nil {
		return stored{}, err
	}
	logN, r, p := costs[0], costs[1], costs[2]
	if err := scryptCosts("ln", logN, r, p); err != nil {
		return stored{}, err
	}
	salt, want, err := saltAndHash(parts[3], parts[4])
	if err != nil {
		return stored{}, err
	}
	return stored{lanes: 1, matches: func(password string) bool {
		got, err := scrypt.Key([]byte(password), salt, 1<<logN, r, p, len(want))
		return err == nil && equal(got, want)
	}}, nil
}

// parsePBKDF2 reads $pbkdf2-sha256$i=600000,l=32$salt$hash, the PHC string
// format, and passlib's $pbkdf2-sha256$600000$salt$hash.
func parsePBKDF2(text string, function func() hash.Hash) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 || parts[0] != "" {
		return stored{}, errors.New("it isn't $pbkdf2-sha256$i=…,l=…$salt$hash")
	}
	salt, want, err := saltAndHash(parts[3], parts[4])
	if err != nil {
		return stored{}, err
	}
	if rounds, err := number(parts[2]); err == nil {
		return pbkdf2Stored(function, rounds, salt, want)
	}
	costs, err := parameters(parts[2], "i", "l")
	if err != nil {
		costs, err = parameters(parts[2]+",l="+strconv.Itoa(len(want)), "i", "l") // the length may be left out
	}
	if err != nil {
		return stored{}, err
	}
	if costs[1] != len(want) {
		return stored{}, fmt.Errorf("pbkdf2's l is %d, but the hash has %d bytes", costs[1], len(want))
	}
	return pbkdf2Stored(function, costs[0], salt, want)
}

// parseDjango reads pbkdf2_sha256$600000$salt$hash, whose salt is plain text.
func parseDjango(text string, function func() hash.Hash) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 {
		return stored{}, errors.New("it isn't pbkdf2_sha256$…$salt$hash")
	}
	rounds, err := number(parts[1])
	if err != nil {
		return stored{}, err
	}
	_, want, err := saltAndHash("AAAAAAAAAAAAAAAAAAAAAA", strings.TrimRight(parts[3], "="))
	if err != nil {
		return stored{}, err
	}
	return pbkdf2Stored(function, rounds, []byte(parts[2]), want)
}

func pbkdf2Stored(function func() hash.Hash, rounds int, salt, want []byte) (stored, error) {
	blocks := (len(want) + function().Size() - 1) / function().Size()
	if rounds < 1 || rounds > maxPBKDF2Rounds/blocks {
		return stored{}, fmt.Errorf("pbkdf2's iterations are %d, not 1 to %d", rounds, maxPBKDF2Rounds/blocks)
	}
	if len(salt) < minSaltLength || len(salt) > maxSaltLength {
		return stored{}, errSalt
	}
	return stored{lanes: 1, matches: func(password string) bool {
		got, err := pbkdf2.Key(function, password, salt, rounds, len(want))
		return err == nil && equal(got, want)
	}}, nil
}

// parameters reads name=number pairs in the given order.
func parameters(text string, names ...string) ([]int, error) {
	parts := strings.Split(text, ",")
	if len(parts) != len(names) {
		return nil, fmt.Errorf("its parameters are not %s", strings.Join(names, ", "))
	}
	values := make([]int, len(names))
	for i, part := range parts {
		digits, ok := strings.CutPrefix(part, names[i]+"=")
		if !ok {
			return nil, fmt.Errorf("its parameters are not %s", strings.Join(names, ", "))
		}
		value, err := number(digits)
		if err != nil {
			return nil, err
		}
		values[i] = value
	}
	return values, nil
}

// number reads one of at most nine digits, so that no product of two overflows.
func number(digits string) (int, error) {
	value, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || len(digits) > 9 {
		return 0, errors.New("one of its parameters is no number, or too large")
	}
	return int(value), nil
}

var errSalt = fmt.Errorf("its salt has less than %d or more than %d bytes", minSaltLength, maxSaltLength)

// saltAndHash decodes base64, without padding, of the standard alphabet or of
// passlib's, which has a dot for the plus.
func saltAndHash(saltText, hashText string) (salt, hash []byte, err error) {
	decode := func(text string) ([]byte, error) {
		return base64.RawStdEncoding.DecodeString(strings.ReplaceAll(text, ".", "+"))
	}
	salt, saltErr := decode(saltText)
	hash, hashErr := decode(hashText)
	switch {
	case saltErr != nil || hashErr != nil:
		return nil, nil, errors.New("its salt or hash is not base64 without padding")
	case len(salt) < minSaltLength || len(salt) > maxSaltLength:
		return nil, nil, errSalt
	case len(hash) < minHashLength || len(hash) > maxHashLength:
		return nil, nil, fmt.Errorf("its hash has %d bytes, not %d to %d", len(hash), minHashLength, maxHashLength)
	}
	return salt, hash, nil
}
