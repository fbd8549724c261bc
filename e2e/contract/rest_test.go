package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/mailtest"
	"gatehouse/internal/provider/providertest"
)

// restWalk asks by REST, and notes which methods it has asked.
type restWalk struct {
	*harness.System
	t      *testing.T
	routes map[string]*regexp.Regexp // by procedure: "GET /api/v1/users/[^/:]+"
	asked  map[string]bool

	mails     *mailtest.Server
	provider  *providertest.Provider
	followed  map[string]bool // tokens of links
	ada, bob  string          // ids
	me, admin string          // access tokens
}

func newRESTWalk(t *testing.T, s *harness.System) *restWalk {
	w := &restWalk{System: s, t: t, routes: map[string]*regexp.Regexp{}, asked: map[string]bool{}, followed: map[string]bool{}}
	variable := regexp.MustCompile(`\\\{[^}]*\\\}`)
	for _, file := range []protoreflect.FileDescriptor{bffv1.File_bff_v1_auth_service_proto, bffv1.File_bff_v1_account_service_proto, bffv1.File_bff_v1_user_service_proto} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			if methods.Get(i).IsStreamingServer() {
				continue // e2e/live asks it
			}
			rule := proto.GetExtension(methods.Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
			for method, path := range map[string]string{"GET": rule.GetGet(), "POST": rule.GetPost(), "PATCH": rule.GetPatch(), "DELETE": rule.GetDelete()} {
				if path != "" {
					w.routes[string(methods.Get(i).FullName())] = regexp.MustCompile("^" + method + " " + variable.ReplaceAllString(regexp.QuoteMeta(path), "[^/:]+") + "$")
				}
			}
			if w.routes[string(methods.Get(i).FullName())] == nil {
				t.Errorf("%s has no REST path", methods.Get(i).FullName())
			}
		}
	}
	return w
}

// ask makes one call and checks its status.
func (w *restWalk) ask(method, path, token, body string, status int) (restAnswer, http.Header) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	got, header, text := harness.Do(w.t, request)
	plain, _, _ := strings.Cut(path, "?")
	for procedure, route := range w.routes {
		if route.MatchString(method + " " + plain) {
			w.asked[procedure] = true
		}
	}
	var answer restAnswer
	if err := json.Unmarshal([]byte(text), &answer); got != status || (status == http.StatusNoContent) != (text == "") || text != "" && err != nil {
		w.t.Errorf("%s %s %s: got %d %s, want %d", method, path, body, got, text, status)
	}
	return answer, header
}

// restAnswer is an answer's JSON.
type restAnswer map[string]any

// text is the text at a path such as "user.email".
func (a restAnswer) text(path string) string {
	var at any = map[string]any(a)
	for step := range strings.SplitSeq(path, ".") {
		fields, _ := at.(map[string]any)
		at = fields[step]
	}
	text, _ := at.(string)
	return text
}

func (a restAnswer) list(name string) []restAnswer {
	var list []restAnswer
	values, _ := a[name].([]any)
	for _, value := range values {
		fields, _ := value.(map[string]any)
		list = append(list, fields)
	}
	return list
}

// Every method once by its REST path, with nothing put in the place of anything.
func TestTheWholeAPIByREST(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			restStory(t, shape)
		})
	}
}

func restStory(t *testing.T, shape harness.Shape) {
	var refusing atomic.Bool
	server := mailtest.Start(t, mailtest.Config{Rcpt: func(to string) error {
		if refusing.Load() && strings.Contains(to, "lost@") {
			return mailtest.Refuse(550, "unknown here")
		}
		return nil
	}})
	provider := providertest.New(t)
	w := newRESTWalk(t, harness.Start(t, shape, withProvider(t, provider), harness.WithSettings("SMTP_URL="+server.URL(), "GATEHOUSE_EMAIL_SIGN_IN=on", "GATEHOUSE_PUBLIC_URL="+parityPage)))
	w.mails, w.provider = server, provider
	w.signUpInAndOut()
	w.ownAccount()
	w.ownSessionsAndLinks()
	w.keysAndCodes()
	w.providers()
	w.administration()
	w.secondFactors()
	refusing.Store(true)
	w.deadLetter()
	w.endOfAccount()

	for _, procedure := range slices.Sorted(maps.Keys(w.routes)) {
		if !w.asked[procedure] {
			t.Errorf("%s was never asked by REST", procedure)
		}
	}
}

