package auth_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	post "gatehouse/internal/mail"
)

const newPassword = "a brand new passphrase"

// withMail lets a harness send mail. Nobody takes it out of the outbox but the
// test.
func withMail(c *auth.Config) { c.Mailer, c.MailFrom = unsent{}, "no-reply@auth.example.com" }

type unsent struct{}

func (unsent) Send(context.Context, post.Message) error {
	return errors.New("the test takes it out of the outbox itself")
}

func byLink(c *auth.Config) { withMail(c); c.Registration = auth.RegistrationVerify }

// post empties the outbox and returns the mails that would have been sent, in
// the order in which they were written.
func (h *harness) post(t *testing.T) []auth.MailForTest {
	t.Helper()
	sent := h.addressAll(t)
	h.exec(t, "DELETE FROM auth.mails")
	return sent
}

// addressAll does with the mails of the outbox what is done just before they are
// sent.
func (h *harness) addressAll(t *testing.T) []auth.MailForTest {
	t.Helper()
	rows, err := h.owner.Query(t.Context(), `
		SELECT id::text, sealed_values, kind, recipient, coalesce(account_id::text, ''), locale
		FROM auth.mails WHERE sent_time IS NULL ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	var sealed [][]byte
	var mails []auth.MailForTest
	for rows.Next() {
		var id string
		var values []byte
		var mail auth.MailForTest
		if err := rows.Scan(&id, &values, &mail.Kind, &mail.To, &mail.Account, &mail.Locale); err != nil {
			t.Fatal(err)
		}
		ids, sealed, mails = append(ids, id), append(sealed, values), append(mails, mail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	var sent []auth.MailForTest
	for i, mail := range mails {
		mail, wanted, err := h.service.AddressForTest(t.Context(), secretOne, ids[i], sealed[i], mail)
		if err != nil {
			t.Fatalf("address a mail: %v", err)
		}
		if wanted {
			sent = append(sent, mail)
		}
	}
	return sent
}

// mailed empties the outbox, which must hold one mail of the kind and to the
// address, and returns it.
func (h *harness) mailed(t *testing.T, kind, to string) auth.MailForTest {
	t.Helper()
	sent := h.post(t)
	for _, mail := range sent {
		if mail.Kind == kind && mail.To == to {
			return mail
		}
	}
	t.Fatalf("got the mails %+v, want a %s to %s", sent, kind, to)
	return auth.MailForTest{}
}

// wantMails empties the outbox, which must hold just these: "kind address".
func (h *harness) wantMails(t *testing.T, want ...string) []auth.MailForTest {
	t.Helper()
	sent := h.post(t)
	var got []string
	for _, mail := range sent {
		got = append(got, mail.Kind+" "+mail.To)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the mails %q, want %q", got, want)
	}
	return sent
}

// register asks for an account as a person does.
func (h *harness) register(t *testing.T, email string) *authv1.CreateAccountResponse {
	t.Helper()
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: email, Password: password, SignIn: true,
		Profile: &authv1.ProfileSeed{FirstName: "Ada", LastName: "Lovelace"},
	})
	if err != nil {
		t.Fatalf("register %s: %v", email, err)
	}
	return response
}

// create makes an account as an administrator does.
func (h *harness) create(t *testing.T, email, password string) *authv1.Account {
	t.Helper()
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: email, Password: password})
	if err != nil {
		t.Fatalf("create %s: %v", email, err)
	}
	return response.GetAccount()
}

// patiently repeats what the queue for hashing had no room for.
func patiently[Res any](call func() (Res, error)) (Res, error) {
	for {
		res, err := call()
		if fault.Reason(err) != "TOO_MANY_PASSWORD_CHECKS" {
			return res, err
		}
	}
}

func (h *harness) verify(t *testing.T, token string) (*authv1.VerifyEmailResponse, error) {
	t.Helper()
	return patiently(func() (*authv1.VerifyEmailResponse, error) {
		return h.links.VerifyEmail(t.Context(), &authv1.VerifyEmailRequest{Token: token, Password: newPassword, AccountId: newID(t)})
	})
}

func (h *harness) reset(t *testing.T, token string) error {
	t.Helper()
	_, err := patiently(func() (*authv1.ResetPasswordResponse, error) {
		return h.links.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Token: token, NewPassword: newPassword})
	})
	return err
}

func (h *harness) confirm(t *testing.T, token string) (*authv1.ConfirmEmailChangeResponse, error) {
	t.Helper()
	return h.links.ConfirmEmailChange(t.Context(), &authv1.ConfirmEmailChangeRequest{Token: token})
}

func (h *harness) requestReset(t *testing.T, email string) {
	t.Helper()
	if _, err := h.links.RequestPasswordReset(t.Context(), &authv1.RequestPasswordResetRequest{Email: email}); err != nil {
		t.Fatalf("RequestPasswordReset %s: %v", email, err)
	}
}

// origin is the account's, by its latest session.
func (h *harness) origin(t *testing.T, account *authv1.Account) *authv1.Origin {
	t.Helper()
	origin := &authv1.Origin{AccountId: account.GetId()}
	err := h.owner.QueryRow(t.Context(), "SELECT id FROM auth.sessions WHERE account_id = $1 ORDER BY create_time DESC LIMIT 1", account.GetId()).Scan(&origin.SessionId)
	if err != nil {
		t.Fatalf("a session of %s: %v", account.GetEmail(), err)
	}
	return origin
}

func (h *harness) requestEmail(t *testing.T, account *authv1.Account, email string) {
	t.Helper()
	_, err := h.links.RequestEmailChange(t.Context(), &authv1.RequestEmailChangeRequest{NewEmail: email, Origin: h.origin(t, account)})
	if err != nil {
		t.Fatalf("RequestEmailChange to %s: %v", email, err)
	}
}

// newLinks makes one open link of each kind, for accounts of their own, and
// returns the tokens and, but for the registration, the accounts.
func (h *harness) newLinks(t *testing.T) (tokens map[string]string, accounts map[string]*authv1.Account) {
	t.Helper()
	tokens, accounts = map[string]string{}, map[string]*authv1.Account{}
	h.register(t, "register@example.com")
	tokens["register"] = h.mailed(t, "verify_email", "register@example.com").Token

	accounts["invite"] = h.create(t, "invite@example.com", "")
	tokens["invite"] = h.mailed(t, "invitation", "invite@example.com").Token

	accounts["verify"] = h.create(t, "verify@example.com", password)
	_, err := h.links.SendVerification(t.Context(), &authv1.SendVerificationRequest{Origin: &authv1.Origin{AccountId: accounts["verify"].GetId()}})
	if err != nil {
		t.Fatalf("SendVerification: %v", err)
	}
	tokens["verify"] = h.mailed(t, "verify_email", "verify@example.com").Token

	accounts["reset"] = h.create(t, "reset@example.com", password)
	h.requestReset(t, "reset@example.com")
	tokens["reset"] = h.mailed(t, "reset_password", "reset@example.com").Token

	accounts["email_change"] = h.create(t, "change@example.com", password)
	if _, err := h.login(t, "change@example.com", password); err != nil {
		t.Fatal(err)
	}
	h.requestEmail(t, accounts["email_change"], "changed@example.com")
	tokens["email_change"] = h.mailed(t, "confirm_email", "changed@example.com").Token
	return tokens, accounts
}

// redeemers are the methods that take a link, by their names.
func (h *harness) redeemers(t *testing.T) map[string]func(token string) error {
	return map[string]func(token string) error{
		"VerifyEmail":        func(token string) error { _, err := h.verify(t, token); return err },
		"ResetPassword":      func(token string) error { return h.reset(t, token) },
		"ConfirmEmailChange": func(token string) error { _, err := h.confirm(t, token); return err },
	}
}

// takes says which method takes which kind of link.
var takes = map[string]string{
	"register": "VerifyEmail", "verify": "VerifyEmail", "invite": "VerifyEmail",
	"reset": "ResetPassword", "email_change": "ConfirmEmailChange",
}

func TestALinkIsForOnePurposeAndWorksOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, _ := h.newLinks(t)
	for kind, token := range tokens {
		for name, redeem := range h.redeemers(t) {
			if name != takes[kind] {
				if err := redeem(token); connect.CodeOf(err) != connect.CodeInvalidArgument || fault.Reason(err) != "LINK_INVALID" {
					t.Errorf("%s with a link of kind %s: got %v, want LINK_INVALID", name, kind, err)
				}
			}
		}
		redeem := h.redeemers(t)[takes[kind]]
		if err := redeem(token); err != nil {
			t.Errorf("%s with a link of kind %s: %v", takes[kind], kind, err)
		}
		for range 2 {
			if err := redeem(token); connect.CodeOf(err) != connect.CodeFailedPrecondition || fault.Reason(err) != "LINK_USED" {
				t.Errorf("%s with a used link of kind %s: got %v, want LINK_USED", takes[kind], kind, err)
			}
		}
	}
}

func TestOfManyWhoUseALinkAtOnceOneDoes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, _ := h.newLinks(t)
	accounts := h.count(t, "SELECT count(*) FROM auth.accounts")
	for kind, token := range tokens {
		sessions := h.liveSessions(t)
		redeem := h.redeemers(t)[takes[kind]]
		const many = 10
		var won atomic.Int32
		var wait sync.WaitGroup
		release := h.holdAccounts(t)
		for range many {
			wait.Go(func() {
				switch err := redeem(token); {
				case err == nil:
					won.Add(1)
				case fault.Reason(err) != "LINK_USED":
					t.Errorf("a link of kind %s: %v", kind, err)
				}
			})
		}
		release()
		wait.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of %d used a link of kind %s, want 1", won.Load(), many, kind)
		}
		if begun := h.liveSessions(t) - sessions; takes[kind] == "VerifyEmail" && begun != 1 {
			t.Errorf("a link of kind %s began %d sessions, want 1", kind, begun)
		}
	}
	if made := h.count(t, "SELECT count(*) FROM auth.accounts") - accounts; made != 1 {
		t.Errorf("%d accounts were made, want the registered one", made)
	}
}

// holdAccounts locks all account rows and the registered email, so that every
// transaction that changes or creates such an account blocks. release waits until three
// transactions are blocked, so that all three have read the same state, and unlocks.
func (h *harness) holdAccounts(t *testing.T) (release func()) {
	t.Helper()
	tx, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), `
		SELECT pg_advisory_xact_lock(hashtextextended('gatehouse email register@example.com', 0)) FROM (SELECT FROM auth.accounts FOR UPDATE) held`)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		deadline := time.Now().Add(20 * time.Second)
		for h.count(t, "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()") < 3 {
			if time.Now().After(deadline) {
				t.Error("fewer than three transactions wait for the lock")
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestALinkWorksForHalfAnHour(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, _ := h.newLinks(t)
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE expire_time <> create_time + interval '30 minutes'"); n != 0 {
		t.Errorf("%d links don't last for 30 minutes", n)
	}
	for kind, token := range tokens {
		redeem := h.redeemers(t)[takes[kind]]
		h.exec(t, "UPDATE auth.links SET expire_time = now() WHERE kind = $1", kind)
		if err := redeem(token); connect.CodeOf(err) != connect.CodeFailedPrecondition || fault.Reason(err) != "LINK_EXPIRED" {
			t.Errorf("an old link of kind %s: got %v, want LINK_EXPIRED", kind, err)
		}
		h.exec(t, "UPDATE auth.links SET expire_time = now() + interval '1 minute' WHERE kind = $1", kind)
		if err := redeem(token); err != nil {
			t.Errorf("a link of kind %s in its last minute: %v", kind, err)
		}
	}
}

func TestALinkThatIsNotOursIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, _ := h.newLinks(t)
	_, session := h.signedUp(t, "ada@example.com")
	for kind, good := range tokens {
		for _, token := range []string{
			"x", "ghl_", "ghl_x", "ghl_" + strings.Repeat("A", 43), good[:len(good)-1], good + "A", good + "=", " " + good, good + "\n",
			"GHL_" + good[4:], good[4:], "ghr_" + good[4:], strings.ToUpper(good), good[:46] + "_", strings.Repeat("ghl_", 64), session.GetRefreshToken(),
			"ghl_' OR true --", "ghl_\x00",
		} {
			if token == good {
				continue
			}
			if err := h.redeemers(t)[takes[kind]](token); connect.CodeOf(err) != connect.CodeInvalidArgument || fault.Reason(err) != "LINK_INVALID" {
				t.Errorf("%s with %q: got %v, want LINK_INVALID", takes[kind], token, err)
			}
		}
	}
	for name, redeem := range h.redeemers(t) {
		for _, token := range []string{"", strings.Repeat("x", 257)} {
			if err := redeem(token); fault.Reason(err) != fault.ReasonInvalid {
				t.Errorf("%s with %d characters: got %v, want %s", name, len(token), err, fault.ReasonInvalid)
			}
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE end_time IS NOT NULL"); n != 0 {
		t.Errorf("%d links were ended by wrong tokens", n)
	}
}

// signedUp makes an account with a session where people register by link.
func (h *harness) signedUp(t *testing.T, email string) (*authv1.Account, *authv1.Tokens) {
	t.Helper()
	h.create(t, email, password)
	response, err := h.login(t, email, password)
	if err != nil {
		t.Fatalf("sign %s in: %v", email, err)
	}
	return response.GetAccount(), response.GetTokens()
}

func TestAChangeOfEmailOrPasswordEndsTheAccountsOtherLinks(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	other, _ := h.signedUp(t, "other@example.com")
	h.requestEmail(t, other, "others@example.com")
	kept := h.mailed(t, "confirm_email", "others@example.com").Token
	for name, change := range map[string]func(account *authv1.Account, reset, email string) error{
		"ResetPassword": func(_ *authv1.Account, reset, _ string) error { return h.reset(t, reset) },
		"ConfirmEmailChange": func(_ *authv1.Account, _, email string) error {
			_, err := h.confirm(t, email)
			return err
		},
		"VerifyEmail": func(account *authv1.Account, _, _ string) error {
			h.register(t, account.GetEmail())
			_, err := h.verify(t, h.mailed(t, "account_exists", account.GetEmail()).Token)
			return err
		},
		"ChangeAccountEmail": func(account *authv1.Account, _, _ string) error {
			_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: "by-admin@example.com"})
			return err
		},
		"ForcePasswordReset": func(account *authv1.Account, _, _ string) error {
			_, err := h.accounts.ForcePasswordReset(t.Context(), &authv1.ForcePasswordResetRequest{AccountId: account.GetId()})
			return err
		},
		"SetPassword": func(account *authv1.Account, _, _ string) error {
			return h.service.SetPassword(t.Context(), account.GetEmail(), newPassword)
		},
	} {
		email := strings.ToLower(name) + "@example.com"
		account, _ := h.signedUp(t, email)
		h.requestReset(t, email)
		first := h.mailed(t, "reset_password", email).Token
		h.requestReset(t, email)
		second := h.mailed(t, "reset_password", email).Token
		h.requestEmail(t, account, "new-"+email)
		toEmail := h.mailed(t, "confirm_email", "new-"+email).Token
		h.requestReset(t, strings.ToUpper(email)) // in the outbox still
		if err := change(account, first, toEmail); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := h.reset(t, second); connect.CodeOf(err) != connect.CodeFailedPrecondition || fault.Reason(err) != "LINK_SUPERSEDED" {
			t.Errorf("after %s, a link to reset the password: got %v, want LINK_SUPERSEDED", name, err)
		}
		if _, err := h.confirm(t, toEmail); name != "ConfirmEmailChange" && fault.Reason(err) != "LINK_SUPERSEDED" {
			t.Errorf("after %s, a link to change the email: got %v, want LINK_SUPERSEDED", name, err)
		}
		for _, mail := range h.post(t) {
			if mail.Token != "" && name != "ForcePasswordReset" {
				t.Errorf("after %s: a link from before was sent: %+v", name, mail)
			}
		}
		wantOpen := map[string]int{"ForcePasswordReset": 1}[name]
		if n := h.count(t, "SELECT count(*) FROM auth.links WHERE account_id = $1 AND end_time IS NULL", account.GetId()); n != wantOpen {
			t.Errorf("after %s: %d links are open, want %d", name, n, wantOpen)
		}
	}
	if _, err := h.confirm(t, kept); err != nil {
		t.Errorf("another account's link: %v", err)
	}
}

// A call that changes an account and a call that uses one of its links lock the same
// rows. Parallel calls must not fail with an internal error such as a deadlock.
func TestParallelCallsThatEndLinksNeverFailInternally(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	for range 4 {
		account := h.create(t, newID(t)+"@example.com", password)
		if _, err := h.login(t, account.GetEmail(), password); err != nil {
			t.Fatal(err)
		}
		var calls []func() error
		h.requestEmail(t, account, "new-"+account.GetEmail())
		for range 3 {
			h.requestReset(t, account.GetEmail())
			h.register(t, account.GetEmail())
			h.register(t, "new-"+account.GetEmail())
		}
		for _, mail := range h.post(t) {
			switch mail.Kind {
			case "reset_password":
				calls = append(calls, func() error { return h.reset(t, mail.Token) })
			case "verify_email", "account_exists":
				calls = append(calls, func() error { _, err := h.verify(t, mail.Token); return err })
			case "confirm_email":
				calls = append(calls, func() error { _, err := h.confirm(t, mail.Token); return err })
			}
		}
		calls = append(calls,
			func() error {
				_, err := h.accounts.ForcePasswordReset(t.Context(), &authv1.ForcePasswordResetRequest{AccountId: account.GetId()})
				return err
			},
			func() error {
				_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: "by-admin-" + account.GetEmail()})
				return err
			},
			func() error {
				_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()})
				return err
			},
		)
		var wait sync.WaitGroup
		for _, call := range calls {
			wait.Go(func() {
				if err := call(); err != nil && (fault.Reason(err) == "" || fault.Reason(err) == fault.ReasonInternal) {
					t.Errorf("got a fault: %v", err)
				}
			})
		}
		wait.Wait()
		if n := h.count(t, "SELECT count(*) FROM (SELECT FROM auth.accounts GROUP BY lower(email) HAVING count(*) > 1) twice"); n != 0 {
			t.Errorf("%d emails have two accounts", n)
		}
	}
}

func TestALinkOfADeletedAccountIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, accounts := h.newLinks(t)
	h.signedUp(t, "exists@example.com")
	h.register(t, "exists@example.com")
	bound := h.mailed(t, "account_exists", "exists@example.com")
	tokens["register"], accounts["register"] = bound.Token, &authv1.Account{Id: bound.Account}
	for kind, account := range accounts {
		if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()}); err != nil {
			t.Fatalf("delete: %v", err)
		}
		if err := h.redeemers(t)[takes[kind]](tokens[kind]); fault.Reason(err) != "LINK_INVALID" {
			t.Errorf("a link of kind %s: got %v, want LINK_INVALID", kind, err)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 0 {
		t.Errorf("%d accounts came back", n)
	}
}

// The address is changed behind the methods' back, which would have ended the
// link.
func TestALinkToAnEarlierAddressIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, accounts := h.newLinks(t)
	h.exec(t, "UPDATE auth.accounts SET email = 'moved-' || email")
	for kind := range accounts {
		if kind == "email_change" {
			continue // it was sent to the new address
		}
		if err := h.redeemers(t)[takes[kind]](tokens[kind]); connect.CodeOf(err) != connect.CodeFailedPrecondition || fault.Reason(err) != "LINK_SUPERSEDED" {
			t.Errorf("a link of kind %s: got %v, want LINK_SUPERSEDED", kind, err)
		}
	}
}

func TestADisabledAccountsLinkWaitsUntilItIsEnabled(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, accounts := h.newLinks(t)
	for kind, account := range accounts {
		redeem := h.redeemers(t)[takes[kind]]
		h.exec(t, "UPDATE auth.accounts SET status = 'disabled' WHERE id = $1", account.GetId())
		if err := redeem(tokens[kind]); connect.CodeOf(err) != connect.CodePermissionDenied || fault.Reason(err) != "ACCOUNT_DISABLED" {
			t.Errorf("a link of kind %s: got %v, want ACCOUNT_DISABLED", kind, err)
		}
		h.exec(t, "UPDATE auth.accounts SET status = 'active' WHERE id = $1", account.GetId())
		if err := redeem(tokens[kind]); err != nil {
			t.Errorf("a link of kind %s, once enabled: %v", kind, err)
		}
	}
}

func TestATokenStandsNowhereButInItsMail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, _ := h.newLinks(t)
	for kind, token := range tokens {
		if err := h.redeemers(t)[takes[kind]](token + "x"); err == nil {
			t.Fatal("a wrong token was taken")
		}
		if err := h.redeemers(t)[takes[kind]](token); err != nil {
			t.Fatal(err)
		}
	}
	for kind, token := range tokens {
		for _, table := range []string{"links", "mails", "audit_events", "accounts", "sessions", "account_log"} {
			if n := h.count(t, "SELECT count(*) FROM auth."+table+" r WHERE r::text LIKE '%' || $1 || '%'", token[4:]); n != 0 {
				t.Errorf("%s holds the token of kind %s", table, kind)
			}
		}
	}
}

func TestUsesAndRefusalsOfLinksAreAudited(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, accounts := h.newLinks(t)
	events := map[string]string{"VerifyEmail": "link.verify", "ResetPassword": "link.reset", "ConfirmEmailChange": "link.email"}
	for kind, token := range tokens {
		event, redeem := events[takes[kind]], h.redeemers(t)[takes[kind]]
		audited := func(outcome, reason, account string) int {
			return h.count(t, `SELECT coalesce(sum(count), 0) FROM auth.audit_events
				WHERE event = $1 AND outcome = $2 AND reason = $3 AND coalesce(account_id::text, '') = $4`, event, outcome, reason, account)
		}
		account := accounts[kind].GetId()
		before := audited("refused", "LINK_INVALID", "")
		_ = redeem("ghl_unknown")
		if got := audited("refused", "LINK_INVALID", "") - before; got != 1 {
			t.Errorf("an unknown link for %s was audited %d times, want once", takes[kind], got)
		}
		h.exec(t, "UPDATE auth.links SET expire_time = now() WHERE kind = $1", kind)
		_ = redeem(token)
		if got := audited("refused", "LINK_EXPIRED", account); got != 1 {
			t.Errorf("an old link of kind %s was audited %d times, want once", kind, got)
		}
		h.exec(t, "UPDATE auth.links SET expire_time = now() + interval '1 minute' WHERE kind = $1", kind)
		if err := redeem(token); err != nil {
			t.Fatal(err)
		}
		if kind == "register" {
			if err := h.owner.QueryRow(t.Context(), "SELECT id FROM auth.accounts WHERE email = 'register@example.com'").Scan(&account); err != nil {
				t.Fatal(err)
			}
		}
		if got := audited("succeeded", "", account); got != 1 {
			t.Errorf("a use of a link of kind %s was audited %d times, want once", kind, got)
		}
		_ = redeem(token)
		if got := audited("refused", "LINK_USED", accounts[kind].GetId()); got != 1 {
			t.Errorf("a second use of a link of kind %s was audited %d times, want once", kind, got)
		}
	}
}

func TestLinksAreForgottenADayAfterTheyExpired(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	h.newLinks(t)
	h.exec(t, "UPDATE auth.links SET expire_time = now() - interval '25 hours' WHERE kind IN ('reset', 'register')")
	h.exec(t, "UPDATE auth.links SET expire_time = now() - interval '23 hours' WHERE kind = 'invite'")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.service.Run(ctx) }()
	defer func() { stop(); <-ended }()
	for deadline := time.Now().Add(20 * time.Second); h.count(t, "SELECT count(*) FROM auth.links") != 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d links are there, want 3", h.count(t, "SELECT count(*) FROM auth.links"))
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE kind IN ('invite', 'verify', 'email_change')"); n != 3 {
		t.Errorf("%d of the later links are left, want 3", n)
	}
}
