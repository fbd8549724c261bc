package links

import (
	"crypto/hmac"
	"encoding/json"
	"fmt"

	"gatehouse/auth/accountlog"
	"gatehouse/auth/secretkey"
	authv1 "gatehouse/gen/auth/v1"
)

// Registration is what a link stores of the call that requested an account.
type Registration struct {
	Profile  *authv1.ProfileSeed
	Password string
}

// registeredSeed is a registration in its link's row. Proof is a MAC of the
// password under the link's token, which only the mail holds: it proves that the
// caller of VerifyEmail also registered, costs no password hash, and is useless to
// a reader of the row.
type registeredSeed struct {
	accountlog.Profile
	Proof []byte `json:"proof,omitempty"`
}

func proofOf(token, password string) []byte {
	return secretkey.MAC([]byte(token), []byte("registration v1:"+password))
}

// Encode encodes the registration for its link's row.
func (r Registration) Encode(token string) ([]byte, error) {
	encoded, err := json.Marshal(registeredSeed{
		Profile: accountlog.Profile{
			FirstName: r.Profile.GetFirstName(), LastName: r.Profile.GetLastName(), Locale: r.Profile.GetLocale(),
		},
		Proof: proofOf(token, r.Password),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the registration: %w", err)
	}
	return encoded, nil
}

// ProfileFor returns the initial profile of an account that a link creates: the
// fields of VerifyEmail take precedence over those of the registration. The latter
// are used only if both calls gave the same password: somebody other than the
// mailbox's owner may have registered.
func ProfileFor(l Link, req *authv1.VerifyEmailRequest) (*authv1.ProfileSeed, error) {
	seed := &authv1.ProfileSeed{}
	if len(l.Profile) > 0 {
		var kept registeredSeed
		if err := json.Unmarshal(l.Profile, &kept); err != nil {
			return nil, fmt.Errorf("decode the registration: %w", err)
		}
		if hmac.Equal(kept.Proof, proofOf(req.GetToken(), req.GetPassword())) {
			seed.FirstName, seed.LastName, seed.Locale = kept.FirstName, kept.LastName, kept.Locale
		}
	}
	if req.FirstName != nil {
		seed.FirstName = req.GetFirstName()
	}
	if req.LastName != nil {
		seed.LastName = req.GetLastName()
	}
	if req.Locale != nil {
		seed.Locale = req.GetLocale()
	}
	return seed, nil
}
