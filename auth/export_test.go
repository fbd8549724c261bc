package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/argon2"

	"gatehouse/auth/admission"
	"gatehouse/auth/keyring"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/revocations"
	"gatehouse/auth/secretkey"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
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
func (s *Service) HashesForTest() int64 { return s.passwords.Hasher.Count() }

// AdmitForTest begins a session of an account as Login does once it has checked the
// password.
func (s *Service) AdmitForTest(ctx context.Context, account string) (*authv1.LoginResponse, error) {
	found, err := readCredentials(ctx, s.db, selectCredentialsByID, pgx.NamedArgs{"id": account})
	if err != nil {
		return nil, err
	}
	outcome, err := s.session.sessions.AdmitAlone(ctx, admission.Entry{
		Account: account, Proof: admission.Proof{Kind: admission.Password}, Hash: found.hash,
		MayBeChallenged: found.secondFactor, AcceptsChallenge: true, Origin: &authv1.Origin{},
	})
	return &authv1.LoginResponse{Account: outcome.Account, Tokens: outcome.Tokens, Challenge: outcome.Challenge}, err
}

// ReadKeysForTest reads the signing keys as if at another time.
func (s *Service) ReadKeysForTest(ctx context.Context, at time.Time) error {
	rows, err := s.db.Query(ctx, keyring.Select)
	if err != nil {
		return err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[keyring.Stored])
	if err != nil {
		return err
	}
	s.keys.Take(keys, at)
	return nil
}

// PruneForTest prunes, which Run does every hour.
func (s *Service) PruneForTest(ctx context.Context) error { return s.janitor.Prune(ctx) }

// PollForTest polls from a snapshot, or from the beginning if that is empty, and
// returns the next snapshot and how many revocations it found.
func (s *Service) PollForTest(ctx context.Context, seen string) (string, int, error) {
	return s.revocation.feed.Poll(ctx, seen)
}

// PollStatementForTest reads the revocations.
func (s *Service) PollStatementForTest() string { return revocations.Select }

// MailForTest is a mail as tests see it.
type MailForTest struct {
	Kind, To, Account, Locale, Token string
	Values                           map[string]string
}

// AddressForTest opens a mail of the outbox and addresses it, which is what is
// done just before one is sent. It returns false when it isn't to be.
func (s *Service) AddressForTest(ctx context.Context, secret []byte, id string, sealed []byte, m MailForTest) (MailForTest, bool, error) {
	plain, err := secretkey.Open([][]byte{secret}, "mail v1", id, sealed)
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
	out, wanted := outbox.Mail{
		Kind: outbox.Kind(m.Kind), To: m.To, Account: m.Account, Locale: m.Locale, Token: content.Token, Values: content.Values,
	}, true
	switch {
	case out.Kind == outbox.SignInCode:
		out, wanted, err = s.code.Address(ctx, out)
	case out.Token != "":
		out, wanted, err = links.Address(ctx, s.db, s.accounts.SignUps, out, false)
	}
	if err != nil {
		return m, false, err
	}
	return MailForTest{
		Kind: string(out.Kind), To: out.To, Account: out.Account, Locale: out.Locale, Token: out.Token, Values: out.Values,
	}, wanted, nil
}

// EnqueueForTest writes a mail's outbox row.
func (s *Service) EnqueueForTest(ctx context.Context, db database.Execer, m MailForTest) error {
	return s.mails.Enqueue(ctx, db, outbox.Mail{Kind: outbox.Kind(m.Kind), To: m.To, Account: m.Account, Locale: m.Locale, Token: m.Token, Values: m.Values})
}

// RefreshTokenForTest makes a refresh token of any generation under a secret key.
func RefreshTokenForTest(secret []byte, session uuid.UUID, generation int32) string {
	keys, err := tokens.NewRefreshKeys([][]byte{secret})
	if err != nil {
		panic(err)
	}
	token, _ := keys.Issue(tokens.Refresh{Session: session, Generation: generation})
	return token
}

// RemindForTest writes the mails about API keys that are about to expire.
func (s *Service) RemindForTest(ctx context.Context) error { return s.apiKeys.Remind(ctx) }

// DeskForTest returns what admits people.
func (s *Service) DeskForTest() *admission.Desk { return s.session.sessions.Desk }

// TokenAsOfForTest makes an access token for a call that began at a moment.
func (s *Service) TokenAsOfForTest(at time.Time) error {
	_, err := s.keys.AccessToken(&authv1.Account{}, uuid.New(), accesstoken.SignIn{}, at)
	return err
}

// LagsForTest returns the lag of each reader of the account log.
func (s *Service) LagsForTest(ctx context.Context) (map[string]time.Duration, error) {
	lags, err := s.events.Lags(ctx, s.readers)
	found := map[string]time.Duration{}
	for _, lag := range lags {
		found[lag.Service] = lag.Oldest
	}
	return found, err
}

// MaintainForTest maintains the account log once.
func (s *Service) MaintainForTest(ctx context.Context) error { return s.events.Maintain(ctx) }
