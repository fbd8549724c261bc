package auth_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// importLines imports, and returns how many were made and why others were not,
// by their lines.
func (h *harness) importLines(t *testing.T, text string, dryRun bool) (int, map[int]string) {
	t.Helper()
	refused := map[int]string{}
	made, err := h.service.Import(t.Context(), strings.NewReader(text), dryRun, func(line int, reason string) {
		if before, ok := refused[line]; ok {
			t.Errorf("line %d is refused twice: %s, %s", line, before, reason)
		}
		refused[line] = reason
	})
	if err != nil {
		t.Fatalf("Import: %v", err)
	}
	return made, refused
}

// Made by bcryptjs, hash-wasm and OpenSSL, of "correct horse battery".
var importedHashes = map[string]string{
	"bcrypt":   "$2b$05$0.wUeNFL93Q4uJmxzo6pIOvigk1jpdNk9mTt.12yQ9Y1QRmXSnZTi",
	"argon2i":  "$argon2i$v=19$m=512,t=3,p=2$MDEyMzQ1Njc4OWFiY2RlZg$Ni12sM924VM2rUbPj+tU5QvPi3h7TZVWgD9aiSzkn38",
	"argon2id": "$argon2id$v=19$m=1024,t=2,p=4$MDEyMzQ1Njc4OWFiY2RlZg$F97S9LyfF8y17QFGHCFUpGrkVqj7MW6bR8n2gLHKu5E",
	"scrypt":   "$scrypt$ln=10,r=8,p=2$MDEyMzQ1Njc4OWFiY2RlZg$faCG2Y2MU7gpu0yKEJONexUzhBri6oOSfKdyxUHubQ0",
	"pbkdf2":   "$pbkdf2-sha512$i=1500,l=64$MDEyMzQ1Njc4OWFiY2RlZg$LvyABy9wPQbX/rDtcLAN0S20CKBY04vng7YOIc8pY7VWPCMNEfZkVci8wLMRQb8GjZMnNaSl1lqstc3HpPWrqw",
	"django":   "pbkdf2_sha256$1500$0123456789abcdef$8jzpfkAtYmdiesTnpCyStVQCn+OFAuJ8pJ515t+CZUc=",
}

func TestImportedHashesVerifyOnceAndBecomeArgon2id(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var lines strings.Builder
	for name, hash := range importedHashes {
		fmt.Fprintf(&lines, `{"email":"%s@example.com","password_hash":"%s"}`+"\n", name, hash)
	}
	if made, refused := h.importLines(t, lines.String(), false); made != len(importedHashes) || len(refused) != 0 {
		t.Fatalf("%d were made, refused %v", made, refused)
	}
	for name, hash := range importedHashes {
		email := name + "@example.com"
		stored := func() (stored string) {
			if err := h.owner.QueryRow(t.Context(), "SELECT password_hash FROM auth.accounts WHERE email = $1", email).Scan(&stored); err != nil {
				t.Fatal(err)
			}
			return stored
		}
		_, err := h.login(t, email, "correct horse batterY")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		if got := stored(); got != hash {
			t.Errorf("%s: after a wrong password the hash is %s", name, got)
		}
		for range 2 {
			if _, err := h.login(t, email, "correct horse battery"); err != nil {
				t.Errorf("%s: the right password: %v", name, err)
			}
			if got := stored(); !strings.HasPrefix(got, "$argon2id$v=19$m=19456,t=2,p=1$") {
				t.Errorf("%s: after the sign-in the hash is %s, want Argon2id", name, got)
			}
		}
	}
}

