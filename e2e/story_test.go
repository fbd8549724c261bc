package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// TestStory walks through the public API, in each shape of the stack.
func TestStory(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, shape)
			for name, part := range map[string]func(*testing.T, *harness.System){
				"sign up, in and out with plain JSON":      signingWithPlainJSON,
				"GetMe over every protocol":                getMeOverEveryProtocol,
				"administration":                           administration,
				"paging and searching":                     pagingAndSearching,
				"oneself and others":                       oneselfAndOthers,
				"bad input":                                badInput,
				"reflection":                               reflection,
				"pages and documents":                      pagesAndDocuments,
				"logs hold no secret":                      logsHoldNoSecret,
				"my own account":                           myOwnAccount,
				"what is revoked is refused":               revokedTokens,
				"a page token of another query is refused": foreignPageToken,
			} {
				// One after the other: one password is hashed at a time, and
				// who waits for long is sent away.
				t.Run(name, func(t *testing.T) { part(t, s) })
			}
		})
	}
}

func signingWithPlainJSON(t *testing.T, s *harness.System) {
	status, header, body := s.Post(t, "/bff.v1.AuthService/Register", "",
		`{"email":"plain@example.com","password":"correct horse battery","firstName":"Plain","lastName":"Json"}`)
	if status != http.StatusOK || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("Register: %d, Cache-Control %q: %s", status, header.Get("Cache-Control"), body)
	}
	var registered struct {
		SignedIn struct {
			User   map[string]any
			Tokens struct {
				AccessToken, RefreshToken, TokenType string
				ExpiresIn, RefreshExpiresIn          int
			}
		}
		Errors []any
	}
	if err := json.Unmarshal([]byte(body), &registered); err != nil {
		t.Fatalf("Register answered %s: %v", body, err)
	}
	tokens := registered.SignedIn.Tokens
	if tokens.TokenType != "Bearer" || tokens.ExpiresIn != 300 || tokens.RefreshExpiresIn != 30*24*3600 || !strings.HasPrefix(tokens.RefreshToken, "ghr_") {
		t.Errorf("tokens are %+v", tokens)
	}
	if registered.SignedIn.User["firstName"] != "Plain" || registered.SignedIn.User["etag"] == "" || len(registered.Errors) > 0 {
		t.Errorf("Register answered %s, want the profile in it", body)
	}
	if status, _, body = s.Post(t, "/bff.v1.AuthService/Login", "", `{"email":"PLAIN@example.com","password":"correct horse battery"}`); status != http.StatusOK {
		t.Errorf("Login: %d %s", status, body)
	}
	status, _, body = s.Post(t, "/bff.v1.AuthService/Refresh", "", `{"refreshToken":"`+tokens.RefreshToken+`"}`)
	var refreshed struct {
		Tokens struct{ AccessToken, RefreshToken string }
	}
	if err := json.Unmarshal([]byte(body), &refreshed); status != http.StatusOK || err != nil || refreshed.Tokens.RefreshToken == tokens.RefreshToken {
		t.Fatalf("Refresh: %d %s", status, body)
	}
	if status, _, body = s.Post(t, "/bff.v1.AccountService/GetMe", refreshed.Tokens.AccessToken, `{}`); status != http.StatusOK {
		t.Errorf("GetMe: %d %s", status, body)
	}
	if status, _, body = s.Post(t, "/bff.v1.AuthService/Logout", "", `{"refreshToken":"`+refreshed.Tokens.RefreshToken+`"}`); status != http.StatusOK || body != "{}" {
		t.Errorf("Logout: %d %s", status, body)
	}
	status, _, body = s.Post(t, "/bff.v1.AuthService/Refresh", "", `{"refreshToken":"`+refreshed.Tokens.RefreshToken+`"}`)
	if status != http.StatusUnauthorized || !strings.Contains(body, "SESSION_ENDED") {
		t.Errorf("Refresh after Logout: %d %s", status, body)
	}
}

