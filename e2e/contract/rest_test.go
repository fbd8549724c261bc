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
)

// restWalk asks by REST, and notes which methods it has asked.
type restWalk struct {
	*harness.System
	t      *testing.T
	routes map[string]*regexp.Regexp // by procedure: "GET /api/v1/users/[^/:]+"
	asked  map[string]bool
}

func newRESTWalk(t *testing.T, s *harness.System) *restWalk {
	w := &restWalk{System: s, t: t, routes: map[string]*regexp.Regexp{}, asked: map[string]bool{}}
	variable := regexp.MustCompile(`\\\{[^}]*\\\}`)
	for _, file := range []protoreflect.FileDescriptor{bffv1.File_bff_v1_auth_service_proto, bffv1.File_bff_v1_account_service_proto, bffv1.File_bff_v1_user_service_proto} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
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
	w := newRESTWalk(t, harness.Start(t, shape))
	name := harness.RoleAuth
	if shape == harness.OneProcess {
		name = "up"
	}
	w.Processes[name].Kill()
	w.Start(t, name, "SMTP_URL="+server.URL())
	followed := map[string]bool{}
	linkTo := func(to, kind string) string { // that wasn't followed before
		t.Helper()
		link := regexp.MustCompile(`/link/` + kind + `#token=(ghl_[A-Za-z0-9_-]{43})`)
		var token string
		harness.Eventually(t, 30*time.Second, "get a link to "+to, func() error {
			for _, mail := range server.Received() {
				if match := link.FindStringSubmatch(mail.Text); match != nil && mail.To == to && !followed[match[1]] {
					token = match[1]
				}
			}
			if token == "" {
				return errors.New("there is none")
			}
			return nil
		})
		followed[token] = true
		return token
	}
	const password = `"password":"correct horse battery"`
	const users = "/api/v1/users"

	// Signing up, in and out.
	in, header := w.ask("POST", "/api/v1/auth/register", "", `{"email":"ada@example.com",`+password+`,"firstName":"Ada"}`, 201)
	ada := in.text("signedIn.user.id")
	if got := header.Get("Location"); ada == "" || got != users+"/"+ada || header.Get("Cache-Control") != "no-store" {
		t.Errorf("Register: Location is %q of %v", got, in)
	}
	taken, _ := w.ask("POST", "/api/v1/auth/register", "", `{"email":"ada@example.com",`+password+`}`, 409)
	if taken.text("code") != "already_exists" {
		t.Errorf("a taken email: %v", taken)
	}
	login := func(email, with string) restAnswer {
		t.Helper()
		in, _ := w.ask("POST", "/api/v1/auth/login", "", `{"email":"`+email+`",`+with+`}`, 200)
		return in
	}
	in = login("ada@example.com", password)
	me, other := in.text("signedIn.tokens.accessToken"), login("ada@example.com", password)
	refreshed, _ := w.ask("POST", "/api/v1/auth/refresh", "", `{"refreshToken":"`+other.text("signedIn.tokens.refreshToken")+`"}`, 200)
	w.ask("POST", "/api/v1/auth/logout", "", `{"refreshToken":"`+refreshed.text("tokens.refreshToken")+`"}`, 200)
	w.ask("POST", "/api/v1/auth/refresh", "", `{"refreshToken":"`+refreshed.text("tokens.refreshToken")+`"}`, 401)

	// One's own account.
	got, header := w.ask("GET", "/api/v1/me", me, "", 200)
	if got.text("user.id") != ada || header.Get("Etag") == "" {
		t.Errorf("GetMe: %v with ETag %q", got, header.Get("Etag"))
	}
	got, _ = w.ask("PATCH", "/api/v1/me", me, `{"lastName":"Lovelace"}`, 200)
	if got.text("user.firstName") != "Ada" || got.text("user.lastName") != "Lovelace" {
		t.Errorf("UpdateMe without a mask: %v", got)
	}
	stale := got.text("user.etag")
	got, _ = w.ask("PATCH", "/api/v1/me?updateMask=first_name,lastName", me, `{"firstName":"Augusta"}`, 200)
	if got.text("user.firstName") != "Augusta" || got.text("user.lastName") != "" {
		t.Errorf("UpdateMe with a mask: %v, want the last name cleared", got)
	}
	w.ask("PATCH", "/api/v1/me", me, `{"firstName":"Ada","etag":"`+stale+`"}`, 409)
	w.ask("POST", "/api/v1/me/reauthenticate", me, `{`+password+`}`, 200)
	w.ask("POST", "/api/v1/me/password", me, `{"currentPassword":"correct horse battery","newPassword":"another horse battery"}`, 200)
	const anew = `"password":"another horse battery"`
	w.ask("POST", "/api/v1/auth/login", "", `{"email":"ada@example.com",`+password+`}`, 401)
	in = login("ada@example.com", anew)
	me = in.text("signedIn.tokens.accessToken")
	login("ada@example.com", anew)
	sessions, _ := w.ask("GET", "/api/v1/me/sessions", me, "", 200)
	ended := false
	for _, session := range sessions.list("sessions") {
		if session["current"] != true && !ended {
			_, header = w.ask("DELETE", "/api/v1/me/sessions/"+session.text("id"), me, "", 204)
			ended = true
		}
	}
	if !ended || header.Get("X-Request-Id") == "" {
		t.Errorf("RevokeSession: no session ended of %v", sessions)
	}
	w.ask("POST", "/api/v1/me/sessions:revokeOthers", me, "", 200)
	linkTo("ada@example.com", "verify") // of the registration, which the new password supersedes
	w.ask("POST", "/api/v1/me:sendVerificationEmail", me, "", 200)
	got, _ = w.ask("POST", "/api/v1/auth/verifyEmail", "", `{"token":"`+linkTo("ada@example.com", "verify")+`",`+anew+`}`, 200)
	if got.text("user.id") != ada {
		t.Errorf("VerifyEmail: %v", got)
	}
	me = got.text("tokens.accessToken")
	w.ask("POST", "/api/v1/me/email", me, `{"newEmail":"augusta@example.com"}`, 200)
	w.ask("POST", "/api/v1/auth/confirmEmailChange", "", `{"token":"`+linkTo("augusta@example.com", "email")+`"}`, 200)
	w.ask("POST", "/api/v1/auth/requestPasswordReset", "", `{"email":"augusta@example.com"}`, 200)
	w.ask("POST", "/api/v1/auth/resetPassword", "", `{"token":"`+linkTo("augusta@example.com", "reset")+`","newPassword":"correct horse battery"}`, 200)
	me = login("augusta@example.com", password).text("signedIn.tokens.accessToken")
	events, _ := w.ask("GET", "/api/v1/me/auditEvents?pageSize=5", me, "", 200)
	if len(events.list("events")) != 5 || events.text("nextPageToken") == "" {
		t.Errorf("ListMyAuditEvents: %v", events)
	}
	if all, _ := w.ask("GET", "/api/v1/me/export", me, "", 200); all.text("user.id") != ada || all.text("exportTime") == "" {
		t.Errorf("ExportMe: %v", all)
	}
	w.ask("GET", users, me, "", 403)
	w.ask("GET", users, "", "", 401)

	// Administration.
	admin := login(harness.AdminEmail, `"password":"`+harness.AdminPassword+`"`).text("signedIn.tokens.accessToken")
	made, header := w.ask("POST", users, admin, `{"user":{"email":"bob@example.com","firstName":"Bob"},`+password+`}`, 201)
	bob := made.text("user.id")
	at := users + "/" + bob
	if header.Get("Location") != at {
		t.Errorf("CreateUser: Location is %q, want %q", header.Get("Location"), at)
	}
	if got, _ := w.ask("GET", header.Get("Location"), admin, "", 200); got.text("user.email") != "bob@example.com" || got.text("user.firstName") != "Bob" {
		t.Errorf("GetUser at the Location: %v", got)
	}
	// What users searches by comes to it over the relay.
	harness.Eventually(t, 10*time.Second, "list everybody", func() error {
		page, _ := w.ask("GET", users+"?page_size=1&orderBy=email&status=USER_STATUS_ACTIVE", admin, "", 200)
		next, _ := w.ask("GET", users+"?pageSize=100&orderBy=email&status=USER_STATUS_ACTIVE&pageToken="+page.text("nextPageToken"), admin, "", 200)
		if len(page.list("users")) != 1 || len(next.list("users")) != 2 {
			return fmt.Errorf("pages of %d and %d, want 1 and 2", len(page.list("users")), len(next.list("users")))
		}
		return nil
	})
	if got, _ := w.ask("PATCH", at, admin, `{"lastName":"Builder"}`, 200); got.text("user.firstName") != "Bob" || got.text("user.lastName") != "Builder" {
		t.Errorf("UpdateUser: %v", got)
	}
	login("bob@example.com", password)
	held, _ := w.ask("GET", at+"/sessions", admin, "", 200)
	if len(held.list("sessions")) != 1 {
		t.Fatalf("ListUserSessions: %v", held)
	}
	w.ask("DELETE", at+"/sessions/"+held.list("sessions")[0].text("id"), admin, "", 204)
	login("bob@example.com", password)
	if got, _ := w.ask("POST", at+":revokeSessions", admin, "", 200); got["revoked"] != float64(1) {
		t.Errorf("RevokeUserSessions: %v", got)
	}
	if got, _ := w.ask("POST", at+":disable", admin, "", 200); got.text("user.status") != "USER_STATUS_DISABLED" {
		t.Errorf("DisableUser: %v", got)
	}
	w.ask("POST", "/api/v1/auth/login", "", `{"email":"bob@example.com",`+password+`}`, 403)
	w.ask("POST", at+":enable", admin, "{}", 200)
	if got, _ := w.ask("POST", at+":setRoles", admin, `{"roles":["editor"]}`, 200); len(got["user"].(map[string]any)["roles"].([]any)) != 1 {
		t.Errorf("SetUserRoles: %v", got)
	}
	if got, _ := w.ask("POST", at+":changeEmail", admin, `{"email":"robert@example.com"}`, 200); got.text("user.email") != "robert@example.com" {
		t.Errorf("ChangeUserEmail: %v", got)
	}
	w.ask("POST", at+":forcePasswordReset", admin, "", 200)
	if got, _ := w.ask("GET", "/api/v1/auditEvents?userId="+strings.ToUpper(bob)+"&outcome=succeeded&event=account.&startTime=2020-01-01T00:00:00Z", admin, "", 200); len(got.list("events")) == 0 {
		t.Errorf("ListAuditEvents: %v", got)
	}
	refusing.Store(true)
	lost := w.System.Invite(t, "lost@example.com")
	harness.Eventually(t, 30*time.Second, "be refused once", func() error {
		tag, err := w.Owner.Exec(t.Context(), "UPDATE auth.mails SET attempts = 2, next_attempt_time = now() WHERE id = $1 AND last_error <> ''", lost)
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("not yet")
		}
		return err
	})
	harness.Eventually(t, 30*time.Second, "see the dead letter", func() error {
		if mails, _ := w.ask("GET", "/api/v1/mails?status=MAIL_STATUS_FAILED", admin, "", 200); len(mails.list("mails")) != 1 {
			return errors.New("there is none")
		}
		return nil
	})
	if got, _ := w.ask("POST", "/api/v1/mails/"+lost+":retry", admin, "", 200); got.text("mail.id") != lost {
		t.Errorf("RetryMail: %v", got)
	}
	w.ask("POST", "/api/v1/mails/"+bob+":retry", admin, "", 404)
	w.ask("DELETE", at, admin, "", 204)
	w.ask("GET", at, admin, "", 404)
	w.ask("DELETE", at, admin, "", 404)

	// The end of an account.
	w.ask("POST", "/api/v1/me/sessions:revokeAll", me, "", 200)
	me = login("augusta@example.com", password).text("signedIn.tokens.accessToken")
	w.ask("DELETE", "/api/v1/me", me, "", 204)
	w.ask("POST", "/api/v1/auth/login", "", `{"email":"augusta@example.com",`+password+`}`, 401)

	for _, procedure := range slices.Sorted(maps.Keys(w.routes)) {
		if !w.asked[procedure] {
			t.Errorf("%s was never asked by REST", procedure)
		}
	}
}
