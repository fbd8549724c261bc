package links

import (
	"crypto/hmac"
	"encoding/json"
	"fmt"

	"gatehouse/auth/relay"
	"gatehouse/auth/secretkey"
	authv1 "gatehouse/gen/auth/v1"
)

// registration is what a link keeps of the call that asked for an account, whose
// caller nobody knows.
type Registration struct {
	Profile  *authv1.ProfileSeed
	Password string
}

// registeredSeed is a registration in its link's row. Proof is a MAC of the
// password under the link's token, which only the mail holds: it shows that
// VerifyEmail is called by the one who registered, costs no password hash, and
// is of no use to a reader of the row.
type registeredSeed struct {
	relay.Profile
	Proof []byte `json:"proof,omitempty"`
}

func proofOf(token, password string) []byte {
	return secretkey.MAC([]byte(token), []byte("registration v1:"+password))
}

func (r Registration) Encode(token string) ([]byte, error) {
	encoded, err := json.Marshal(registeredSeed{
		Profile: relay.Profile{
			FirstName: r.Profile.GetFirstName(), LastName: r.Profile.GetLastName(), Locale: r.Profile.GetLocale(),
		},
		Proof: proofOf(token, r.Password),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the registration: %w", err)
	}
	return encoded, nil
}

// profileFor returns what the profile of an account starts with that a link
// makes: what VerifyEmail was given goes before what was asked for at the
// registration. That counts only if both calls gave one password: whoever
// registered may be a stranger to the mailbox's owner.
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
