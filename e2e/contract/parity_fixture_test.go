package contract

import (
	"crypto/ed25519"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/encoding/protojson"

	"gatehouse/auth/totp"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/mailtest"
	"gatehouse/internal/passkeytest"
	"gatehouse/internal/provider/providertest"
)

// parityFixture is a system with the persons that the cases use. No case changes a person
// that another case uses: each case and surface creates the persons that it changes.
type parityFixture struct {
	*harness.System
	people map[string]*harness.Person
	// provider is one that people can sign in with; nil without one.
	provider *providertest.Provider
	// hashing is held during a call that hashes a password.
	hashing sync.Mutex
}

// newParityFixture signs in the administrator and signs up alice and bob, who stay
// unchanged; stale, whose roles have changed since; ended, whose session is revoked;
// disabled; gone, who is deleted; and weary, who signed in an hour ago.
func newParityFixture(t *testing.T, s *harness.System) *parityFixture {
	t.Helper()
	w := &parityFixture{System: s, people: map[string]*harness.Person{"": {}, "garbage": {Access: "not.a.token"}}}
	w.people["admin"] = s.Admin(t)
	for _, name := range []string{"alice", "bob", "stale", "ended", "disabled", "gone", "weary"} {
		w.people[name] = s.SignUp(t, "parity-"+name+"@example.com")
	}
	of := &subject{fixture: w, t: t, links: map[string]string{}}
	for _, step := range []parityStep{
		{Call: "UserService/SetUserRoles", As: "admin", Send: map[string]any{"userId": "{{stale.id}}", "roles": []string{"editor"}}},
		{Call: "AuthService/Logout", Send: map[string]any{"refreshToken": "{{ended.refresh}}"}},
		{Call: "UserService/DisableUser", As: "admin", Send: map[string]any{"userId": "{{disabled.id}}"}},
		{Call: "UserService/DeleteUser", As: "admin", Send: map[string]any{"userId": "{{gone.id}}"}},
	} {
		of.take(step)
	}
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.sessions SET authenticate_time = now() - interval '1 hour' WHERE id = $1", w.people["weary"].Session); err != nil {
		t.Fatal(err)
	}
	// The administrator's calls take longer than a sign-in is recent.
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.sessions SET authenticate_time = now() + interval '1 hour' WHERE id = $1", w.people["admin"].Session); err != nil {
		t.Fatal(err)
	}
	// Its own second factor would have to be given for each of its calls.
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.sessions SET level = 2, second_factor_time = now() WHERE id = $1", w.people["admin"].Session); err != nil {
		t.Fatal(err)
	}
	w.renew(t)
	s.UntilRead(t, harness.RoleUsers)
	for _, name := range []string{"stale", "ended", "disabled", "gone"} {
		harness.Eventually(t, 5*time.Second, name+"'s token is refused", func() error {
			if status, _, body := s.Post(t, "/bff.v1.AccountService/ListSessions", w.people[name].Access, "{}"); status != 401 {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	return w
}

// renew refreshes the tokens of the persons with a live session: access tokens expire
// after five minutes.
func (w *parityFixture) renew(t *testing.T) {
	t.Helper()
	of := &subject{fixture: w, t: t, links: map[string]string{}}
	for _, name := range []string{"admin", "alice", "bob", "weary"} {
		of.take(parityStep{Call: "AuthService/Refresh", Send: map[string]any{"refreshToken": "{{" + name + ".refresh}}"}})
		w.people[name].Access, w.people[name].Refresh = of.stepField("tokens.accessToken"), of.stepField("tokens.refreshToken")
	}
}

const foreignKeyID = "parity"

// publishForeignKey makes auth publish a public key whose private key the test holds, so
// that the test can sign tokens that auth never issues.
func publishForeignKey(t testing.TB, s *harness.System) ed25519.PrivateKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const insert = `
		INSERT INTO auth.signing_keys (kid, public_key, sealed_private_key, sign_time)
		VALUES ($1, $2, decode(repeat('00', 64), 'hex'), now() + interval '1 hour')`
	if _, err := s.Owner.Exec(t.Context(), insert, foreignKeyID, []byte(public)); err != nil {
		t.Fatal(err)
	}
	return private
}

// signTokens adds persons with a variant of alice's token: twin (unchanged), expired,
// stranger (another audience) and forger (another signature).
func (w *parityFixture) signTokens(t testing.TB, key ed25519.PrivateKey) {
	t.Helper()
	sign := func(change func(claims jwt.MapClaims)) *harness.Person {
		var claims jwt.MapClaims
		if _, _, err := jwt.NewParser().ParseUnverified(w.people["alice"].Access, &claims); err != nil {
			t.Fatal(err)
		}
		change(claims)
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
		token.Header["typ"], token.Header["kid"] = "at+jwt", foreignKeyID
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return &harness.Person{Access: text}
	}
	w.people["twin"] = sign(func(jwt.MapClaims) {})
	harness.Eventually(t, 30*time.Second, "the key is believed", func() error {
		if status, _, body := w.Post(t, "/bff.v1.AccountService/ListSessions", w.people["twin"].Access, "{}"); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	w.people["expired"] = sign(func(claims jwt.MapClaims) { claims["exp"] = time.Now().Add(-time.Hour).Unix() })
	w.people["stranger"] = sign(func(claims jwt.MapClaims) { claims["aud"] = "another" })
	w.people["forger"] = &harness.Person{Access: w.people["twin"].Access[:len(w.people["twin"].Access)-10] + "AAAAAAAAAA"}
}

// failToSignIn fails until the account is throttled, for an hour.
func (w *parityFixture) failToSignIn(t *testing.T, email string) {
	t.Helper()
	of := &subject{fixture: w, t: t, links: map[string]string{}}
	for range 5 {
		of.take(parityStep{Call: "AuthService/Login", Send: map[string]any{"email": email, "password": "wrong"}, Reason: "CREDENTIALS_INVALID"})
	}
	if _, err := w.Owner.Exec(t.Context(), "UPDATE auth.throttles SET wait_until = now() + interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
}

// subject holds the persons of one case on one surface. new signed up, made was invited
// by the administrator; each is created at its first use. moved has a mailbox and no
// account.
type subject struct {
	fixture   *parityFixture
	t         *testing.T
	new, made *harness.Person
	secret    string // of an authenticator app that is being enrolled
	random    string
	step      any                   // what the last step answered
	key       *passkeytest.Key      // made when it is first used
	links     map[string]string     // that were mailed
	visited   map[string]url.Values // the answers of the provider, by the address that led there
}

var placeholder = regexp.MustCompile(`\{\{([a-z]+)(?:[. ]([A-Za-z0-9._]+))?\}\}`)

// fill replaces the placeholders of a text: {{alice.id}}, a field of a person of the
// fixture, of new or of made; {{random}}, which differs for each case and surface;
// {{step.…}}, a field of the last response; {{mail.kept}} or {{mail.erased}}, the ID of a
// failed mail; {{delivery.failed}}, that of a delivery to a webhook; {{long 101}}, that many letters; and {{byte ff}}, a byte, which need not be
// valid UTF-8; {{totp 1}}, the code of the app that is being enrolled, so many steps from
// now; {{visit code}}, a field of the provider's answer to the authorization URL of the
// last response.
func (s *subject) fill(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(found string) string {
		parts := placeholder.FindStringSubmatch(found)
		name, of := parts[1], parts[2]
		switch name {
		case "random":
			return s.number()
		case "long":
			n, err := strconv.Atoi(of)
			if err != nil {
				s.t.Fatalf("%s: %v", found, err)
			}
			return strings.Repeat("x", n)
		case "byte":
			octet, err := hex.DecodeString(of)
			if err != nil {
				s.t.Fatalf("%s: %v", found, err)
			}
			return string(octet)
		case "step":
			return s.stepField(of)
		case "mail":
			return s.failedMail(of)
		case "delivery":
			return s.failedDelivery(of)
		case "totp":
			return s.totp(of)
		case "visit":
			return s.visit(of)
		}
		person := s.person(name)
		switch of {
		case "id":
			return person.ID
		case "email":
			return person.Email
		case "access":
			return person.Access
		case "refresh":
			return person.Refresh
		case "device":
			return person.Device
		case "session":
			return person.Session
		case "etag":
			return person.ETag
		case "verify_email", "invitation", "reset_password", "confirm_email", "sign_in":
			return s.link(of, person.Email)
		}
		s.t.Fatalf("%s names nothing", found)
		return ""
	})
}

var (
	numbers  int
	numberMu sync.Mutex
)

func (s *subject) number() string {
	if s.random == "" {
		numberMu.Lock()
		defer numberMu.Unlock()
		numbers++
		s.random = fmt.Sprintf("n%dx", numbers)
	}
	return s.random
}

func (s *subject) token(as string) string { return s.person(as).Access }

func (s *subject) person(name string) *harness.Person {
	switch name {
	case "new":
		if s.new == nil {
			s.new = s.signUp()
		}
		return s.new
	case "moved":
		return &harness.Person{Email: "moved-" + s.number() + "@example.com"}
	case "made":
		if s.made == nil {
			user := s.take(parityStep{Call: "UserService/CreateUser", As: "admin", Send: map[string]any{
				"user": map[string]any{"email": "made-{{random}}@example.com", "firstName": "Grace", "lastName": "Hopper"},
			}})["user"].(map[string]any)
			s.made = &harness.Person{ID: user["id"].(string), Email: user["email"].(string), ETag: user["etag"].(string)}
		}
		return s.made
	}
	person := s.fixture.people[name]
	if person == nil {
		s.t.Fatalf("the fixture has no person %q", name)
	}
	return person
}

func (s *subject) signUp() *harness.Person {
	answer := s.take(parityStep{Call: "AuthService/Register", Send: map[string]any{
		"email": "new-{{random}}@example.com", "password": harness.Password, "firstName": "Ada", "lastName": "Lovelace",
	}})
	text, _ := json.Marshal(answer)
	var in bffv1.RegisterResponse
	if err := protojson.Unmarshal(text, &in); err != nil {
		s.t.Fatal(err)
	}
	return harness.PersonOf(s.t, s.fixture.Connect, in.GetSignedIn())
}

// take makes a call before the case's own, and returns what it answers.
func (s *subject) take(step parityStep) map[string]any {
	s.t.Helper()
	s.fill(step.Once)
	call := &wireCall{procedure: "/bff.v1." + step.Call, method: methodOf(step.Call), header: map[string]string{}}
	call.text = s.json(step.Send)
	for name, value := range step.Header {
		call.header[name] = s.fill(value)
	}
	if step.As != "" {
		call.header["Authorization"] = "Bearer " + s.token(step.As)
	}
	got, err := s.fixture.ask(s.t.Context(), plainJSON{s.fixture.URL, "POST"}, call)
	if err != nil {
		s.t.Fatalf("%s: %v", step.Call, err)
	}
	if got.failure != nil {
		if !slices.Contains(strings.Fields(step.Reason), got.failure.reason()) {
			s.t.Fatalf("before: %s: %s", step.Call, got.failure)
		}
		return nil
	}
	written, err := protojson.Marshal(got.message)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer map[string]any
	_ = json.Unmarshal(written, &answer)
	s.step = answer
	if secret, ok := answer["secret"].(string); ok {
		s.secret = secret
	}
	tokens, _ := answer["tokens"].(map[string]any)
	if access, ok := tokens["accessToken"].(string); ok && step.As == "new" {
		s.new.Access = access
	}
	return answer
}

// parityPage is the origin of the pages that use passkeys.
const parityPage = "http://localhost:8001"

// passkey is the browser's answer to the options in the last answer: {{passkey made}}
// to those of a registration, {{passkey used}} to those of a challenge.
func (s *subject) passkey(how string) any {
	s.t.Helper()
	if s.key == nil {
		s.key = passkeytest.New(s.t, passkeytest.EdDSA)
	}
	answer, answered := s.step.(map[string]any)
	if !answered {
		s.t.Fatalf("no options in %v", s.step)
	}
	var response []byte
	switch how {
	case "made":
		options, _ := json.Marshal(answer["options"])
		response = s.key.Register(s.t, options, parityPage)
	case "used":
		challenge, _ := answer["challenge"].(map[string]any)
		options, _ := json.Marshal(challenge["passkeyOptions"])
		response = s.key.SignIn(s.t, options, parityPage)
	}
	var value any
	if err := json.Unmarshal(response, &value); err != nil {
		s.t.Fatal(err)
	}
	return value
}

func (s *subject) totp(steps string) string {
	ahead, err := strconv.ParseInt(steps, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := base32.StdEncoding.DecodeString(s.secret)
	if err != nil {
		s.t.Fatal(err)
	}
	return totp.Secret(raw).Code(time.Now().Unix()/totp.Period + ahead)
}

// stepField is a field of the last answer, such as "mails.0.id".
func (s *subject) stepField(path string) string {
	at := s.step
	for _, name := range strings.Split(path, ".") {
		switch inner := at.(type) {
		case map[string]any:
			at = inner[name]
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n >= len(inner) {
				s.t.Fatalf("%s: there is none in %v", path, s.step)
			}
			at = inner[n]
		}
	}
	text, ok := at.(string)
	if !ok {
		s.t.Fatalf("%s: there is none in %v", path, s.step)
	}
	return text
}

// failedMail inserts a dead letter and returns its ID: with its text (kept), or with an erased
// text.
func (s *subject) failedMail(which string) (id string) {
	s.t.Helper()
	const insert = `
		INSERT INTO auth.mails (id, kind, recipient, sealed_values, last_error, fail_time)
		VALUES (gen_random_uuid(), 'new_sign_in', 'away@example.com', CASE $1 WHEN 'kept' THEN '\x00'::bytea END, 'greylisted', now())
		RETURNING id::text`
	if err := s.fixture.Owner.QueryRow(s.t.Context(), insert, which).Scan(&id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// failedDelivery inserts a dead letter of a webhook that is enabled (failed) or disabled, and
// returns its ID.
func (s *subject) failedDelivery(which string) (id string) {
	s.t.Helper()
	const insert = `
		WITH webhook AS (
			INSERT INTO auth.webhooks (id, url, types, enabled, disable_reason)
			VALUES ('01900000-0000-7000-8000-00000000dead', 'https://hooks.invalid/', '{user.deleted}', true, ''),
				('01900000-0000-7000-8000-00000000deaf', 'https://hooks.invalid/', '{user.deleted}', false, 'gone') ON CONFLICT DO NOTHING
		), event AS (
			INSERT INTO auth.events (type, data) VALUES ('user.deleted', '{}') RETURNING id, create_time)
		INSERT INTO auth.deliveries (event_id, webhook_id, event_time, attempts, last_status, last_error, fail_time)
		SELECT id, CASE $1 WHEN 'failed' THEN '01900000-0000-7000-8000-00000000dead' ELSE '01900000-0000-7000-8000-00000000deaf' END::uuid, create_time, 10, 500, 'The endpoint answered with status 500.', now() FROM event RETURNING id::text`
	if err := s.fixture.Owner.QueryRow(s.t.Context(), insert, which).Scan(&id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

var mailedLink = regexp.MustCompile(`#(?:token|code)=(ghl_[A-Za-z0-9_-]{43}|[0-9A-Z]{8})`)

// link is the token of the link of a kind of mail to somebody.
func (s *subject) link(kind, to string) (token string) {
	s.t.Helper()
	if known := s.links[kind+to]; known != "" {
		return known
	}
	defer func() { s.links[kind+to] = token }()
	harness.Eventually(s.t, 30*time.Second, "find the mail to "+to, func() error {
		files, err := filepath.Glob(filepath.Join(s.fixture.Mailbox(), "*-"+kind+"-*.eml"))
		if err != nil {
			return err
		}
		for i := len(files) - 1; i >= 0; i-- { // named by their times
			raw, err := os.ReadFile(files[i])
			if err != nil {
				return err
			}
			if mail, err := mailtest.Parse(raw); err == nil && strings.Contains(mail.Header.Get("To"), to) {
				if found := mailedLink.FindStringSubmatch(mail.Text); found != nil {
					token = found[1]
					return nil
				}
			}
		}
		return fmt.Errorf("there is none among %d", len(files))
	})
	return token
}

// json writes a value with all that it names put in.
func (s *subject) json(value map[string]any) string {
	if value == nil {
		value = map[string]any{}
	}
	text, err := json.Marshal(s.filled(value))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *subject) filled(value any) any {
	switch value := value.(type) {
	case string:
		if how, ok := strings.CutPrefix(value, "{{passkey "); ok {
			return s.passkey(strings.TrimSuffix(how, "}}"))
		}
		return s.fill(value)
	case map[string]any:
		filled := maps.Clone(value)
		for name, inner := range filled {
			filled[name] = s.filled(inner)
		}
		return filled
	case []any:
		filled := make([]any, len(value))
		for i, inner := range value {
			filled[i] = s.filled(inner)
		}
		return filled
	}
	return value
}
