package webauthn_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	virtual "github.com/descope/virtualwebauthn"
	"github.com/google/uuid"

	"gatehouse/internal/passkeytest"
	"gatehouse/internal/webauthn"
)

const (
	rpID   = "example.com"
	origin = "https://auth.example.com"
)

var ada = webauthn.User{ID: uuid.MustParse("0199f2b0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"), Email: "ada@example.com", Name: "Ada Lovelace"}

func party(t testing.TB, origins ...string) *webauthn.Party {
	t.Helper()
	made, err := webauthn.New(webauthn.Config{ID: rpID, Name: "Gatehouse", Origins: append(origins, origin)})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func begin(t testing.TB) func(webauthn.Ceremony, error) webauthn.Ceremony {
	return func(begun webauthn.Ceremony, err error) webauthn.Ceremony {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return begun
	}
}

func register(t testing.TB, p *webauthn.Party, key *passkeytest.Key, changes ...passkeytest.Change) webauthn.Passkey {
	t.Helper()
	begun := begin(t)(p.BeginRegistration(ada, nil))
	made, err := p.FinishRegistration(ada.ID, begun.State, key.Register(t, begun.Options, origin, changes...))
	if err != nil {
		t.Fatalf("register: %v", err)
	}
	return made
}

func verify(p *webauthn.Party, state, response, record []byte) (webauthn.Verified, error) {
	assertion, err := webauthn.ParseAssertion(response)
	if err != nil {
		return webauthn.Verified{}, err
	}
	return p.Verify(assertion, ada.ID, state, record)
}

func TestPasskeySignsInAndProves(t *testing.T) {
	t.Parallel()
	p := party(t)
	for _, algorithm := range []int{passkeytest.EdDSA, passkeytest.ES256, passkeytest.RS256} {
		key := passkeytest.New(t, algorithm)
		made := register(t, p, key)
		if !bytes.Equal(made.CredentialID, key.ID) || !made.BackupEligible || !made.BackedUp {
			t.Errorf("algorithm %d: registered %+v", algorithm, made)
		}
		begun := begin(t)(p.BeginSignIn())
		if got, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin), made.Record); err != nil || got.BackupEligibilityChanged || got.CounterRegressed {
			t.Errorf("algorithm %d: signing in returned %+v, %v", algorithm, got, err)
		}
		begun = begin(t)(p.BeginProof(ada.ID, [][]byte{made.Record}))
		if !key.Names(passkeytest.Parse(t, begun.Options).Allowed) {
			t.Errorf("algorithm %d: the options %s do not name the passkey", algorithm, begun.Options)
		}
		withoutHandle := func(a *passkeytest.Answer) { a.Response["userHandle"] = "" }
		for _, changes := range [][]passkeytest.Change{nil, {withoutHandle}} {
			if _, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin, changes...), made.Record); err != nil {
				t.Errorf("algorithm %d: the proof was refused: %v", algorithm, err)
			}
		}
	}
}

// TestPasskeyOfAnotherImplementation checks against an authenticator that is not ours.
func TestPasskeyOfAnotherImplementation(t *testing.T) {
	t.Parallel()
	p := party(t)
	page := virtual.RelyingParty{Name: "Gatehouse", ID: rpID, Origin: origin}
	for _, kind := range []virtual.KeyType{virtual.KeyTypeEC2, virtual.KeyTypeRSA} {
		authenticator := virtual.NewAuthenticatorWithOptions(virtual.AuthenticatorOptions{UserHandle: ada.ID[:], BackupEligible: true})
		key := virtual.NewCredential(kind)
		// It drops leading zeros of coordinates, which is not a valid key.
		for kind == virtual.KeyTypeEC2 && len(key.Key.AttestationData()) != 77 {
			key = virtual.NewCredential(kind)
		}
		begun := begin(t)(p.BeginRegistration(ada, nil))
		asked, err := virtual.ParseAttestationOptions(string(begun.Options))
		if err != nil {
			t.Fatal(err)
		}
		made, err := p.FinishRegistration(ada.ID, begun.State, []byte(virtual.CreateAttestationResponse(page, authenticator, key, *asked)))
		if err != nil {
			t.Fatalf("%s: register: %v", kind, err)
		}
		begun = begin(t)(p.BeginSignIn())
		wanted, err := virtual.ParseAssertionOptions(string(begun.Options))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(p, begun.State, []byte(virtual.CreateAssertionResponse(page, authenticator, key, *wanted)), made.Record); err != nil {
			t.Errorf("%s: signing in: %v", kind, err)
		}
	}
}

