package accesstoken_test

import (
	"crypto/ed25519"
	"errors"
	"reflect"
	"testing"
	"time"

	"gatehouse/internal/accesstoken"
)

const issuer = "https://gatehouse.example"

// What auth mints, the gateway accepts, until it expires. Tokens that auth did not
// mint are tested with the gateway.
func TestAMintedTokenIsVerified(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Truncate(time.Second)
	want := accesstoken.Subject{
		AccountID: "0198c0de-aaaa-7000-8000-00000000a11c", SessionID: "0198c0de-cccc-7000-8000-00000000beef",
		Roles: []string{"admin", "user"}, Version: 3,
		SignIn: accesstoken.SignIn{Level: 2, AMR: []string{"mfa", "otp", "pwd"}, AuthTime: at.Add(-time.Minute)},
	}
	token, err := accesstoken.Mint(accesstoken.Key{ID: "k1", Private: private}, issuer, want, at)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(from, key string, now time.Time) (accesstoken.Subject, time.Time, error) {
		return accesstoken.Verify(token, accesstoken.Verification{
			Issuer: from, Now: func() time.Time { return now },
			PublicKey: func(id string) ed25519.PublicKey {
				if id != key {
					return nil
				}
				return public
			},
		})
	}
	got, expire, err := verify(issuer, "k1", at)
	if err != nil || !reflect.DeepEqual(got, want) || !expire.Equal(at.Add(accesstoken.Life)) {
		t.Errorf("got %+v until %s, %v; want %+v for %s", got, expire, err, want, accesstoken.Life)
	}
	if _, _, err := verify(issuer, "k1", at.Add(accesstoken.Life)); !errors.Is(err, accesstoken.ErrExpired) {
		t.Errorf("at its end: got %v, want ErrExpired", err)
	}
	if _, _, err := verify(issuer, "k2", at); !errors.Is(err, accesstoken.ErrUnknownKey) {
		t.Errorf("with another key: got %v, want ErrUnknownKey", err)
	}
	if _, _, err := verify("https://other.example", "k1", at); err == nil {
		t.Error("another issuer's: got no error")
	} else if wrong, ok := errors.AsType[*accesstoken.IssuerError](err); !ok || wrong.Issuer != issuer {
		t.Errorf("another issuer's: got %v, want an IssuerError of %s", err, issuer)
	}
}