func getMeOverEveryProtocol(t *testing.T, s *harness.System) {
	ada := s.SignUp(t, "protocols@example.com")
	token := ada.Access
	want, err := s.Client(token).Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
	if err != nil {
		t.Fatalf("GetMe: %v", err)
	}
	if !proto.Equal(want.GetUser(), ada.User) || len(want.GetSessions()) != 1 || !want.GetSessions()[0].GetCurrent() ||
		want.GetSecurity().GetActiveSessions() != 1 || len(want.GetErrors()) != 0 {
		t.Fatalf("GetMe answered %v", want)
	}
	http1 := &http.Client{Transport: &http.Transport{}}
	for name, c := range map[string]harness.Client{
		"Connect JSON":                s.Client(token, connecthttp.WithProtoJSON()),
		"Connect over HTTP/1.1":       s.ClientOver(http1, token),
		"Connect GET":                 s.Client(token, connecthttp.WithHTTPGet()),
		"Connect GET over HTTP/1.1":   s.ClientOver(http1, token, connecthttp.WithHTTPGet(), connecthttp.WithProtoJSON()),
		"gRPC":                        s.Client(token, connecthttp.WithGRPC()),
		"gRPC-Web":                    s.Client(token, connecthttp.WithGRPCWeb()),
		"gRPC-Web over HTTP/1.1":      s.ClientOver(http1, token, connecthttp.WithGRPCWeb()),
		"gRPC with gzip in the query": s.Client(token, connecthttp.WithGRPC(), connecthttp.WithSendGzip()),
	} {
		got, err := c.Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !proto.Equal(got, want) {
			t.Errorf("%s answered %v, want %v", name, got, want)
		}
		_, err = c.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{})
		harness.WantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")
	}

	query := url.Values{"connect": {"v1"}, "encoding": {"json"}, "message": {"{}"}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/bff.v1.AccountService/GetMe?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	status, _, body := harness.Do(t, request)
	var got bffv1.GetMeResponse
	if err := protojson.Unmarshal([]byte(body), &got); status != http.StatusOK || err != nil || !proto.Equal(&got, want) {
		t.Errorf("a plain GET: %d %s (%v)", status, body, err)
	}
}