const (
	restPassword    = `"password":"correct horse battery"`
	restNewPassword = `"password":"another horse battery"`
	restUsers       = "/api/v1/users"
)

func (w *restWalk) login(email, with string) restAnswer {
	w.t.Helper()
	in, _ := w.ask("POST", "/api/v1/auth/login", "", `{"email":"`+email+`",`+with+`}`, 200)
	return in
}

// linkTo waits for a mailed link that was not used before, and returns its token.
func (w *restWalk) linkTo(to, kind string) (token string) {
	w.t.Helper()
	link := regexp.MustCompile(`/link/` + kind + `#token=(ghl_[A-Za-z0-9_-]{43})`)
	harness.Eventually(w.t, 30*time.Second, "get a link to "+to, func() error {
		for _, mail := range w.mails.Received() {
			if match := link.FindStringSubmatch(mail.Text); match != nil && mail.To == to && !w.followed[match[1]] {
				token = match[1]
			}
		}
		if token == "" {
			return errors.New("there is none")
		}
		return nil
	})
	w.followed[token] = true
	return token
}

func (w *restWalk) signUpInAndOut() {
	in, header := w.ask("POST", "/api/v1/auth/register", "", `{"email":"ada@example.com",`+restPassword+`,"firstName":"Ada"}`, 201)
	w.ada = in.text("signedIn.user.id")
	if got := header.Get("Location"); w.ada == "" || got != restUsers+"/"+w.ada || header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("Register: Location is %q of %v", got, in)
	}
	taken, _ := w.ask("POST", "/api/v1/auth/register", "", `{"email":"ada@example.com",`+restPassword+`}`, 409)
	if taken.text("code") != "already_exists" {
		w.t.Errorf("a taken email: %v", taken)
	}
	in = w.login("ada@example.com", restPassword)
	w.me = in.text("signedIn.tokens.accessToken")
	other := w.login("ada@example.com", restPassword)
	refreshed, _ := w.ask("POST", "/api/v1/auth/refresh", "", `{"refreshToken":"`+other.text("signedIn.tokens.refreshToken")+`"}`, 200)
	w.ask("POST", "/api/v1/auth/logout", "", `{"refreshToken":"`+refreshed.text("tokens.refreshToken")+`"}`, 200)
	w.ask("POST", "/api/v1/auth/refresh", "", `{"refreshToken":"`+refreshed.text("tokens.refreshToken")+`"}`, 401)
}

func (w *restWalk) ownAccount() {
	got, header := w.ask("GET", "/api/v1/me", w.me, "", 200)
	if got.text("user.id") != w.ada || header.Get("Etag") == "" {
		w.t.Errorf("GetMe: %v with ETag %q", got, header.Get("Etag"))
	}
	got, _ = w.ask("PATCH", "/api/v1/me", w.me, `{"lastName":"Lovelace"}`, 200)
	if got.text("user.firstName") != "Ada" || got.text("user.lastName") != "Lovelace" {
		w.t.Errorf("UpdateMe without a mask: %v", got)
	}
	stale := got.text("user.etag")
	got, _ = w.ask("PATCH", "/api/v1/me?updateMask=first_name,lastName", w.me, `{"firstName":"Augusta"}`, 200)
	if got.text("user.firstName") != "Augusta" || got.text("user.lastName") != "" {
		w.t.Errorf("UpdateMe with a mask: %v, want the last name cleared", got)
	}
	w.ask("PATCH", "/api/v1/me", w.me, `{"firstName":"Ada","etag":"`+stale+`"}`, 409)
	w.ask("POST", "/api/v1/me/reauthenticate", w.me, `{`+restPassword+`}`, 200)
	w.ask("POST", "/api/v1/me/password", w.me, `{"currentPassword":"correct horse battery","newPassword":"another horse battery"}`, 200)
	w.ask("POST", "/api/v1/auth/login", "", `{"email":"ada@example.com",`+restPassword+`}`, 401)
	in := w.login("ada@example.com", restNewPassword)
	w.me = in.text("signedIn.tokens.accessToken")
	w.login("ada@example.com", restNewPassword)
}

