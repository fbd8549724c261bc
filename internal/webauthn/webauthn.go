// Package webauthn runs the ceremonies of passkeys (W3C Web Authentication Level 3):
// it makes the options for a browser and verifies the response.
//
// A ceremony has two halves. The first returns the options, which go to the browser,
// and the state, which the caller stores out of the browser's reach and hands to the
// second half once. How long a ceremony is valid, and that it is used once, is the
// caller's to enforce. A passkey's record is JSON that the caller stores as it is.
//
// User verification is required in every ceremony: the library checks the flag for
// no weaker requirement.
package webauthn

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
)

// ErrRefused is the cause of every refusal of a response. Its text is for logs.
var ErrRefused = errors.New("the response was refused")

// MaxResponse is the maximum size of a response, in bytes of JSON. The largest that
// authenticators send, an attestation with a chain of certificates, has 10 KiB.
const MaxResponse = 64 << 10

// Config describes the relying party.
type Config struct {
	// ID is the RP ID: a domain, or localhost.
	ID string
	// Name is what authenticators show.
	Name string
	// Origins may run ceremonies: web origins, of which one on this machine may have
	// "*" for its port, and the opaque origins of apps.
	Origins []string
}

// Party is a relying party.
type Party struct{ config Config }

// New returns the relying party. The error says what is wrong with the
// configuration.
func New(config Config) (*Party, error) {
	p := &Party{config: config}
	for _, origin := range config.Origins {
		if _, err := p.library(strings.Replace(origin, ":*", ":1", 1)); err != nil {
			return nil, err
		}
	}
	if len(config.Origins) == 0 {
		return nil, errors.New("no origin may use passkeys")
	}
	return p, nil
}

// ID is the RP ID.
func (p *Party) ID() string { return p.config.ID }

// Origins are those that may run ceremonies.
func (p *Party) Origins() []string { return p.config.Origins }

// library returns the library's relying party for a ceremony at one origin.
func (p *Party) library(origin string) (*webauthn.WebAuthn, error) {
	required := true
	config := &webauthn.Config{
		RPID: p.config.ID, RPDisplayName: p.config.Name, RPOrigins: []string{origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: &required,
			UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{
			Registration: webauthn.TimeoutConfig{Timeout: RegistrationLife},
			Login:        webauthn.TimeoutConfig{Timeout: RegistrationLife},
		},
	}
	if protocol.IsOpaqueOrigin(origin) {
		config.RPOrigins, config.RPOpaqueOrigins = []string{"https://" + p.config.ID}, []string{origin}
	}
	party, err := webauthn.New(config)
	if err != nil {
		return nil, fmt.Errorf("configure passkeys: %w", err)
	}
	return party, nil
}

// at returns the library's relying party for a response that names an origin. Only
// that origin is given to the library, so that an entry with "*" for its port stands
// for the very origin that the browser signed.
func (p *Party) at(origin string) (*webauthn.WebAuthn, error) {
	if !p.allows(origin) {
		return nil, fmt.Errorf("%w: the origin %q may not use passkeys", ErrRefused, origin)
	}
	return p.library(origin)
}

func (p *Party) allows(origin string) bool {
	if slices.Contains(p.config.Origins, origin) && !strings.HasSuffix(origin, ":*") {
		return true
	}
	parsed, err := url.Parse(origin)
	if err != nil || parsed.Port() == "" || parsed.Scheme+"://"+parsed.Host != origin {
		return false
	}
	return slices.Contains(p.config.Origins, strings.TrimSuffix(origin, parsed.Port())+"*")
}

// Ceremony is the first half of a ceremony.
type Ceremony struct {
	// Options are for PublicKeyCredential.parseCreationOptionsFromJSON or
	// parseRequestOptionsFromJSON.
	Options []byte
	// State belongs to the second half.
	State []byte
}

func ceremony(options any, session *webauthn.SessionData) (Ceremony, error) {
	encoded, err := json.Marshal(options)
	if err != nil {
		return Ceremony{}, fmt.Errorf("encode the options: %w", err)
	}
	state, err := json.Marshal(session)
	if err != nil {
		return Ceremony{}, fmt.Errorf("encode the state: %w", err)
	}
	return Ceremony{Options: encoded, State: state}, nil
}

// session decodes the state of a ceremony. It is what the first half stored: the
// library relies on every field, so none is rebuilt.
func session(state []byte) (webauthn.SessionData, error) {
	var found webauthn.SessionData
	if err := json.Unmarshal(state, &found); err != nil {
		return found, fmt.Errorf("decode the state of a ceremony: %w", err)
	}
	return found, nil
}

func refused(err error) error {
	detail := err.Error()
	if failure, ok := errors.AsType[*protocol.Error](err); ok {
		detail = strings.TrimSpace(failure.Details + " " + failure.DevInfo)
	}
	return fmt.Errorf("%w: %s", ErrRefused, detail)
}

// User is an account as authenticators show it.
type User struct {
	ID uuid.UUID
	// Email tells accounts of one person apart; Name is the person's, or empty.
	Email, Name string
}

// owner is a User with passkeys, as the library wants it.
type owner struct {
	User
	passkeys []webauthn.Credential
}

func (o owner) WebAuthnID() []byte                         { return o.ID[:] }
func (o owner) WebAuthnName() string                       { return o.Email }
func (o owner) WebAuthnCredentials() []webauthn.Credential { return o.passkeys }
func (o owner) WebAuthnDisplayName() string {
	if o.Name == "" {
		return o.Email
	}
	return o.Name
}

func decodeRecords(records [][]byte) ([]webauthn.Credential, error) {
	found := make([]webauthn.Credential, len(records))
	for i, record := range records {
		if err := json.Unmarshal(record, &found[i]); err != nil {
			return nil, fmt.Errorf("decode a passkey's record: %w", err)
		}
	}
	return found, nil
}
