package gatehouse_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

const ownPassword = "correct horse battery"

// created is a person whom an administrator created, so that their email counts as
// verified, and who is signed in.
func created(t *testing.T, store gatehouse.TokenStore) *person {
	t.Helper()
	admin := newClient(t, gatehouse.NewMemoryStore())
	if _, err := admin.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "admin@localhost", Password: adminPassword}); err != nil {
		t.Fatal(err)
	}
	p := newClient(t, store)
	p.email = fmt.Sprintf("created-%d-%d@example.com", people.Add(1), os.Getpid())
	made, err := admin.Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: p.email}, Password: ownPassword})
	if err != nil {
		t.Fatal(err)
	}
	p.id = made.GetUser().GetId()
	if _, err := p.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: p.email, Password: ownPassword}); err != nil {
		t.Fatal(err)
	}
	return p
}

// codeOf returns the code that an authenticator app with the secret shows (RFC 6238), steps
// of 30 s from now.
func codeOf(t *testing.T, secret string, steps int64) string {
	t.Helper()
	key, err := base32.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, key)
	_ = binary.Write(mac, binary.BigEndian, time.Now().Unix()/30+steps)
	sum := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1_000_000)
}

// enrol enrols an authenticator app, and returns its secret and the recovery codes.
func (p *person) enrol(t *testing.T) (secret string, codes []string) {
	t.Helper()
	begun, err := p.Account.BeginTOTPEnrolment(t.Context(), &bffv1.BeginTOTPEnrolmentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	finished, err := p.Account.FinishTOTPEnrolment(t.Context(), &bffv1.FinishTOTPEnrolmentRequest{
		EnrolmentToken: begun.GetEnrolmentToken(), Code: codeOf(t, begun.GetSecret(), -1),
	})
	if err != nil {
		t.Fatal(err)
	}
	return begun.GetSecret(), finished.GetRecoveryCodes()
}

func (p *person) wantLevel(t *testing.T, level int32) {
	t.Helper()
	me, err := p.Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
	if err != nil || me.GetUser().GetId() != p.id || me.GetSecurity().GetLevel() != level {
		t.Errorf("GetMe: got %s at level %d, %v; want %s at level %d", me.GetUser().GetId(), me.GetSecurity().GetLevel(), err, p.id, level)
	}
}

func TestAChallengeIsAnsweredAndBeginsTheSession(t *testing.T) {
	t.Parallel()
	p := created(t, gatehouse.NewMemoryStore())
	secret, codes := p.enrol(t)
	p.wantLevel(t, 2)
	if err := p.Refresh(t.Context()); err != nil { // by the tokens of level 2
		t.Errorf("refresh after the enrolment: %v", err)
	}
	if _, err := p.Auth.Logout(t.Context(), &bffv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	login := func() *bffv1.LoginResponse {
		t.Helper()
		answer, err := p.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: p.email, Password: ownPassword})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	owed := login().GetChallenge()
	if signedIn, err := p.SignedIn(t.Context()); owed == nil || signedIn || err != nil {
		t.Fatalf("Login: got the challenge %v, signed in %t, %v", owed, signedIn, err)
	}
	complete := func(request *bffv1.CompleteLoginRequest) error {
		_, err := p.Auth.CompleteLogin(t.Context(), request)
		return err
	}
	err := complete(&bffv1.CompleteLoginRequest{ChallengeToken: owed.GetToken(), Proof: &bffv1.CompleteLoginRequest_TotpCode{TotpCode: "000000"}})
	if gatehouse.Reason(err) != "CODE_WRONG" || connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a wrong code: %v", err)
	}
	// The first answer is lost, and the client repeats the call with the same key.
	p.network.fail = losing(bffv1.AuthServiceCompleteLoginProcedure, 2) // the wrong code was the first
	err = complete(&bffv1.CompleteLoginRequest{ChallengeToken: owed.GetToken(), Proof: &bffv1.CompleteLoginRequest_TotpCode{TotpCode: codeOf(t, secret, 0)}, RememberDevice: true})
	if err != nil {
		t.Fatalf("CompleteLogin: %v", err)
	}
	p.wantLevel(t, 2)
	// The client sends the token of the remembered device.
	if _, err := p.Auth.Logout(t.Context(), &bffv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	if answer := login(); answer.GetSignedIn() == nil {
		t.Fatalf("Login on the remembered device: %v", answer)
	}
	p.wantLevel(t, 1)
	// A step-up gives the session its next tokens.
	stepUp, err := p.Account.Reauthenticate(t.Context(), &bffv1.ReauthenticateRequest{Password: ownPassword})
	if err != nil {
		t.Fatal(err)
	}
	p.network.fail = losing(bffv1.AccountServiceCompleteReauthenticationProcedure, 1)
	_, err = p.Account.CompleteReauthentication(t.Context(), &bffv1.CompleteReauthenticationRequest{
		ChallengeToken: stepUp.GetChallenge().GetToken(), Proof: &bffv1.CompleteReauthenticationRequest_RecoveryCode{RecoveryCode: codes[0]},
	})
	if err != nil {
		t.Fatalf("CompleteReauthentication whose answer was lost: %v", err)
	}
	p.wantLevel(t, 2)
	if err := p.Refresh(t.Context()); err != nil {
		t.Errorf("refresh after the step-up: %v", err)
	}
}

// The change of level revokes the access token of the call itself: the client refreshes,
// and repeats the call with its key.
func TestALostAnswerOfAnEnrolmentCostsNothing(t *testing.T) {
	t.Parallel()
	p := created(t, gatehouse.NewMemoryStore())
	p.network.fail = func(called string, count int) (*http.Response, error) {
		if called == bffv1.AccountServiceFinishTOTPEnrolmentProcedure && count == 1 {
			time.Sleep(2 * time.Second) // until the gateway refuses the access token
			return nil, errLost
		}
		return nil, nil
	}
	if _, codes := p.enrol(t); len(codes) != 10 {
		t.Errorf("got %d recovery codes, want 10", len(codes))
	}
	keys := p.network.keysOf(bffv1.AccountServiceFinishTOTPEnrolmentProcedure)
	for _, key := range keys {
		if key == "" || key != keys[0] {
			t.Errorf("the attempts had the keys %q, want one", keys)
		}
	}
	if len(keys) < 2 {
		t.Errorf("%d attempts, want the lost one and another", len(keys))
	}
	p.wantLevel(t, 2)
}

// Somebody else signs in through the same store while an enrolment is under way.
func TestTokensOfAnEarlierSessionDoNotReplaceThePresentOnes(t *testing.T) {
	t.Parallel()
	store := gatehouse.NewMemoryStore()
	ada := created(t, store)
	bob := created(t, gatehouse.NewMemoryStore())
	other := newClient(t, store)
	ada.network.fail = func(called string, _ int) (*http.Response, error) {
		if called == bffv1.AccountServiceFinishTOTPEnrolmentProcedure {
			if _, err := other.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: bob.email, Password: ownPassword}); err != nil {
				t.Error(err)
			}
		}
		return nil, nil
	}
	ada.enrol(t)
	me, err := other.Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
	if err != nil || me.GetUser().GetId() != bob.id {
		t.Errorf("the store has the session of %s, %v; want that of %s", me.GetUser().GetId(), err, bob.id)
	}
}

// Every answer of AccountService that has tokens has the session's next ones.
func TestTheNextTokensOfEveryAnswerAreStored(t *testing.T) {
	t.Parallel()
	methods := bffv1.File_bff_v1_account_service_proto.Services().ByName("AccountService").Methods()
	var found int
	for i := range methods.Len() {
		output := methods.Get(i).Output()
		field := output.Fields().ByName("tokens")
		if field == nil || field.Message() == nil || field.Message().FullName() != "bff.v1.Tokens" {
			continue
		}
		found++
		kind, err := protoregistry.GlobalTypes.FindMessageByName(output.FullName())
		if err != nil {
			t.Fatal(err)
		}
		answer := kind.New()
		answer.Set(field, protoreflect.ValueOfMessage((&bffv1.Tokens{RefreshToken: "next"}).ProtoReflect()))
		if gatehouse.NextTokens(answer.Interface()).GetRefreshToken() != "next" {
			t.Errorf("the tokens of %s are not stored", output.FullName())
		}
	}
	if found < 3 {
		t.Errorf("%d answers have tokens, want at least 3", found)
	}
}
