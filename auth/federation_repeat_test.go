package auth_test

import (
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/passkeytest"
)

// owing are the visits that lead to a challenge which links the identity.
var owing = map[string]struct {
	claims  jwt.MapClaims
	email   string // typed by the person
	arrange func(t *testing.T, f *federated)
	methods string
	mails   int
}{
	"an account's password": {
		arrange: func(t *testing.T, f *federated) {
			account, _ := f.signUp(t, "ada@example.com")
			f.verify(t, account)
		},
		methods: "[link password]",
	},
	"an account without a password": {
		arrange: func(t *testing.T, f *federated) {
			account, _ := f.signUp(t, "ada@example.com")
			f.verify(t, account)
			f.exec(t, `UPDATE auth.accounts SET password_hash = ''`)
		},
		methods: "[link email_code]", mails: 1,
	},
	"an email that the provider does not vouch for": {
		claims: jwt.MapClaims{"email_verified": false}, methods: "[link email_code]", mails: 1,
	},
	"a typed email": {claims: jwt.MapClaims{"email": nil}, email: "ada@example.com", methods: "[link email_code]", mails: 1},
}

// completeWith completes a visit with a typed email.
func (f *federated) completeWith(t *testing.T, answer *authv1.FederatedAnswer, email, key string) (*authv1.CompleteFederatedLoginResponse, error) {
	t.Helper()
	return f.federation.CompleteFederatedLogin(t.Context(), &authv1.CompleteFederatedLoginRequest{Answer: answer, AccountId: newID(t), Email: email, IdempotencyKey: key})
}

// codes returns how many codes were mailed.
func (f *federated) codes(t *testing.T) int {
	t.Helper()
	return f.count(t, `SELECT count(*) FROM auth.mails WHERE kind = 'sign_in'`)
}

// finish gives the proof that a challenge asks for.
func (f *federated) finish(t *testing.T, owed *authv1.Challenge) {
	t.Helper()
	proof := &authv1.Proof{Kind: &authv1.Proof_Password{Password: password}}
	if code := f.codeTo(t, "ada@example.com"); code != "" {
		proof = &authv1.Proof{Kind: &authv1.Proof_EmailCode{EmailCode: code}}
	}
	done, err := f.sessions.CompleteLogin(t.Context(), &authv1.CompleteLoginRequest{ChallengeToken: owed.GetToken(), Proof: proof})
	if err != nil || done.GetAccount().GetEmail() != "ada@example.com" || done.GetTokens() == nil || f.identities(t, done.GetAccount()) != 1 {
		t.Errorf("got %v, %v, want a session of ada@example.com with the identity", done, err)
	}
}

func TestARepeatedAnswerGetsTheSameChallenge(t *testing.T) {
	t.Parallel()
	for name, test := range owing {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, withMail)
			if test.arrange != nil {
				test.arrange(t, f)
			}
			f.provider.SetClaims(test.claims)
			answer := f.visit(t, false, nil)
			first, err := f.completeWith(t, answer, test.email, "key")
			if err != nil || fmt.Sprint(first.GetChallenge().GetMethods()) != test.methods {
				t.Fatalf("got %v, %v, want a challenge with %s", first, err, test.methods)
			}
			again, err := f.completeWith(t, answer, test.email, "key")
			if err != nil || again.GetChallenge().GetToken() != first.GetChallenge().GetToken() ||
				fmt.Sprint(again.GetChallenge().GetMethods()) != test.methods || again.GetReturnTo() != first.GetReturnTo() {
				t.Errorf("repeated: got %v, %v, want %v", again, err, first)
			}
			_, err = f.completeWith(t, answer, test.email, "another")
			wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
			_, err = f.completeWith(t, answer, "mallory@example.com", "key")
			wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
			if mails, exchanges := f.codes(t), f.provider.Calls("/token"); mails != test.mails || exchanges != 1 {
				t.Errorf("%d mails and %d exchanges, want %d and 1", mails, exchanges, test.mails)
			}
			f.finish(t, first.GetChallenge())
			_, err = f.completeWith(t, answer, test.email, "key")
			wantReason(t, err, connect.CodeFailedPrecondition, "CHALLENGE_USED")
		})
	}
}

func TestARepeatedAnswerOffersThePasskeyAgain(t *testing.T) {
	t.Parallel()
	f := newFederated(t, withPasskeys)
	h := &passkeyHarness{harness: f.harness, passkeys: authv1.NewPasskeyServiceClient(f.client)}
	ada := h.newOwner(t, "ada@example.com")
	f.verify(t, ada.account)
	key, _ := ada.register(t, passkeytest.ES256)
	answer := f.visit(t, false, nil)
	first, err := f.complete(t, answer, "key")
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.complete(t, answer, "key")
	if err != nil || fmt.Sprint(again.GetChallenge().GetMethods()) != "[link password passkey]" || again.GetChallenge().GetToken() != first.GetChallenge().GetToken() {
		t.Fatalf("repeated: got %v, %v, want %v", again, err, first)
	}
	if done, err := h.answer(t, again.GetChallenge(), key); err != nil || done.GetTokens() == nil || f.identities(t, ada.account) != 1 {
		t.Errorf("got %v, %v, want a session and the identity", done, err)
	}
}

// The answer of a visit is redeemed once, but what it leads to is not lost with a failure.
func TestAVisitGoesOnAfterItsChallengeCouldNotBeWritten(t *testing.T) {
	t.Parallel()
	for name, test := range owing {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFederated(t, withMail)
			if test.arrange != nil {
				test.arrange(t, f)
			}
			f.provider.SetClaims(test.claims)
			answer := f.visit(t, false, nil)
			f.exec(t, `ALTER TABLE auth.challenges ADD CONSTRAINT broken CHECK (purpose = 'federation') NOT VALID`)
			for range 2 {
				if failed, err := f.completeWith(t, answer, test.email, "key"); connect.CodeOf(err) != connect.CodeInternal {
					t.Fatalf("got %v, %v, want an internal error", failed, err)
				}
			}
			if mails := f.codes(t); mails != 0 {
				t.Errorf("%d mails were written with a challenge that was not", mails)
			}
			f.exec(t, `ALTER TABLE auth.challenges DROP CONSTRAINT broken`)
			var token string
			for range 2 {
				owed, err := f.completeWith(t, answer, test.email, "key")
				if err != nil || fmt.Sprint(owed.GetChallenge().GetMethods()) != test.methods || token != "" && owed.GetChallenge().GetToken() != token {
					t.Fatalf("got %v, %v, want a challenge with %s, and the same twice", owed, err, test.methods)
				}
				token = owed.GetChallenge().GetToken()
			}
			if exchanges := f.provider.Calls("/token"); exchanges != 1 {
				t.Errorf("the code was exchanged %d times, want once", exchanges)
			}
			f.finish(t, &authv1.Challenge{Token: token})
		})
	}
}