func (w *restWalk) ownSessionsAndLinks() {
	sessions, _ := w.ask("GET", "/api/v1/me/sessions", w.me, "", 200)
	ended := false
	var header http.Header
	for _, session := range sessions.list("sessions") {
		if session["current"] != true && !ended {
			_, header = w.ask("DELETE", "/api/v1/me/sessions/"+session.text("id"), w.me, "", 204)
			ended = true
		}
	}
	if !ended || header.Get("X-Request-Id") == "" {
		w.t.Errorf("RevokeSession: no session ended of %v", sessions)
	}
	w.ask("POST", "/api/v1/me/sessions:revokeOthers", w.me, "", 200)
	w.linkTo("ada@example.com", "verify") // of the registration, which the new restPassword supersedes
	w.ask("POST", "/api/v1/me:sendVerificationEmail", w.me, "", 200)
	got, _ := w.ask("POST", "/api/v1/auth/verifyEmail", "", `{"token":"`+w.linkTo("ada@example.com", "verify")+`",`+restNewPassword+`}`, 200)
	if got.text("user.id") != w.ada {
		w.t.Errorf("VerifyEmail: %v", got)
	}
	w.me = got.text("tokens.accessToken")
	w.ask("POST", "/api/v1/me/email", w.me, `{"newEmail":"augusta@example.com"}`, 200)
	w.ask("POST", "/api/v1/auth/confirmEmailChange", "", `{"token":"`+w.linkTo("augusta@example.com", "email")+`"}`, 200)
	w.ask("POST", "/api/v1/auth/requestPasswordReset", "", `{"email":"augusta@example.com"}`, 200)
	w.ask("POST", "/api/v1/auth/resetPassword", "", `{"token":"`+w.linkTo("augusta@example.com", "reset")+`","newPassword":"correct horse battery"}`, 200)
	w.me = w.login("augusta@example.com", restPassword).text("signedIn.tokens.accessToken")
	events, _ := w.ask("GET", "/api/v1/me/auditEvents?pageSize=5", w.me, "", 200)
	if len(events.list("events")) != 5 || events.text("nextPageToken") == "" {
		w.t.Errorf("ListMyAuditEvents: %v", events)
	}
	if all, _ := w.ask("GET", "/api/v1/me/export", w.me, "", 200); all.text("user.id") != w.ada || all.text("exportTime") == "" {
		w.t.Errorf("ExportMe: %v", all)
	}
}

