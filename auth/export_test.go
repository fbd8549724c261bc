package auth

import (
	"context"
	"encoding/json"

	"golang.org/x/crypto/argon2"
)

// HashForTest makes a hash with other costs than the current ones.
func HashForTest(password string, memory, passes uint32) string {
	salt := make([]byte, saltLength)
	return encodeHash(argon2Params{memory: memory, passes: passes, lanes: 1}, salt,
		argon2.IDKey(normal(password), salt, passes, memory, 1, hashLength))
}

// MailForTest is a mail as tests see it.
type MailForTest struct {
	Kind, To, Account, Locale, Token string
	Values                           map[string]string
}

// AddressForTest opens a mail of the outbox and addresses it, which is what is
// done just before one is sent. It returns false when it isn't to be.
func (s *Service) AddressForTest(ctx context.Context, secret []byte, id string, sealed []byte, m MailForTest) (MailForTest, bool, error) {
	plain, err := unseal([][]byte{secret}, "mail v1", id, sealed)
	if err != nil {
		return m, false, err
	}
	var content struct {
		Token  string            `json:"token"`
		Values map[string]string `json:"values"`
	}
	if err := json.Unmarshal(plain, &content); err != nil {
		return m, false, err
	}
	out, wanted, err := s.addressed(ctx, mail{
		kind: mailKind(m.Kind), to: m.To, account: m.Account, locale: m.Locale, token: content.Token, values: content.Values,
	})
	return MailForTest{
		Kind: string(out.kind), To: out.to, Account: out.account, Locale: out.locale, Token: out.token, Values: out.values,
	}, wanted, err
}
