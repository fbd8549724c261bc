package auth

import "golang.org/x/crypto/argon2"

// HashForTest makes a hash with other costs than the current ones.
func HashForTest(password string, memory, passes uint32) string {
	salt := make([]byte, saltLength)
	return encodeHash(argon2Params{memory: memory, passes: passes, lanes: 1}, salt,
		argon2.IDKey(normal(password), salt, passes, memory, 1, hashLength))
}