func administration(t *testing.T, s *harness.System) {
	admin := s.Admin(t).Client()
	created, err := admin.Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{
		User:     &bffv1.User{Email: "managed@example.com", FirstName: "Man", LastName: "Aged", Locale: "en", Roles: []string{"editor"}},
		Password: "a quiet lighthouse keeper",
	})
	if err != nil {
		t.Fatalf("CreateUser: %v", err)
	}
	user := created.GetUser()
	if user.GetFirstName() != "Man" || user.GetLocale() != "en" || !slices.Equal(user.GetRoles(), []string{"editor"}) ||
		user.GetStatus() != bffv1.UserStatus_USER_STATUS_ACTIVE || user.GetEtag() == "" || len(created.GetErrors()) != 0 {
		t.Errorf("CreateUser answered %v", created)
	}
	got, err := admin.Users.GetUser(t.Context(), &bffv1.GetUserRequest{UserId: user.GetId()})
	if err != nil || !proto.Equal(got.GetUser(), user) {
		t.Errorf("GetUser: %v, %v; want %v", got, err, user)
	}
	_, err = admin.Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: "Managed@example.com"}, Password: "a quiet lighthouse keeper"})
	harness.WantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")

	updated, err := admin.Users.UpdateUser(t.Context(), &bffv1.UpdateUserRequest{
		User:       &bffv1.User{Id: user.GetId(), FirstName: "Woman", LastName: "ignored", Etag: user.GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"first_name", "locale"}},
	})
	if err != nil {
		t.Fatalf("UpdateUser: %v", err)
	}
	if u := updated.GetUser(); u.GetFirstName() != "Woman" || u.GetLastName() != "Aged" || u.GetLocale() != "" || u.GetEtag() == user.GetEtag() {
		t.Errorf("UpdateUser answered %v: want the masked fields changed and no other", u)
	}
	_, err = admin.Users.UpdateUser(t.Context(), &bffv1.UpdateUserRequest{
		User: &bffv1.User{Id: user.GetId(), FirstName: "Late", Etag: user.GetEtag()},
	})
	harness.WantReason(t, err, connect.CodeAborted, "ETAG_MISMATCH")

	login := func() error {
		_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "managed@example.com", Password: "a quiet lighthouse keeper"})
		return err
	}
	disabled, err := admin.Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: user.GetId()})
	if err != nil || disabled.GetUser().GetStatus() != bffv1.UserStatus_USER_STATUS_DISABLED {
		t.Errorf("DisableUser: %v, %v", disabled, err)
	}
	harness.WantReason(t, login(), connect.CodePermissionDenied, "ACCOUNT_DISABLED")
	enabled, err := admin.Users.EnableUser(t.Context(), &bffv1.EnableUserRequest{UserId: user.GetId()})
	if err != nil || enabled.GetUser().GetStatus() != bffv1.UserStatus_USER_STATUS_ACTIVE {
		t.Errorf("EnableUser: %v, %v", enabled, err)
	}
	if err := login(); err != nil {
		t.Errorf("Login once enabled: %v", err)
	}
	roles, err := admin.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: user.GetId(), Roles: []string{"b", "a"}})
	if err != nil || !slices.Equal(roles.GetUser().GetRoles(), []string{"a", "b"}) {
		t.Errorf("SetUserRoles: %v, %v", roles, err)
	}
	moved, err := admin.Users.ChangeUserEmail(t.Context(), &bffv1.ChangeUserEmailRequest{UserId: user.GetId(), Email: "moved@example.com"})
	if err != nil || moved.GetUser().GetEmail() != "moved@example.com" {
		t.Errorf("ChangeUserEmail: %v, %v", moved, err)
	}
	s.UntilRead(t, harness.RoleUsers)
	found, err := admin.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{Query: "moved@"})
	if err != nil || len(found.GetUsers()) != 1 || found.GetUsers()[0].GetId() != user.GetId() {
		t.Errorf("searching the new email: %v, %v", found, err)
	}
	revokeAndDelete(t, admin, user)
}

// revokeAndDelete is the end of a user whose email is moved@… and who has one session.
func revokeAndDelete(t *testing.T, admin harness.Client, user *bffv1.User) {
	t.Helper()
	revoked, err := admin.Users.RevokeUserSessions(t.Context(), &bffv1.RevokeUserSessionsRequest{UserId: user.GetId()})
	if err != nil || revoked.GetRevoked() != 1 {
		t.Errorf("RevokeUserSessions: %v, %v; want 1", revoked, err)
	}
	if _, err := admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: user.GetId()}); err != nil {
		t.Errorf("DeleteUser: %v", err)
	}
	_, err = admin.Users.GetUser(t.Context(), &bffv1.GetUserRequest{UserId: user.GetId()})
	harness.WantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
	_, err = admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: user.GetId()})
	harness.WantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
	found, err := admin.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{Query: "moved@"})
	if err != nil || len(found.GetUsers()) != 0 {
		t.Errorf("searching a deleted user: %v, %v", found, err)
	}
}

