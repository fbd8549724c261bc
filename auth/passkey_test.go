package auth_test

import (
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/passkeytest"
	"gatehouse/internal/webauthn"
)

const (
	passkeyRPID   = "auth.example.com"
	passkeyOrigin = "https://auth.example.com"
)

// withPasskeys turns passkeys on.
func withPasskeys(c *auth.Config) {
	c.Passkeys, _ = webauthn.New(webauthn.Config{ID: passkeyRPID, Name: passkeyRPID, Origins: []string{passkeyOrigin}})
}

// passkeyHarness is auth with passkeys.
type passkeyHarness struct {
	*harness
	passkeys authv1.PasskeyServiceClient
}

func newPasskeyHarness(t testing.TB, change ...func(*auth.Config)) *passkeyHarness {
	t.Helper()
	h := newHarness(t, append([]func(*auth.Config){withPasskeys}, change...)...)
	return &passkeyHarness{harness: h, passkeys: authv1.NewPasskeyServiceClient(h.client)}
}

// owner is a person who signed in.
type owner struct {
	h       *passkeyHarness
	account *authv1.Account
	origin  *authv1.Origin
	tokens  *authv1.Tokens
}

func (h *passkeyHarness) newOwner(t *testing.T, email string, roles ...string) *owner {
	t.Helper()
	account, tokens := h.signUp(t, email, roles...)
	o := &owner{h: h, account: account}
	o.hold(t, tokens)
	return o
}

// hold makes the session of the tokens the one that calls.
func (o *owner) hold(t *testing.T, tokens *authv1.Tokens) {
	t.Helper()
	o.tokens = tokens
	o.origin = &authv1.Origin{AccountId: o.account.GetId(), SessionId: sessionOf(t, tokens.GetRefreshToken()), RequireRecentSignIn: true}
}

func toStruct(t testing.TB, encoded []byte) *structpb.Struct {
	t.Helper()
	made, ok := asStruct(encoded)
	if !ok {
		t.Fatalf("%s is not a JSON object", encoded)
	}
	return made
}

func asStruct(encoded []byte) (*structpb.Struct, bool) {
	var made structpb.Struct
	return &made, protojson.Unmarshal(encoded, &made) == nil
}

func toJSON(t testing.TB, message *structpb.Struct) []byte {
	t.Helper()
	encoded, err := protojson.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// tryRegister registers a passkey.
func (o *owner) tryRegister(t *testing.T, key *passkeytest.Key, changes ...passkeytest.Change) (*authv1.FinishPasskeyRegistrationResponse, error) {
	t.Helper()
	begun, err := o.h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: o.origin, DisplayName: "Ada Lovelace"})
	if err != nil {
		return nil, err
	}
	response := toStruct(t, key.Register(t, toJSON(t, begun.GetOptions()), passkeyOrigin, changes...))
	return o.h.passkeys.FinishPasskeyRegistration(t.Context(), &authv1.FinishPasskeyRegistrationRequest{
		RegistrationToken: begun.GetRegistrationToken(), Response: response, Origin: o.origin,
	})
}

// register registers a new passkey of an algorithm, and holds the next tokens.
func (o *owner) register(t *testing.T, algorithm int) (*passkeytest.Key, *authv1.FinishPasskeyRegistrationResponse) {
	t.Helper()
	key := passkeytest.New(t, algorithm)
	made, err := o.tryRegister(t, key)
	if err != nil {
		t.Fatalf("register a passkey: %v", err)
	}
	o.hold(t, made.GetTokens())
	return key, made
}

// begin begins a sign-in by passkey.
func (h *passkeyHarness) begin(t testing.TB) *authv1.Challenge {
	t.Helper()
	begun, err := h.passkeys.BeginPasskeyLogin(t.Context(), &authv1.BeginPasskeyLoginRequest{})
	if err != nil {
		t.Fatalf("BeginPasskeyLogin: %v", err)
	}
	return begun.GetChallenge()
}

// answer answers a challenge with a passkey.
func (h *passkeyHarness) answer(t testing.TB, owed *authv1.Challenge, key *passkeytest.Key, changes ...passkeytest.Change) (*authv1.CompleteLoginResponse, error) {
	t.Helper()
	return h.send(t, owed, key.SignIn(t, toJSON(t, owed.GetPasskeyOptions()), passkeyOrigin, changes...))
}

func (h *passkeyHarness) send(t testing.TB, owed *authv1.Challenge, response []byte) (*authv1.CompleteLoginResponse, error) {
	t.Helper()
	return h.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{
		ChallengeToken: owed.GetToken(), Proof: &authv1.Proof{Kind: &authv1.Proof_Passkey{Passkey: toStruct(t, response)}},
	})
}

// signIn signs in by passkey.
func (h *passkeyHarness) signIn(t testing.TB, key *passkeytest.Key, changes ...passkeytest.Change) (*authv1.CompleteLoginResponse, error) {
	t.Helper()
	return h.answer(t, h.begin(t), key, changes...)
}

