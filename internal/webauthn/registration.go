package webauthn

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
)

// RegistrationLife is how long a browser waits for the person in a ceremony.
const RegistrationLife = 5 * time.Minute

// algorithms are those that a passkey may use, the preferred one first. The
// library's own list has some that nobody asked for, RS512 and ES384 among them.
func algorithms() []protocol.CredentialParameter {
	var found []protocol.CredentialParameter
	for _, algorithm := range []webauthncose.COSEAlgorithmIdentifier{webauthncose.AlgEdDSA, webauthncose.AlgES256, webauthncose.AlgRS256} {
		found = append(found, protocol.CredentialParameter{Type: protocol.PublicKeyCredentialType, Algorithm: algorithm})
	}
	return found
}

// Passkey is a registered passkey.
type Passkey struct {
	CredentialID []byte
	// Record is the library's credential record, in JSON.
	Record    []byte
	SignCount uint32
	AAGUID    uuid.UUID
	// BackupEligible says that it can be synchronised to other devices; BackedUp,
	// that it is.
	BackupEligible, BackedUp bool
}

// BeginRegistration begins the registration of a passkey. The authenticators that
// hold one of the records are excluded.
func (p *Party) BeginRegistration(user User, records [][]byte) (Ceremony, error) {
	existing, err := decodeRecords(records)
	if err != nil {
		return Ceremony{}, err
	}
	var excluded []protocol.CredentialDescriptor
	for i := range existing {
		excluded = append(excluded, existing[i].Descriptor())
	}
	library, err := p.library("https://" + p.config.ID)
	if err != nil {
		return Ceremony{}, err
	}
	creation, session, err := library.BeginRegistration(owner{User: user},
		webauthn.WithCredentialParameters(algorithms()), webauthn.WithExclusions(excluded), webauthn.WithExtensions(webauthn.WithExtensionCredProps()))
	if err != nil {
		return Ceremony{}, fmt.Errorf("begin a registration: %w", err)
	}
	return ceremony(creation.Response, session)
}

// FinishRegistration verifies the response to the options of BeginRegistration.
// Errors: ErrRefused.
func (p *Party) FinishRegistration(account uuid.UUID, state, response []byte) (Passkey, error) {
	if len(response) > MaxResponse {
		return Passkey{}, fmt.Errorf("%w: it has %d bytes", ErrRefused, len(response))
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return Passkey{}, refused(err)
	}
	library, err := p.at(parsed.Response.CollectedClientData.Origin)
	if err != nil {
		return Passkey{}, err
	}
	begun, err := session(state)
	if err != nil {
		return Passkey{}, err
	}
	made, err := library.CreateCredential(owner{User: User{ID: account}}, begun, parsed)
	if err != nil {
		return Passkey{}, refused(err)
	}
	return passkey(*made)
}

func passkey(made webauthn.Credential) (Passkey, error) {
	// The caller decides about clones when it knows the time of the last use.
	made.Authenticator.CloneWarning = false
	record, err := json.Marshal(made)
	if err != nil {
		return Passkey{}, fmt.Errorf("encode a passkey's record: %w", err)
	}
	aaguid, err := uuid.FromBytes(made.Authenticator.AAGUID)
	if err != nil {
		return Passkey{}, fmt.Errorf("%w: the AAGUID: %w", ErrRefused, err)
	}
	return Passkey{
		CredentialID: made.ID, Record: record, SignCount: made.Authenticator.SignCount, AAGUID: aaguid,
		BackupEligible: made.Flags.BackupEligible, BackedUp: made.Flags.BackupState,
	}, nil
}