func pagingAndSearching(t *testing.T, s *harness.System) {
	admin := s.Admin(t).Client()
	var want []string
	for i := range 7 {
		email := fmt.Sprintf("page-%d@example.com", i)
		_, err := admin.Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{
			User: &bffv1.User{Email: email, FirstName: "Grace", LastName: fmt.Sprintf("Pager%d", i)}, Password: "a paged password",
		})
		if err != nil {
			t.Fatalf("CreateUser: %v", err)
		}
		want = append(want, email)
	}
	for order, want := range map[string][]string{
		"email": want, "create_time": want, "create_time desc": reversed(want), "": reversed(want),
	} {
		var got []string
		request := &bffv1.ListUsersRequest{PageSize: 3, Query: "page-", OrderBy: order}
		for {
			page, err := admin.Users.ListUsers(t.Context(), request)
			if err != nil {
				t.Fatalf("ListUsers by %q: %v", order, err)
			}
			for _, user := range page.GetUsers() {
				got = append(got, user.GetEmail())
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %q: got %v, want %v", order, got, want)
		}
	}
	for query, want := range map[string]int{
		"PAGE-3": 1, "grace pager": 7, "pager6": 1, "GRACE PAGER2": 1, "%": 0, "page_": 0, "ace": 0,
	} {
		page, err := admin.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{Query: query})
		if err != nil || len(page.GetUsers()) != want {
			t.Errorf("searching %q: %d users, %v; want %d", query, len(page.GetUsers()), err, want)
		}
	}
	page, err := admin.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{Query: "page-", Status: bffv1.UserStatus_USER_STATUS_DISABLED})
	if err != nil || len(page.GetUsers()) != 0 {
		t.Errorf("searching the disabled: %v, %v; want none", page, err)
	}
}

func reversed(items []string) []string {
	turned := slices.Clone(items)
	slices.Reverse(turned)
	return turned
}

func foreignPageToken(t *testing.T, s *harness.System) {
	admin := s.Admin(t).Client()
	for i := range 2 {
		s.SignUp(t, fmt.Sprintf("token-%d@example.com", i))
	}
	page, err := admin.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{PageSize: 1, Query: "token-"})
	if err != nil || page.GetNextPageToken() == "" {
		t.Fatalf("ListUsers: %v, %v", page, err)
	}
	for name, request := range map[string]*bffv1.ListUsersRequest{
		"another query":  {Query: "other", PageToken: page.GetNextPageToken()},
		"another order":  {Query: "token-", OrderBy: "email", PageToken: page.GetNextPageToken()},
		"another status": {Query: "token-", Status: bffv1.UserStatus_USER_STATUS_ACTIVE, PageToken: page.GetNextPageToken()},
		"damaged":        {Query: "token-", PageToken: page.GetNextPageToken()[1:]},
		"made up":        {Query: "token-", PageToken: "next"},
	} {
		_, err := admin.Users.ListUsers(t.Context(), request)
		if err == nil {
			t.Errorf("%s was accepted", name)
			continue
		}
		harness.WantReason(t, err, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
	}
}

func oneselfAndOthers(t *testing.T, s *harness.System) {
	ada, bob := s.SignUp(t, "self@example.com"), s.SignUp(t, "other@example.com")
	me := ada.Client()
	if got, err := me.Users.GetUser(t.Context(), &bffv1.GetUserRequest{UserId: ada.ID}); err != nil || got.GetUser().GetEmail() != "self@example.com" {
		t.Errorf("GetUser of oneself: %v, %v", got, err)
	}
	_, err := me.Users.GetUser(t.Context(), &bffv1.GetUserRequest{UserId: bob.ID})
	harness.WantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")
	_, err = me.Users.UpdateUser(t.Context(), &bffv1.UpdateUserRequest{User: &bffv1.User{Id: bob.ID, FirstName: "Hacked"}})
	harness.WantReason(t, err, connect.CodePermissionDenied, "PERMISSION_DENIED")
	for name, call := range map[string]func(harness.Client) error{
		"ListUsers": func(c harness.Client) error {
			_, err := c.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{})
			return err
		},
		"DeleteUser": func(c harness.Client) error {
			_, err := c.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: ada.ID})
			return err
		},
		"SetUserRoles": func(c harness.Client) error {
			_, err := c.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: ada.ID, Roles: []string{"admin"}})
			return err
		},
	} {
		if err := call(me); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s by somebody without a role: %v, want permission_denied", name, err)
		}
		if err := call(s.Client("")); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s by nobody: %v, want unauthenticated", name, err)
		}
	}
}

