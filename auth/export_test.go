package auth

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/crypto/argon2"
)

// HashForTest makes a hash with other costs than the current ones.
func HashForTest(password string, memory, passes uint32) string {
	salt := make([]byte, saltLength)
	return encodeHash(argon2Params{memory: memory, passes: passes, lanes: 1}, salt,
		argon2.IDKey(normal(password), salt, passes, memory, 1, hashLength))
}

// ReadKeysForTest has the signing keys read at another time.
func (s *Service) ReadKeysForTest(at time.Time) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	s.keys.read = at
}

// ClockForTest has tokens made by another clock.
func (s *Service) ClockForTest(now func() time.Time) { s.keys.now = now }

// PollForTest polls from a snapshot, or from the beginning if that is empty, and
// returns the next snapshot and how many revocations it found.
func (s *Service) PollForTest(ctx context.Context, seen string) (string, int, error) {
	if seen == "" {
		seen = nothing
	}
	p, err := s.pollFeed(ctx, seen)
	return p.snapshot, len(p.found), err
}

// PollStatementForTest reads the revocations.
func (s *Service) PollStatementForTest() string { return selectRevocations }

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
