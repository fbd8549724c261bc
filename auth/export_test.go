package auth

import (
	"context"
	"time"

	"golang.org/x/crypto/argon2"
)

// HashForTest makes a hash with other costs than the current ones.
func HashForTest(password string, memory, passes uint32) string {
	salt := make([]byte, saltLength)
	return encodeHash(argon2Params{memory: memory, passes: passes, lanes: 1}, salt,
		argon2.IDKey(normal(password), salt, passes, memory, 1, hashLength))
}

// MailForTest is a mail to be sent.
type MailForTest struct {
	Kind, To, Account, Locale, Token string
	Values                           map[string]string
}

// EnqueueForTest writes a mail's outbox row.
func (s *Service) EnqueueForTest(ctx context.Context, db execer, m MailForTest) error {
	return s.enqueueMail(ctx, db, mail{kind: mailKind(m.Kind), to: m.To, account: m.Account, locale: m.Locale, token: m.Token, values: m.Values})
}

// MailKindsForTest are the kinds, and for each the page that its link leads to.
func MailKindsForTest() map[string]string {
	kinds := map[string]string{}
	for _, kind := range mailKinds {
		kinds[string(kind)] = kind.page()
	}
	return kinds
}

// ShownForTest is what of a mail server's answer is kept.
func ShownForTest(token, text string) string { return shown(token, text) }

// MailBackoffForTest is how long to wait after so many tries.
func MailBackoffForTest(attempts int) time.Duration { return backoffAfter(attempts) }