func badInput(t *testing.T, s *harness.System) {
	token := s.SignUp(t, "input@example.com").Access
	register := func(fields string) string {
		return `{"email":"bad@example.com","password":"correct horse battery",` + fields + `}`
	}
	for name, test := range map[string]struct {
		procedure, body, reason, field string
		status                         int
	}{
		"malformed JSON":         {"/bff.v1.AuthService/Register", `{"email":`, "MALFORMED_REQUEST", "", 400},
		"a wrong type":           {"/bff.v1.AuthService/Register", `{"email":7}`, "MALFORMED_REQUEST", "email", 400},
		"an invalid email":       {"/bff.v1.AuthService/Register", `{"email":"nope","password":"correct horse battery"}`, "INVALID_ARGUMENT", "email", 400},
		"a short password":       {"/bff.v1.AuthService/Register", `{"email":"a@example.com","password":"short"}`, "INVALID_ARGUMENT", "password", 400},
		"a long name":            {"/bff.v1.AuthService/Register", register(`"firstName":"` + strings.Repeat("x", 10_000) + `"`), "INVALID_ARGUMENT", "first_name", 400},
		"a NUL in a name":        {"/bff.v1.AuthService/Register", register(`"lastName":"a\u0000b"`), "INVALID_ARGUMENT", "last_name", 400},
		"invalid UTF-8":          {"/bff.v1.AuthService/Register", register("\"firstName\":\"\xff\xfe\""), "MALFORMED_REQUEST", "", 400},
		"a NUL in a query":       {"/bff.v1.AccountService/UpdateMe", `{"user":{"locale":"e\u0000"}}`, "INVALID_ARGUMENT", "user.locale", 400},
		"a foreign mask":         {"/bff.v1.AccountService/UpdateMe", `{"user":{"email":"x@example.com"},"updateMask":"email"}`, "UPDATE_MASK_INVALID", "update_mask", 400},
		"nothing to update":      {"/bff.v1.AccountService/UpdateMe", `{"user":{}}`, "UPDATE_MASK_INVALID", "update_mask", 400},
		"no id":                  {"/bff.v1.UserService/GetUser", `{}`, "INVALID_ARGUMENT", "user_id", 400},
		"an unknown method":      {"/bff.v1.AuthService/Nonsense", `{}`, "METHOD_UNKNOWN", "", 501},
		"two megabytes":          {"/bff.v1.AuthService/Register", register(`"firstName":"` + strings.Repeat("x", 2<<20) + `"`), "REQUEST_TOO_LARGE", "", 429},
		"a token of nobody's":    {"/bff.v1.AuthService/Refresh", `{"refreshToken":"ghr_AAAA"}`, "REFRESH_TOKEN_INVALID", "", 401},
		"a wrong enum":           {"/bff.v1.UserService/ListUsers", `{"status":"NOPE"}`, "PERMISSION_DENIED", "", 403},
		"unknown fields do pass": {"/bff.v1.AuthService/Login", `{"email":"input@example.com","password":"correct horse battery","hat":1}`, "", "", 200},
	} {
		status, _, body := s.Post(t, test.procedure, token, test.body)
		var answer struct {
			Message string
			Details []struct {
				Type  string
				Debug struct {
					Reason          string
					FieldViolations []struct{ Field, Description string }
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Errorf("%s: %d %s: %v", name, status, body, err)
			continue
		}
		var reason, field string
		for _, detail := range answer.Details {
			if detail.Type == "google.rpc.ErrorInfo" {
				reason = detail.Debug.Reason
			}
			for _, violation := range detail.Debug.FieldViolations {
				field = violation.Field
			}
		}
		if status != test.status || reason != test.reason || field != test.field || test.reason != "" && answer.Message == "" {
			t.Errorf("%s: %d %q about %q, want %d %q about %q: %.300s", name, status, reason, field, test.status, test.reason, test.field, body)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/bff.v1.AuthService/Login", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does by itself
	if status, header, body := harness.Do(t, request); status != http.StatusUnsupportedMediaType || header.Get("Accept-Post") == "" || !strings.Contains(body, "CONTENT_TYPE_UNSUPPORTED") {
		t.Errorf("without a content type: %d %s, want 415 in words", status, body)
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email = 'bad@example.com'"); n != 0 {
		t.Error("bad input made an account")
	}
}

func reflection(t *testing.T, s *harness.System) {
	stream := grpcreflect.NewClient(harness.H2C, s.URL).NewStream(t.Context())
	defer stream.Close()
	names, err := stream.ListServices()
	if err != nil {
		t.Fatalf("ListServices: %v", err)
	}
	for _, want := range []string{"bff.v1.AuthService", "bff.v1.AccountService", "bff.v1.UserService", "grpc.health.v1.Health"} {
		found := false
		for _, name := range names {
			found = found || string(name) == want
		}
		if !found {
			t.Errorf("reflection lists %v, want %s too", names, want)
		}
	}
	if _, err := stream.FileContainingSymbol("bff.v1.AccountService"); err != nil {
		t.Errorf("FileContainingSymbol: %v", err)
	}
	for _, name := range names {
		if strings.HasPrefix(string(name), "auth.") || strings.HasPrefix(string(name), "users.") {
			t.Errorf("the gateway shows the internal service %s", name)
		}
	}
}

func pagesAndDocuments(t *testing.T, s *harness.System) {
	for path, want := range map[string]string{
		"/": "Gatehouse", "/docs": "swagger-ui-bundle.js", "/redoc": "redoc.standalone.js", "/openapi.json": "/bff.v1.AccountService/GetMe",
		"/postman.json": "{{baseUrl}}/api/v1/me", "/status.json": `"name":"users","well":true`, "/.well-known/jwks.json": `"crv":"Ed25519"`, "/livez": "ok", "/readyz": "ok",
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if status, _, body := harness.Do(t, request); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want 200 with %q in %.200s", path, status, want, body)
		}
	}
	// The gateway serves no internal method.
	if status, _, body := s.Post(t, "/auth.v1.AccountService/GetAccount", "", `{}`); status != http.StatusNotFound {
		t.Errorf("an internal method on the gateway: %d %s", status, body)
	}
}

func myOwnAccount(t *testing.T, s *harness.System) {
	ada := s.SignUp(t, "mine@example.com")
	me := ada.Client()
	second, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "mine@example.com", Password: harness.Password})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := me.Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
	if err != nil || len(sessions.GetSessions()) != 2 {
		t.Fatalf("ListSessions: %v, %v; want 2", sessions, err)
	}
	for _, session := range sessions.GetSessions() {
		if !session.GetCurrent() {
			if _, err := me.Account.RevokeSession(t.Context(), &bffv1.RevokeSessionRequest{SessionId: session.GetId()}); err != nil {
				t.Errorf("RevokeSession: %v", err)
			}
		}
		if session.GetIpAddress() != "127.0.0.1" {
			t.Errorf("the session's address is %q, want 127.0.0.1", session.GetIpAddress())
		}
	}
	_, err = s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: second.GetSignedIn().GetTokens().GetRefreshToken()})
	harness.WantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")

	updated, err := me.Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{LastName: "King"}})
	if err != nil || updated.GetUser().GetLastName() != "King" || updated.GetUser().GetFirstName() != "Ada" {
		t.Errorf("UpdateMe: %v, %v", updated, err)
	}
	_, err = me.Account.ChangePassword(t.Context(), &bffv1.ChangePasswordRequest{CurrentPassword: "wrong", NewPassword: "another horse battery"})
	harness.WantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_WRONG")
	_, err = me.Account.ChangePassword(t.Context(), &bffv1.ChangePasswordRequest{CurrentPassword: harness.Password, NewPassword: "another horse battery"})
	if err != nil {
		t.Errorf("ChangePassword: %v", err)
	}
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.sessions SET authenticate_time = now() - interval '1 hour' WHERE account_id = $1", ada.ID); err != nil {
		t.Fatal(err)
	}
	_, err = me.Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{})
	harness.WantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	if _, err := me.Account.Reauthenticate(t.Context(), &bffv1.ReauthenticateRequest{Password: "another horse battery"}); err != nil {
		t.Errorf("Reauthenticate: %v", err)
	}
	if _, err := me.Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
		t.Errorf("DeleteMe: %v", err)
	}
	harness.Eventually(t, time.Second, "the token of a deleted account is refused", func() error {
		_, err := me.Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if fault.Reason(err) != "TOKEN_STALE" {
			return fmt.Errorf("GetMe: %w", err)
		}
		return nil
	})
	s.UntilRead(t, harness.RoleUsers)
	if n := s.Count(t, "SELECT count(*) FROM users.profiles WHERE id = $1", ada.ID); n != 0 {
		t.Error("the profile outlived its account")
	}
}