func (w *restWalk) administration() {
	w.ask("GET", restUsers, w.me, "", 403)
	w.ask("GET", restUsers, "", "", 401)

	w.admin = w.login(harness.AdminEmail, `"password":"`+harness.AdminPassword+`"`).text("signedIn.tokens.accessToken")
	w.ask("GET", restUsers+":count", w.me, "", 403)
	if counted, _ := w.ask("GET", restUsers+":count", w.admin, "", 200); counted.text("all.precision") != "COUNT_PRECISION_EXACT" {
		w.t.Errorf("the number of users: got %v, want an exact one", counted)
	}
	made, header := w.ask("POST", restUsers, w.admin, `{"user":{"email":"bob@example.com","firstName":"Bob"},`+restPassword+`}`, 201)
	w.bob = made.text("user.id")
	at := restUsers + "/" + w.bob
	if header.Get("Location") != at {
		w.t.Errorf("CreateUser: Location is %q, want %q", header.Get("Location"), at)
	}
	if got, _ := w.ask("GET", header.Get("Location"), w.admin, "", 200); got.text("user.email") != "bob@example.com" || got.text("user.firstName") != "Bob" {
		w.t.Errorf("GetUser at the Location: %v", got)
	}
	// What restUsers searches by comes to it over the relay.
	harness.Eventually(w.t, 10*time.Second, "list everybody", func() error {
		page, _ := w.ask("GET", restUsers+"?page_size=1&orderBy=email&status=USER_STATUS_ACTIVE", w.admin, "", 200)
		next, _ := w.ask("GET", restUsers+"?pageSize=100&orderBy=email&status=USER_STATUS_ACTIVE&pageToken="+page.text("nextPageToken"), w.admin, "", 200)
		if len(page.list("users")) != 1 || len(next.list("users")) != 3 {
			return fmt.Errorf("pages of %d and %d, want 1 and 3", len(page.list("users")), len(next.list("users")))
		}
		return nil
	})
	if got, _ := w.ask("PATCH", at, w.admin, `{"lastName":"Builder"}`, 200); got.text("user.firstName") != "Bob" || got.text("user.lastName") != "Builder" {
		w.t.Errorf("UpdateUser: %v", got)
	}
	w.login("bob@example.com", restPassword)
	held, _ := w.ask("GET", at+"/sessions", w.admin, "", 200)
	if len(held.list("sessions")) != 1 {
		w.t.Fatalf("ListUserSessions: %v", held)
	}
	w.ask("DELETE", at+"/sessions/"+held.list("sessions")[0].text("id"), w.admin, "", 204)
	w.login("bob@example.com", restPassword)
	if got, _ := w.ask("POST", at+":revokeSessions", w.admin, "", 200); got["revoked"] != float64(1) {
		w.t.Errorf("RevokeUserSessions: %v", got)
	}
	if got, _ := w.ask("POST", at+":disable", w.admin, "", 200); got.text("user.status") != "USER_STATUS_DISABLED" {
		w.t.Errorf("DisableUser: %v", got)
	}
	w.ask("POST", "/api/v1/auth/login", "", `{"email":"bob@example.com",`+restPassword+`}`, 403)
	w.ask("POST", at+":enable", w.admin, "{}", 200)
	if got, _ := w.ask("POST", at+":setRoles", w.admin, `{"roles":["editor"]}`, 200); len(got["user"].(map[string]any)["roles"].([]any)) != 1 {
		w.t.Errorf("SetUserRoles: %v", got)
	}
	if got, _ := w.ask("POST", at+":changeEmail", w.admin, `{"email":"robert@example.com"}`, 200); got.text("user.email") != "robert@example.com" {
		w.t.Errorf("ChangeUserEmail: %v", got)
	}
	w.ask("POST", at+":forcePasswordReset", w.admin, "", 200)
	if got, _ := w.ask("GET", "/api/v1/auditEvents?userId="+strings.ToUpper(w.bob)+"&outcome=succeeded&event=account.&startTime=2020-01-01T00:00:00Z", w.admin, "", 200); len(got.list("events")) == 0 {
		w.t.Errorf("ListAuditEvents: %v", got)
	}
}

func (w *restWalk) deadLetter() {
	lost := w.System.Invite(w.t, "lost@example.com")
	harness.Eventually(w.t, 30*time.Second, "be refused once", func() error {
		tag, err := w.Owner.Exec(w.t.Context(), "UPDATE auth.mails SET attempts = 2, next_attempt_time = now() WHERE id = $1 AND last_error <> ''", lost)
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("not yet")
		}
		return err
	})
	harness.Eventually(w.t, 30*time.Second, "see the dead letter", func() error {
		if mails, _ := w.ask("GET", "/api/v1/mails?status=MAIL_STATUS_FAILED", w.admin, "", 200); len(mails.list("mails")) != 1 {
			return errors.New("there is none")
		}
		return nil
	})
	if got, _ := w.ask("POST", "/api/v1/mails/"+lost+":retry", w.admin, "", 200); got.text("mail.id") != lost {
		w.t.Errorf("RetryMail: %v", got)
	}
	w.ask("POST", "/api/v1/mails/"+w.bob+":retry", w.admin, "", 404)
	at := restUsers + "/" + w.bob
	w.ask("DELETE", at, w.admin, "", 204)
	w.ask("GET", at, w.admin, "", 404)
	harness.Eventually(w.t, 30*time.Second, "see the erasure complete", func() error {
		if got, _ := w.ask("GET", at+"/erasure", w.admin, "", 200); len(got.list("services")) != 1 || got["complete"] != true {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
	w.ask("DELETE", at, w.admin, "", 404)
}

func (w *restWalk) endOfAccount() {
	w.ask("POST", "/api/v1/me/sessions:revokeAll", w.me, "", 200)
	w.me = w.login("augusta@example.com", restPassword).text("signedIn.tokens.accessToken")
	w.ask("DELETE", "/api/v1/me", w.me, "", 204)
	w.ask("POST", "/api/v1/auth/login", "", `{"email":"augusta@example.com",`+restPassword+`}`, 401)
}
