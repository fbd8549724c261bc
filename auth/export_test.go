package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/argon2"

	authv1 "gatehouse/gen/auth/v1"
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
	return s.revocations.Poll(ctx, seen)
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

// RefreshTokenForTest makes a refresh token of any generation under a secret key.
func RefreshTokenForTest(secret []byte, session uuid.UUID, generation int32) string {
	keys, err := newRefreshKeys([][]byte{secret})
	if err != nil {
		panic(err)
	}
	token, _ := keys.issue(refreshToken{session: session, generation: generation})
	return token
}

// OpensSealedForTest reports whether a binary without epochs, and this one, open
// a signing key.
func OpensSealedForTest(secret []byte, kid string, sealed []byte) (old, ours bool) {
	_, failure := unseal([][]byte{secret}, "signing key v1", kid, sealed)
	_, _, err := openSigningKey([][]byte{secret}, kid, sealed)
	return failure == nil, err == nil
}

// TokenAsOfForTest makes an access token for a call that began at a moment.
func (s *Service) TokenAsOfForTest(at time.Time) error {
	_, err := s.keys.accessToken(&authv1.Account{}, uuid.New(), at)
	return err
}
