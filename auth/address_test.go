package auth_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/email/emailtest"
	"gatehouse/internal/mailtest"
)

// Wherever an account is given an email, the same ones are taken.
func TestEverythingAgreesOnWhichEmailsAnAccountMayHave(t *testing.T) {
	t.Parallel()
	const id = "01900000-0000-7000-8000-000000000001"
	for address, want := range emailtest.Addresses {
		for _, request := range []proto.Message{
			&authv1.CreateAccountRequest{AccountId: id, Email: address},
			&authv1.ChangeAccountEmailRequest{AccountId: id, Email: address},
			&authv1.RequestEmailChangeRequest{NewEmail: address, Origin: &authv1.Origin{}},
			&bffv1.RegisterRequest{Email: address, Password: password},
			&bffv1.RequestEmailChangeRequest{NewEmail: address},
			&bffv1.ChangeUserEmailRequest{UserId: id, Email: address},
			&bffv1.CreateUserRequest{User: &bffv1.User{Email: address}},
		} {
			if err := protovalidate.Validate(request); (err == nil) != want {
				t.Errorf("%s of %q: got %v, want it taken: %t", request.ProtoReflect().Descriptor().Name(), address, err, want)
			}
		}
	}
}

func TestImportTakesTheEmailsThatTheAPITakes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for address, want := range emailtest.Addresses {
		line, err := json.Marshal(map[string]string{"email": address})
		if err != nil {
			t.Fatal(err)
		}
		refusal := ""
		made, err := h.service.Import(t.Context(), strings.NewReader(string(line)), true, func(_ int, reason string) { refusal = reason })
		if err != nil || (made == 1) != want || (refusal == "") != want {
			t.Errorf("%q: made %d, refused with %q, %v; want it taken: %t", address, made, refusal, err, want)
		}
	}
}

// An account from before the rule keeps working, but for its mail.
func TestAnEmailThatCannotBeMailedStillSignsIn(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	account, _ := h.signUpUnmailed(t, "ab@example.com")
	h.exec(t, "UPDATE auth.accounts SET email = 'a..b@example.com' WHERE id = $1", account.GetId())
	if _, err := h.login(t, "a..b@example.com", password); err != nil {
		t.Errorf("Login: %v", err)
	}
	h.exec(t, "DELETE FROM auth.mails")
	h.requestReset(t, "a..b@example.com")
	h.run(t)
	h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE recipient = 'a..b@example.com' AND fail_time IS NOT NULL AND attempts = 1")
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'mail.fail' AND reason = 'MAIL_REFUSED'"); n != 1 {
		t.Errorf("the audit has %d events of it, want 1", n)
	}
	if n := len(server.Received()); n != 0 {
		t.Errorf("the server got %d mails, want none", n)
	}
}

func TestARecipientThatTheServerRefusesIsGivenUp(t *testing.T) {
	t.Parallel()
	h, _ := newMailHarness(t, mailtest.Config{Rcpt: func(to string) error {
		switch {
		case strings.HasPrefix(to, "syntax"):
			return mailtest.Refuse(501, "bad address syntax")
		case strings.HasPrefix(to, "login"):
			return mailtest.Refuse(530, "authentication required")
		}
		return mailtest.Refuse(450, "come again")
	}})
	h.run(t)
	for name, failed := range map[string]int{"syntax": 1, "login": 0, "later": 0} {
		id := h.enqueue(t, resetMail(name+"@example.com"))
		for try := range 2 {
			h.untilTried(t, id, try+1)
			h.due(t, id)
		}
		h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE id = $1 AND attempts = 3 AND last_error <> ''", id)
		if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE id = $1 AND fail_time IS NOT NULL", id); n != failed {
			t.Errorf("%s: given up %d times after three refusals, want %d", name, n, failed)
		}
	}
}

// The hanging ones last until the test ends: whatever arrives did so beside them.
func TestRecipientsThatHangDelayNobodyElse(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h, server := newMailHarness(t, mailtest.Config{Rcpt: func(to string) error {
		if strings.HasPrefix(to, "slow") {
			<-release
		}
		return nil
	}})
	t.Cleanup(func() { close(release) })
	for n := range 9 {
		h.enqueue(t, resetMail(fmt.Sprintf("slow@host%d.example", n)))
	}
	for n := range 9 {
		h.enqueue(t, resetMail(fmt.Sprintf("slow%d@one.example", n)))
	}
	h.run(t)
	h.until(t, 8, "SELECT count(*) FROM auth.mails WHERE attempts = 1")
	for n := range 20 {
		h.enqueue(t, resetMail(fmt.Sprintf("quick%d@example.com", n)))
	}
	server.Wait(t, 20)
	if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE recipient LIKE 'slow%' AND (last_error <> '' OR attempts > 1)"); n != 0 {
		t.Errorf("the good mail arrived only after %d of the hanging sends had ended", n)
	}
	h.until(t, 20, "SELECT count(*) FROM auth.mails WHERE recipient LIKE 'quick%' AND sent_time IS NOT NULL")
}

func TestNamesThatLookLikeLinksOrMarkupAreRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"Ada": true, "Dr. J. O'Neil-Smith": true, "\u674e \u660e": true, "": true, "A > B": true,
		"http://evil.example": false, "see evil://x": false, "<b>": false, "Ada<": false,
	} {
		for _, request := range []proto.Message{
			&bffv1.RegisterRequest{Email: "a@example.com", Password: password, FirstName: name},
			&bffv1.RegisterRequest{Email: "a@example.com", Password: password, LastName: name},
			&bffv1.VerifyEmailRequest{Token: "t", Password: password, FirstName: &name},
			&bffv1.VerifyEmailRequest{Token: "t", Password: password, LastName: &name},
			&bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: name}},
			&bffv1.CreateUserRequest{User: &bffv1.User{Email: "a@example.com", LastName: name}},
		} {
			if err := protovalidate.Validate(request); (err == nil) != want {
				t.Errorf("%T with the name %q: got %v, want it taken: %t", request, name, err, want)
			}
		}
	}
	h := newHarness(t)
	refusals := 0
	made, err := h.service.Import(t.Context(), strings.NewReader(`{"email":"a@example.com","first_name":"http://evil.example"}`), true, func(int, string) { refusals++ })
	if err != nil || made != 0 || refusals != 1 {
		t.Errorf("an import made %d and refused %d, %v; want the name refused", made, refusals, err)
	}
}