func TestOptionsAskForWhatThePolicyNeeds(t *testing.T) {
	t.Parallel()
	p := party(t)
	key := passkeytest.New(t, passkeytest.ES256)
	made := register(t, p, key)
	begun := begin(t)(p.BeginRegistration(ada, [][]byte{made.Record}))
	var options struct {
		RP   struct{ ID, Name string }
		User struct {
			ID          []byte
			Name        string
			DisplayName string
		}
		PubKeyCredParams []struct {
			Type string
			Alg  int
		}
		Timeout                int
		AuthenticatorSelection struct {
			ResidentKey, UserVerification string
			RequireResidentKey            bool
		}
		Attestation string
		Extensions  struct{ CredProps bool }
	}
	// The id is base64url, which encoding/json does not read.
	if err := json.Unmarshal(bytes.ReplaceAll(begun.Options, []byte(`"id":"AZ`), []byte(`"-id":"AZ`)), &options); err != nil {
		t.Fatalf("%s: %v", begun.Options, err)
	}
	if options.RP.ID != rpID || options.User.Name != ada.Email || options.User.DisplayName != ada.Name || options.Timeout != 300_000 || options.Attestation != "none" || !options.Extensions.CredProps {
		t.Errorf("options %s", begun.Options)
	}
	if s := options.AuthenticatorSelection; s.ResidentKey != "required" || !s.RequireResidentKey || s.UserVerification != "required" {
		t.Errorf("selection %+v, want resident key and user verification required", s)
	}
	var algorithms []int
	for _, parameter := range options.PubKeyCredParams {
		algorithms = append(algorithms, parameter.Alg)
	}
	if want := []int{-8, -7, -257}; len(algorithms) != 3 || algorithms[0] != want[0] || algorithms[1] != want[1] || algorithms[2] != want[2] {
		t.Errorf("algorithms %v, want %v", algorithms, want)
	}
	if parsed := passkeytest.Parse(t, begun.Options); !key.Names(parsed.Excluded) || bytes.Contains(begun.Options, []byte(`"id":"`+ada.Email)) {
		t.Errorf("options %s do not exclude the account's passkey", begun.Options)
	}
	signIn := begin(t)(p.BeginSignIn())
	if parsed := passkeytest.Parse(t, signIn.Options); len(parsed.Allowed) != 0 || parsed.RPID != rpID || !bytes.Contains(signIn.Options, []byte(`"userVerification":"required"`)) {
		t.Errorf("sign-in options %s, want no passkey named and user verification required", signIn.Options)
	}
}

func TestHostileResponsesAreRefused(t *testing.T) {
	t.Parallel()
	p := party(t)
	key, other := passkeytest.New(t, passkeytest.ES256), passkeytest.New(t, passkeytest.ES256)
	made := register(t, p, key)
	cases := 0
	for _, c := range append(passkeytest.Hostile(rpID, origin), passkeytest.HostileSignatures(other)...) {
		cases++
		begun := begin(t)(p.BeginSignIn())
		response := c.Apply(func(changes ...passkeytest.Change) []byte { return key.SignIn(t, begun.Options, origin, changes...) })
		if _, err := verify(p, begun.State, response, made.Record); !errors.Is(err, webauthn.ErrRefused) {
			t.Errorf("signing in, %s: %v, want a refusal", c.Name, err)
		}
	}
	for _, c := range append(passkeytest.Hostile(rpID, origin), passkeytest.HostileRegistrations(t)...) {
		cases++
		begun := begin(t)(p.BeginRegistration(ada, nil))
		fresh := passkeytest.New(t, passkeytest.ES256)
		response := c.Apply(func(changes ...passkeytest.Change) []byte {
			return fresh.Register(t, begun.Options, origin, changes...)
		})
		if _, err := p.FinishRegistration(ada.ID, begun.State, response); !errors.Is(err, webauthn.ErrRefused) {
			t.Errorf("registration, %s: %v, want a refusal", c.Name, err)
		}
	}
	if cases < 40 {
		t.Errorf("%d cases, want 40 at least", cases)
	}
	t.Logf("%d hostile responses refused", cases)
}

func TestAnAlgorithmThatWasNotAskedForIsRefused(t *testing.T) {
	t.Parallel()
	p := party(t)
	begun := begin(t)(p.BeginRegistration(ada, nil))
	response := passkeytest.New(t, passkeytest.RS384).Register(t, begun.Options, origin)
	if _, err := p.FinishRegistration(ada.ID, begun.State, response); !errors.Is(err, webauthn.ErrRefused) {
		t.Errorf("RS384: %v, want a refusal", err)
	}
}

func TestAnotherUserHandleIsRefused(t *testing.T) {
	t.Parallel()
	p := party(t)
	key := passkeytest.New(t, passkeytest.ES256)
	made := register(t, p, key)
	other := uuid.New()
	for _, begun := range []webauthn.Ceremony{begin(t)(p.BeginSignIn()), begin(t)(p.BeginProof(ada.ID, [][]byte{made.Record}))} {
		key.UserHandle = other[:]
		if _, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin), made.Record); !errors.Is(err, webauthn.ErrRefused) {
			t.Errorf("the handle of another account: %v, want a refusal", err)
		}
	}
	begun := begin(t)(p.BeginSignIn())
	key.UserHandle = nil
	if _, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin), made.Record); !errors.Is(err, webauthn.ErrRefused) {
		t.Errorf("no handle where nobody is identified: %v, want a refusal", err)
	}
}