// Guarantee 2: what is revoked is refused within a second, though tokens are
// stateless.
func revokedTokens(t *testing.T, s *harness.System) {
	admin := s.Admin(t).Client()
	for name, test := range map[string]struct {
		revoke func(who *harness.Person) error
		reason string
	}{
		"logout": {func(who *harness.Person) error {
			_, err := s.Client("").Auth.Logout(t.Context(), &bffv1.LogoutRequest{RefreshToken: who.Refresh})
			return err
		}, "SESSION_ENDED"},
		"an administrator's revocation": {func(who *harness.Person) error {
			_, err := admin.Users.RevokeUserSessions(t.Context(), &bffv1.RevokeUserSessionsRequest{UserId: who.ID})
			return err
		}, "SESSION_ENDED"},
		"other roles": {func(who *harness.Person) error {
			_, err := admin.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: who.ID, Roles: []string{"editor"}})
			return err
		}, "TOKEN_STALE"},
		"a disabled user": {func(who *harness.Person) error {
			_, err := admin.Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: who.ID})
			return err
		}, "SESSION_ENDED"},
	} {
		who := s.SignUp(t, strings.ReplaceAll(name, " ", "-")+"@example.com")
		token := who.Access
		if _, err := s.Client(token).Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
			t.Errorf("%s: GetMe before: %v", name, err)
		}
		if err := test.revoke(who); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		harness.Eventually(t, time.Second, name, func() error {
			_, err := s.Client(token).Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
			if fault.Reason(err) != test.reason {
				return fmt.Errorf("GetMe: %w, want %s", err, test.reason)
			}
			return nil
		})
		if name == "other roles" { // which a refresh fixes
			refreshed, err := s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: who.Refresh})
			if err != nil {
				t.Errorf("Refresh: %v", err)
			}
			if _, err := s.Client(refreshed.GetTokens().GetAccessToken()).Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
				t.Errorf("GetMe with the roles of now: %v", err)
			}
		}
	}
}

func logsHoldNoSecret(t *testing.T, s *harness.System) {
	const secret = "a secret that logs must not hold"
	_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "logged@example.com", Password: secret})
	harness.WantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	s.Post(t, "/bff.v1.AuthService/Login", "", `{"email":"logged@example.com","password":["`+secret+`"]}`)
	registered, err := s.Client("").Auth.Register(t.Context(), &bffv1.RegisterRequest{Email: "logged@example.com", Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	tokens := registered.GetSignedIn().GetTokens()
	s.Post(t, "/bff.v1.AccountService/GetMe", tokens.GetAccessToken()+"x", `{}`)
	s.Post(t, "/bff.v1.AuthService/Refresh", "", `{"refreshToken":"`+tokens.GetRefreshToken()+`"}`)
	for name, process := range s.Processes {
		logged := process.Stderr.String() + process.Stdout.String()
		for what, text := range map[string]string{
			"a password": secret, "an access token": tokens.GetAccessToken(), "a refresh token": tokens.GetRefreshToken(), "a hash": "$argon2id$",
		} {
			if strings.Contains(logged, text) {
				t.Errorf("%s logged %s", name, what)
			}
		}
	}
}
