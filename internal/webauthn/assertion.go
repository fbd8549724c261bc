package webauthn

import (
	"fmt"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
)

// BeginSignIn begins a sign-in with any passkey of the relying party: nobody is
// identified yet.
func (p *Party) BeginSignIn() (Ceremony, error) {
	library, err := p.library("https://" + p.config.ID)
	if err != nil {
		return Ceremony{}, err
	}
	assertion, session, err := library.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return Ceremony{}, fmt.Errorf("begin a sign-in: %w", err)
	}
	return ceremony(assertion.Response, session)
}

// BeginProof begins a proof by one of an account's passkeys, given by their records,
// of which there must be one at least.
func (p *Party) BeginProof(account uuid.UUID, records [][]byte) (Ceremony, error) {
	passkeys, err := decodeRecords(records)
	if err != nil {
		return Ceremony{}, err
	}
	library, err := p.library("https://" + p.config.ID)
	if err != nil {
		return Ceremony{}, err
	}
	assertion, session, err := library.BeginLogin(owner{User: User{ID: account}, passkeys: passkeys}, webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return Ceremony{}, fmt.Errorf("begin a proof: %w", err)
	}
	return ceremony(assertion.Response, session)
}

// Assertion is a browser's response to request options, not verified yet.
type Assertion struct {
	parsed *protocol.ParsedCredentialAssertionData
}

// ParseAssertion decodes a response. Errors: ErrRefused.
func ParseAssertion(response []byte) (Assertion, error) {
	if len(response) > MaxResponse {
		return Assertion{}, fmt.Errorf("%w: it has %d bytes", ErrRefused, len(response))
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Assertion{}, refused(err)
	}
	return Assertion{parsed: parsed}, nil
}

// CredentialID names the passkey that was used.
func (a Assertion) CredentialID() []byte { return a.parsed.RawID }

// Verified is what a verified assertion says about its passkey.
type Verified struct {
	// Passkey is the passkey as it is to be stored.
	Passkey
	// BackupEligibilityChanged says that the passkey became eligible for backup, or
	// ceased to be.
	BackupEligibilityChanged bool
	// CounterRegressed says that the counter is not above the stored one, though
	// neither is 0. The stored one is kept.
	CounterRegressed bool
}

// Verify verifies an assertion with the record of the passkey that it names, which
// belongs to the account. Errors: ErrRefused.
func (p *Party) Verify(a Assertion, account uuid.UUID, state, record []byte) (Verified, error) {
	passkeys, err := decodeRecords([][]byte{record})
	if err != nil {
		return Verified{}, err
	}
	library, err := p.at(a.parsed.Response.CollectedClientData.Origin)
	if err != nil {
		return Verified{}, err
	}
	begun, err := session(state)
	if err != nil {
		return Verified{}, err
	}
	stored := passkeys[0]
	data := a.parsed.Response.AuthenticatorData
	changed := stored.Flags.BackupEligible != data.Flags.HasBackupEligible()
	// The library refuses a changed flag (Level 3, section 7.2), but password managers
	// do change it when they begin to synchronise, and the refusal locks their owners
	// out. The signature covers the flag, and it decides.
	passkeys[0].Flags.BackupEligible = data.Flags.HasBackupEligible()
	proven, err := verify(library, a, owner{User: User{ID: account}, passkeys: passkeys}, begun)
	if err != nil {
		return Verified{}, refused(err)
	}
	found, err := passkey(*proven)
	if err != nil {
		return Verified{}, err
	}
	return Verified{
		Passkey: found, BackupEligibilityChanged: changed,
		CounterRegressed: data.Counter != 0 && stored.Authenticator.SignCount != 0 && data.Counter <= stored.Authenticator.SignCount,
	}, nil
}

func verify(library *webauthn.WebAuthn, a Assertion, o owner, begun webauthn.SessionData) (*webauthn.Credential, error) {
	if len(begun.UserID) == 0 {
		return library.ValidateDiscoverableLogin(func(_, _ []byte) (webauthn.User, error) { return o, nil }, begun, a.parsed)
	}
	// The library wants every passkey of the list to exist still. One that was deleted
	// since does not matter: what counts is that the list has the one that was used.
	for _, allowed := range begun.AllowedCredentialIDs {
		if string(allowed) == string(a.CredentialID()) {
			begun.AllowedCredentialIDs = [][]byte{allowed}
			return library.ValidateLogin(o, begun, a.parsed)
		}
	}
	return nil, protocol.ErrBadRequest.WithDetails("The passkey is not one of those that were asked for")
}