func TestAProofIsByAPasskeyThatWasAskedFor(t *testing.T) {
	t.Parallel()
	p := party(t)
	old, fresh := passkeytest.New(t, passkeytest.ES256), passkeytest.New(t, passkeytest.ES256)
	oldMade := register(t, p, old)
	begun := begin(t)(p.BeginProof(ada.ID, [][]byte{oldMade.Record}))
	later := register(t, p, fresh)
	if _, err := verify(p, begun.State, fresh.SignIn(t, begun.Options, origin), later.Record); !errors.Is(err, webauthn.ErrRefused) {
		t.Errorf("a passkey that was registered later: %v, want a refusal", err)
	}
}

// TestAChangedBackupFlagIsAccepted: password managers change the flag that says
// whether a passkey can be backed up.
func TestAChangedBackupFlagIsAccepted(t *testing.T) {
	t.Parallel()
	p := party(t)
	key := passkeytest.New(t, passkeytest.ES256)
	record := register(t, p, key).Record
	const user = passkeytest.UserPresent | passkeytest.UserVerified
	for i, flags := range []byte{user, user, user | passkeytest.BackupEligible, user | passkeytest.BackupEligible | passkeytest.BackedUp} {
		key.Flags = flags
		begun := begin(t)(p.BeginSignIn())
		got, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin), record)
		if err != nil {
			t.Fatalf("flags %#x: %v", flags, err)
		}
		if want := i == 0 || i == 2; got.BackupEligibilityChanged != want {
			t.Errorf("flags %#x: a change was reported: %t, want %t", flags, got.BackupEligibilityChanged, want)
		}
		if got.BackupEligible != (flags&passkeytest.BackupEligible != 0) || got.BackedUp != (flags&passkeytest.BackedUp != 0) {
			t.Errorf("flags %#x: kept as %t, %t", flags, got.BackupEligible, got.BackedUp)
		}
		record = got.Record
	}
	begun := begin(t)(p.BeginSignIn())
	forged := func(a *passkeytest.Answer) { a.Signer = passkeytest.New(t, passkeytest.ES256); a.Flags = user }
	if _, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin, forged), record); !errors.Is(err, webauthn.ErrRefused) {
		t.Errorf("a changed flag with another signature: %v, want a refusal", err)
	}
}

func TestCounters(t *testing.T) {
	t.Parallel()
	p := party(t)
	for _, test := range []struct {
		stored, stated, kept uint32
		regressed            bool
	}{{0, 0, 0, false}, {0, 1, 1, false}, {6, 7, 7, false}, {6, 6, 6, true}, {6, 5, 6, true}, {6, 0, 6, false}} {
		key := passkeytest.New(t, passkeytest.ES256)
		key.Counter = test.stored
		made := register(t, p, key)
		key.Counter = test.stated
		begun := begin(t)(p.BeginSignIn())
		got, err := verify(p, begun.State, key.SignIn(t, begun.Options, origin), made.Record)
		if err != nil || got.CounterRegressed != test.regressed || got.SignCount != test.kept {
			t.Errorf("%d after %d: regressed %t and kept %d (%v), want %t and %d", test.stated, test.stored, got.CounterRegressed, got.SignCount, err, test.regressed, test.kept)
		}
		if bytes.Contains(got.Record, []byte("cloneWarning")) {
			t.Errorf("%d after %d: the record keeps a warning: %s", test.stated, test.stored, got.Record)
		}
	}
}

func TestOriginsThatMayUsePasskeys(t *testing.T) {
	t.Parallel()
	local, err := webauthn.New(webauthn.Config{ID: "localhost", Name: "Gatehouse", Origins: []string{"http://localhost:8001", "http://localhost:*", "android:apk-key-hash:2jmj7l5rSw0yVb-vlWAYkK-YBwk"}})
	if err != nil {
		t.Fatal(err)
	}
	for from, allowed := range map[string]bool{
		"http://localhost:8001": true, "http://localhost:5173": true, "android:apk-key-hash:2jmj7l5rSw0yVb-vlWAYkK-YBwk": true,
		"http://localhost": false, "https://localhost:5173": false, "http://localhost:5173/": false, "http://localhost:x": false, "http://localhost:*": false,
		"http://127.0.0.1:8001": false, "android:apk-key-hash:AAAAAAAA": false, "http://a@localhost:5173": false, "": false,
	} {
		key := passkeytest.New(t, passkeytest.EdDSA)
		begun := begin(t)(local.BeginRegistration(ada, nil))
		_, err := local.FinishRegistration(ada.ID, begun.State, key.Register(t, begun.Options, from))
		if allowed != (err == nil) || err != nil && !errors.Is(err, webauthn.ErrRefused) {
			t.Errorf("origin %q: %v, want allowed %t", from, err, allowed)
		}
	}
}
