package auth

import (
	"context"
	"encoding/base64"
	"fmt"

	"golang.org/x/crypto/argon2"

	"gatehouse/internal/password"
)

// HashForTest makes a hash with other costs than the current ones.
func HashForTest(text string, memory, passes uint32) string {
	salt := make([]byte, 16)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", memory, passes, b64(salt),
		b64(argon2.IDKey([]byte(password.Normal(text)), salt, passes, memory, 1, 32)))
}

// HashesForTest returns how many passwords were hashed so far.
func (s *Service) HashesForTest() int64 { return s.passwords.Count() }

// AllowMailForTest is allowMail.
func (s *Service) AllowMailForTest(ctx context.Context, recipient string) error {
	return s.allowMail(ctx, recipient)
}