func TestImportStoresEveryFieldAndUsersReceivesIt(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	const id = "0190d4a0-0000-7000-8000-00000000ABCD"
	made, refused := h.importLines(t, "\ufeff"+`{"id":"`+id+`","email":" Ada@Example.com ","email_verified":true,"first_name":"Ada","last_name":"Łoś","locale":"pl-PL","roles":["support","admin","support"],"status":"disabled"}

{"email":"plain@example.com","password_hash":"`+importedHashes["bcrypt"]+`"}
`, false)
	if made != 2 || len(refused) != 0 {
		t.Fatalf("%d were made, refused %v", made, refused)
	}
	found, err := h.accounts.GetAccount(t.Context(), &authv1.GetAccountRequest{AccountId: strings.ToLower(id)})
	if err != nil {
		t.Fatal(err)
	}
	account := found.GetAccount()
	if account.GetEmail() != "Ada@example.com" || !account.GetEmailVerified() || account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_DISABLED ||
		fmt.Sprint(account.GetRoles()) != "[admin support]" {
		t.Errorf("the account is %v", account)
	}
	_, err = h.login(t, "ada@example.com", "any password at all")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID") // it has none
	h.run(t)
	for _, call := range far.untilReceived(t, 2) {
		if call.GetAccountId() == strings.ToLower(id) && call.GetPresent().GetLastName() != "Łoś" {
			t.Errorf("users received %v", call)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'account.create' AND user_agent = 'gatehouse admin import'"); n != 2 {
		t.Errorf("the audit holds %d of the import, want 2", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE email = 'plain@example.com' AND substr(id::text, 15, 1) = '7' AND status = 'active' AND NOT email_verified"); n != 1 {
		t.Error("the one without an id has no UUIDv7, or other defaults")
	}
}

func TestEachBadLineOfAnImportIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	existing, _ := h.signUp(t, "taken@example.com")
	bad := []struct{ line, want string }{
		{`not json`, "invalid character"},
		{`{"email":"a@example.com"`, "unexpected EOF"},
		{`{"email":"a@example.com"}{"email":"b@example.com"}`, "a line of its own"},
		{`["a@example.com"]`, "cannot unmarshal array"},
		{`{"email":"a@example.com","passwort_hash":"x"}`, `unknown field "passwort_hash"`},
		{`{"email":"a@example.com","roles":"admin"}`, "roles"},
		{`{"email":"a@example.com","email_verified":"yes"}`, "email_verified"},
		{`{}`, "email: "},
		{`{"email":"nope"}`, "email: "},
		{`{"email":"a` + "\xff" + `@example.com"}`, "UTF-8"},
		{`{"email":"` + strings.Repeat("a", 250) + `@example.com"}`, "email: "},
		{`{"email":"a@example.com","id":"7"}`, "id: "},
		{`{"email":"a@example.com","roles":["Bad Role"]}`, "roles"},
		{`{"email":"a@example.com","status":"sleeping"}`, "status: "},
		{`{"email":"a@example.com","locale":"not a locale"}`, "locale: "},
		{`{"email":"a@example.com","first_name":"A\u0000"}`, "first_name: "},
		{`{"email":"a@example.com","last_name":"` + strings.Repeat("a", 101) + `"}`, "last_name: "},
		{`{"email":"a@example.com","password_hash":"5f4dcc3b5aa765d61d8327deb882cf99"}`, "password_hash: "},
		{`{"email":"a@example.com","password_hash":"$2b$16$` + strings.Repeat("a", 53) + `"}`, "cost is 16"},
		{`{"email":"Taken@example.com"}`, "email: another account has it"},
		{`{"email":"a@example.com","id":"` + existing.GetId() + `"}`, "id: another account has it"},
		{`{"email":"GOOD@example.com"}`, "email: line 1 has it already"},
	}
	text := `{"email":"good@example.com"}` + "\n"
	for _, test := range bad {
		text += test.line + "\n"
	}
	text += `{"email":"also-good@example.com"}` // with no line's end
	made, refused := h.importLines(t, text, false)
	if made != 2 || len(refused) != len(bad) {
		t.Errorf("%d were made and %d refused, want 2 and %d: %v", made, len(refused), len(bad), refused)
	}
	for i, test := range bad {
		if got := refused[i+2]; !strings.Contains(got, test.want) {
			t.Errorf("line %d, %.80s: refused with %q, want %q", i+2, test.line, got, test.want)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE email LIKE '%good@example.com'"); n != 2 {
		t.Errorf("%d good lines became accounts, want 2", n)
	}
}

func TestADryImportLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "taken@example.com")
	tables := "SELECT (SELECT count(*) FROM auth.accounts) + (SELECT count(*) FROM auth.account_log) + (SELECT count(*) FROM auth.audit_events)"
	before := h.count(t, tables)
	made, refused := h.importLines(t, `{"email":"new@example.com"}
{"email":"taken@example.com"}
{"email":"NEW@example.com"}`, true)
	if made != 1 || refused[2] == "" || refused[3] == "" {
		t.Errorf("%d could be made, refused %v; want 1, and lines 2 and 3", made, refused)
	}
	if after := h.count(t, tables); after != before {
		t.Errorf("a dry run left %d rows", after-before)
	}
}

func TestTenThousandAccountsAreImportedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const accounts = 10_000
	var lines strings.Builder
	for i := range accounts {
		fmt.Fprintf(&lines, `{"email":"user%d@example.com","password_hash":"%s","first_name":"U%d"}`+"\n", i, importedHashes["bcrypt"], i)
	}
	start := time.Now()
	made, refused := h.importLines(t, lines.String(), false)
	t.Logf("%d accounts in %v", made, time.Since(start))
	if made != accounts || len(refused) != 0 {
		t.Errorf("%d were made, %d refused", made, len(refused))
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts a JOIN auth.account_log o ON o.account_id = a.id AND o.version = a.version AND o.profile->>'first_name' LIKE 'U%'"); n != accounts {
		t.Errorf("%d accounts have their initial profile", n)
	}
	if made, refused := h.importLines(t, lines.String(), false); made != 0 || len(refused) != accounts {
		t.Errorf("again, %d were made and %d refused; want none and all", made, len(refused))
	}
}

func TestALineThatIsTooLongEndsAnImport(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	text := `{"email":"ada@example.com"}` + "\n" + `{"email":"` + strings.Repeat("a", 2<<20)
	made, err := h.service.Import(t.Context(), strings.NewReader(text), false, func(int, string) {})
	if err == nil || !strings.Contains(err.Error(), "line 2") || made != 1 {
		t.Errorf("%d were made, error %v; want 1 and one about line 2", made, err)
	}
}