func (h *passkeyHarness) challengeOf(t *testing.T, email string) *authv1.Challenge {
	t.Helper()
	response, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: email, Password: password, AcceptsChallenge: true})
	if err != nil || response.GetChallenge() == nil || response.GetTokens() != nil {
		t.Fatalf("Login: %v, %v; want a challenge", response, err)
	}
	return response.GetChallenge()
}

// wantProofs checks the level and the methods in an access token.
func wantProofs(t *testing.T, tokens *authv1.Tokens, acr string, amr ...string) {
	t.Helper()
	var claims struct {
		jwt.RegisteredClaims
		ACR string   `json:"acr"`
		AMR []string `json:"amr"`
	}
	if _, _, err := jwt.NewParser().ParseUnverified(tokens.GetAccessToken(), &claims); err != nil {
		t.Fatalf("the access token %q: %v", tokens.GetAccessToken(), err)
	}
	slices.Sort(claims.AMR)
	slices.Sort(amr)
	if claims.ACR != acr || !slices.Equal(claims.AMR, amr) {
		t.Errorf("the token says %s %v, want %s %v", claims.ACR, claims.AMR, acr, amr)
	}
}

func TestAPasskeySignsIn(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	for _, algorithm := range []int{passkeytest.EdDSA, passkeytest.ES256, passkeytest.RS256} {
		ada := h.newOwner(t, newID(t)+"@example.com")
		key, made := ada.register(t, algorithm)
		if len(made.GetRecoveryCodes()) != 10 || made.GetPasskey().GetName() != webauthn.DefaultName {
			t.Errorf("algorithm %d: registering returned %v", algorithm, made)
		}
		wantProofs(t, made.GetTokens(), "aal2", "pop", "pwd", "swk", "user", "mfa")

		signedIn, err := h.signIn(t, key)
		if err != nil || signedIn.GetAccount().GetId() != ada.account.GetId() {
			t.Fatalf("algorithm %d: signing in returned %v, %v", algorithm, signedIn, err)
		}
		wantProofs(t, signedIn.GetTokens(), "aal2", "pop", "swk", "user", "mfa")

		owed := h.challengeOf(t, ada.account.GetEmail())
		if got := owed.GetMethods(); len(got) == 0 || got[0] != "passkey" {
			t.Errorf("algorithm %d: the challenge offers %v, want the passkey first", algorithm, got)
		}
		second, err := h.answer(t, owed, key)
		if err != nil {
			t.Fatalf("algorithm %d: after the password: %v", algorithm, err)
		}
		wantProofs(t, second.GetTokens(), "aal2", "pop", "pwd", "swk", "user", "mfa")
	}
}

func TestSeveralPasskeys(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	first, made := ada.register(t, passkeytest.ES256)
	begun, err := h.passkeys.BeginPasskeyRegistration(t.Context(), &authv1.BeginPasskeyRegistrationRequest{Origin: ada.origin, DisplayName: "Ada Lovelace"})
	if err != nil {
		t.Fatal(err)
	}
	if options := passkeytest.Parse(t, toJSON(t, begun.GetOptions())); !first.Names(options.Excluded) || options.User.Name != "ada@example.com" || options.User.DisplayName != "Ada Lovelace" {
		t.Errorf("the options are %v, want the first passkey excluded", begun.GetOptions())
	}
	second, more := ada.register(t, passkeytest.EdDSA)
	if len(more.GetRecoveryCodes()) != 0 {
		t.Errorf("the second passkey came with recovery codes: %v", more)
	}

	renamed, err := h.passkeys.RenamePasskey(t.Context(), &authv1.RenamePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Name: "Laptop", Origin: ada.origin})
	if err != nil || renamed.GetPasskey().GetName() != "Laptop" {
		t.Errorf("RenamePasskey: %v, %v", renamed, err)
	}
	eve := h.newOwner(t, "eve@example.com")
	_, err = h.passkeys.RenamePasskey(t.Context(), &authv1.RenamePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Name: "Mine", Origin: eve.origin})
	wantReason(t, err, connect.CodeNotFound, "PASSKEY_NOT_FOUND")
	_, err = h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Origin: eve.origin})
	wantReason(t, err, connect.CodeNotFound, "PASSKEY_NOT_FOUND")

	if _, err := h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Origin: ada.origin}); err != nil {
		t.Fatalf("DeletePasskey: %v", err)
	}
	_, err = h.signIn(t, first)
	wantReason(t, err, connect.CodeUnauthenticated, "PASSKEY_UNKNOWN")
	again, err := h.signIn(t, second)
	if err != nil {
		t.Fatalf("the other passkey: %v", err)
	}
	ada.hold(t, again.GetTokens())
	if _, err := h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: more.GetPasskey().GetPasskeyId(), Origin: ada.origin}); err != nil {
		t.Fatalf("delete the last passkey: %v", err)
	}
	if login, err := h.login(t, "ada@example.com", password); err != nil || login.GetTokens() == nil {
		t.Errorf("without a second factor, Login returned %v, %v", login, err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.recovery_codes WHERE account_id = $1", ada.account.GetId()); n != 0 {
		t.Errorf("%d recovery codes outlived the last second factor", n)
	}
}
