package bff

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// asREST is a request in both of its forms: of REST, and of Connect.
type asREST struct {
	method, path, body string
	procedure, message string
}

// A call and its answer are the same whichever way they came: the body byte for
// byte, and every header that isn't about the one answer.
func TestRESTAnswersLikeConnect(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]options{"in process": {}, "apart": {apart: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, w)
			h.fail(authv1.AccountServiceDeleteAccountProcedure, fault.New(connect.CodeFailedPrecondition, "LAST_ADMINISTRATOR", "no"))
			h.fail(authv1.SessionServiceRevokeSessionProcedure, fault.New(connect.CodeNotFound, "SESSION_NOT_FOUND", "no"))
			h.fail(authv1.AccountServiceChangeAccountEmailProcedure, fault.New(connect.CodeAlreadyExists, "EMAIL_TAKEN", "no"))
			answer(h.backend, usersv1.ProfileServiceUpdateProfileProcedure, func(_ context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
				if req.GetProfile().GetEtag() == "old" {
					return nil, fault.New(connect.CodeAborted, "ETAG_MISMATCH", "no")
				}
				return &usersv1.UpdateProfileResponse{Profile: profileOf(req.GetProfile().GetId())}, nil
			})
			answer(h.backend, authv1.SessionServiceLoginProcedure, func(_ context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				if req.GetPassword() == "wait" {
					return nil, fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS", "wait"), 7*time.Second)
				}
				return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
			})
			const users = "/bff.v1.UserService/"
			byID, byIDMessage := "/api/v1/users/"+bob, `{"userId":"`+bob+`"}`
			for _, test := range []struct {
				name   string
				as     asREST
				token  string
				status int
				also   []string // a header that it must have, and its value
			}{
				{"a read", asREST{"GET", "/api/v1/me", "", getMePath, `{}`}, h.token(alice), 200, nil},
				{"a read by id", asREST{"GET", byID, "", users + "GetUser", byIDMessage}, h.token(alice, "admin"), 200, nil},
				{"an id in upper case", asREST{"GET", "/api/v1/users/" + strings.ToUpper(bob), "", users + "GetUser", byIDMessage}, h.token(alice, "admin"), 200, nil},
				{"a write", asREST{"POST", "/api/v1/auth/login", loginBody, loginPath, loginBody}, "", 200, []string{"Cache-Control", "no-store"}},
				{"a patch", asREST{"PATCH", byID, `{"firstName":"Bob"}`, users + "UpdateUser", `{"user":{"id":"` + bob + `","firstName":"Bob"}}`}, h.token(bob), 200, nil},
				{"nobody", asREST{"GET", "/api/v1/me", "", getMePath, `{}`}, "", 401, []string{"Www-Authenticate", `Bearer realm="gatehouse"`}},
				{"a bad token", asREST{"GET", "/api/v1/me", "", getMePath, `{}`}, "x.y.z", 401, []string{"Www-Authenticate", `Bearer realm="gatehouse", error="invalid_token"`}},
				{"no role", asREST{"GET", "/api/v1/users", "", users + "ListUsers", `{}`}, h.token(alice), 403, nil},
				{"another's", asREST{"GET", byID, "", users + "GetUser", byIDMessage}, h.token(alice), 403, nil},
				{"another's to change", asREST{"PATCH", byID, `{"id":"` + alice + `","firstName":"Eve"}`, users + "UpdateUser", `{"user":{"id":"` + bob + `"}}`}, h.token(alice), 403, nil},
				{"not there", asREST{"DELETE", "/api/v1/me/sessions/" + session, "", "/bff.v1.AccountService/RevokeSession", `{"sessionId":"` + session + `"}`}, h.token(alice), 404, nil},
				{"taken", asREST{"POST", byID + ":changeEmail", `{"email":"a@example.com"}`, users + "ChangeUserEmail", `{"userId":"` + bob + `","email":"a@example.com"}`}, h.token(alice, "admin"), 409, nil},
				{"an old etag", asREST{"PATCH", "/api/v1/me", `{"firstName":"A","etag":"old"}`, updateMePath, `{"user":{"firstName":"A","etag":"old"}}`}, h.token(alice), 409, nil},
				{"not now", asREST{"DELETE", byID, "", users + "DeleteUser", byIDMessage}, h.token(alice, "admin"), 400, nil},
				{"too often", asREST{"POST", "/api/v1/auth/login", `{"email":"a@example.com","password":"wait"}`, loginPath, `{"email":"a@example.com","password":"wait"}`}, "", 429, []string{"Retry-After", "7"}},
				{"an invalid id", asREST{"GET", "/api/v1/users/nope", "", users + "GetUser", `{"userId":"nope"}`}, h.token(alice, "admin"), 400, nil},
				{"an invalid field", asREST{"POST", "/api/v1/auth/login", `{"email":"nope"}`, loginPath, `{"email":"nope"}`}, "", 400, nil},
				{"half of JSON", asREST{"POST", "/api/v1/auth/login", `{"email":`, loginPath, `{"email":`}, "", 400, nil},
				{"no JSON", asREST{"POST", "/api/v1/auth/login", `email=a`, loginPath, `email=a`}, "", 400, nil},
				{"a wrong type", asREST{"POST", "/api/v1/auth/login", `{"email":7}`, loginPath, `{"email":7}`}, "", 400, nil},
				{"a field twice", asREST{"POST", "/api/v1/auth/login", `{"email":"a","email":"a"}`, loginPath, `{"email":"a","email":"a"}`}, "", 400, nil},
				{"a wrong type of a stranger", asREST{"PATCH", "/api/v1/me", `{"firstName":7}`, updateMePath, `{"user":{"firstName":7}}`}, "", 401, []string{"Www-Authenticate", `Bearer realm="gatehouse"`}},
				{"a wrong parameter of a stranger", asREST{"GET", "/api/v1/users?pageSize=x", "", users + "ListUsers", `{}`}, "", 401, nil},
				{"invalid UTF-8", asREST{"POST", "/api/v1/auth/login", "{\"email\":\"\xff\"}", loginPath, "{\"email\":\"\xff\"}"}, "", 400, nil},
				{"nothing to change", asREST{"PATCH", "/api/v1/me", `{"email":"x@example.com"}`, updateMePath, `{"user":{"email":"x@example.com"}}`}, h.token(alice), 400, nil},
			} {
				headers := []string{"Content-Type", "application/json", "X-Request-Id", "one"}
				if test.token != "" {
					headers = append(headers, "Authorization", "Bearer "+test.token)
				}
				rest, restBody := h.fetch(t, test.as.method, test.as.path, test.as.body, headers...)
				wire, wireBody := h.fetch(t, http.MethodPost, test.as.procedure, test.as.message, headers...)
				if test.as.method == http.MethodGet && !strings.Contains(test.as.path, "?") {
					// What can be read is a Connect GET.
					wire, wireBody = h.fetch(t, http.MethodGet, test.as.procedure+getMeQuery+strings.ReplaceAll(test.as.message, `"`, "%22"), "", headers...)
				}
				if rest.StatusCode != test.status || wire.StatusCode != test.status || restBody != wireBody {
					t.Errorf("%s: REST answers %d %s\nand Connect %d %s\nwant %d and the same", test.name, rest.StatusCode, restBody, wire.StatusCode, wireBody, test.status)
				}
				if got, want := steady(rest.Header), steady(wire.Header); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: REST has the headers %v\nand Connect %v", test.name, got, want)
				}
				if test.also != nil && rest.Header.Get(test.also[0]) != test.also[1] {
					t.Errorf("%s: got %s %q, want %q", test.name, test.also[0], rest.Header.Get(test.also[0]), test.also[1])
				}
			}
		})
	}
}

// steady leaves out what differs from answer to answer.
func steady(header http.Header) http.Header {
	header = header.Clone()
	for _, name := range []string{"Date", "Server-Timing"} {
		if header.Get(name) != "" {
			header.Set(name, "there")
		}
	}
	return header
}

// What there is no Connect call like, in the same shape.
func TestRESTErrorsHaveOneForm(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	const form = "application/x-www-form-urlencoded"
	h.wantNoCalls(t, func() {
		for _, test := range []struct {
			name, method, path, body string
			headers                  []string
			status                   int
			code                     connect.Code
			reason, field, allow     string
		}{
			{name: "a path that isn't there", method: "GET", path: "/api/v1/nothing", status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "no path", method: "GET", path: "/api/", status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "not even that", method: "GET", path: "/api", status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "a path that isn't clean", method: "GET", path: "/api/v1//me", status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "a verb that isn't there", method: "POST", path: "/api/v1/users/" + bob + ":praise", status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "a procedure below it", method: "POST", path: "/api" + loginPath, status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "as a Connect call", method: "GET", path: "/api/v1/nothing?connect=v1&encoding=json&message={}", headers: []string{"Connect-Protocol-Version", "1"}, status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "as gRPC", method: "POST", path: "/api/v1/nothing", body: "{}", headers: []string{"Content-Type", "application/grpc"}, status: 404, code: connect.CodeNotFound, reason: "PATH_UNKNOWN"},
			{name: "another method", method: "PUT", path: "/api/v1/me", status: 405, code: connect.CodeUnimplemented, reason: "HTTP_METHOD_UNSUPPORTED", allow: "DELETE, GET, HEAD, OPTIONS, PATCH"},
			{name: "a HEAD of a write", method: "HEAD", path: "/api/v1/auth/login", status: 405, reason: "HTTP_METHOD_UNSUPPORTED", allow: "OPTIONS, POST"},
			{name: "a form", method: "POST", path: "/api/v1/auth/login", body: "email=a", headers: []string{"Content-Type", form}, status: 415, code: connect.CodeInvalidArgument, reason: "CONTENT_TYPE_UNSUPPORTED"},
			{name: "no type", method: "POST", path: "/api/v1/auth/login", body: "{}", status: 415, code: connect.CodeInvalidArgument, reason: "CONTENT_TYPE_UNSUPPORTED"},
			{name: "gRPC", method: "POST", path: "/api/v1/auth/login", body: "{}", headers: []string{"Content-Type", "application/grpc"}, status: 415, code: connect.CodeInvalidArgument, reason: "CONTENT_TYPE_UNSUPPORTED"},
			{name: "another charset", method: "POST", path: "/api/v1/auth/login", body: "{}", headers: []string{"Content-Type", "application/json; charset=latin1"}, status: 415, code: connect.CodeInvalidArgument, reason: "CONTENT_TYPE_UNSUPPORTED"},
			{name: "another compression", method: "POST", path: "/api/v1/auth/login", body: "{}", headers: []string{"Content-Type", "application/json", "Content-Encoding", "br"}, status: 501, code: connect.CodeUnimplemented, reason: "COMPRESSION_UNSUPPORTED"},
			{name: "no gzip", method: "POST", path: "/api/v1/auth/login", body: "{}", headers: []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed},
			{name: "a time-out that isn't one", method: "POST", path: "/api/v1/auth/login", body: "{}", headers: []string{"Content-Type", "application/json", "Connect-Timeout-Ms", "soon"}, status: 400, code: connect.CodeInvalidArgument, reason: "TIMEOUT_INVALID"},
			{name: "an unknown field", method: "POST", path: "/api/v1/auth/login", body: `{"hat":1}`, headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "hat"},
			{name: "an unknown field of the body's", method: "PATCH", path: "/api/v1/me", body: `{"hat":1}`, headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "hat"},
			{name: "an unknown parameter", method: "GET", path: "/api/v1/users?hat=1", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "hat"},
			{name: "Connect's parameter", method: "GET", path: "/api/v1/users?connect=v1", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "connect"},
			{name: "a parameter of the body's", method: "POST", path: "/api/v1/auth/login?email=a%40example.com", body: "{}", headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "email"},
			{name: "a parameter of the path's", method: "GET", path: "/api/v1/users/" + bob + "?userId=" + alice, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "userId"},
			{name: "a parameter in addition to the body", method: "PATCH", path: "/api/v1/users/" + bob + "?user.id=" + alice, body: "{}", headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "user.id"},
			{name: "a number that isn't one", method: "GET", path: "/api/v1/users?page_size=x", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "pageSize"},
			{name: "a number too large", method: "GET", path: "/api/v1/users?pageSize=99999999999", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "pageSize"},
			{name: "a number out of bounds", method: "GET", path: "/api/v1/users?pageSize=101", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonInvalid, field: "page_size"},
			{name: "an enum that isn't one", method: "GET", path: "/api/v1/users?status=TIRED", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "status"},
			{name: "a time that isn't one", method: "GET", path: "/api/v1/auditEvents?startTime=yesterday", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "startTime"},
			{name: "a parameter twice", method: "GET", path: "/api/v1/users?pageSize=1&page_size=2", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "page_size"},
			{name: "a query that isn't one", method: "GET", path: "/api/v1/users?%zz", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed},
			{name: "a mask that isn't one", method: "PATCH", path: "/api/v1/me?updateMask=first__name", body: `{}`, headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed, field: "updateMask"},
			{name: "a mask of a field of auth", method: "PATCH", path: "/api/v1/me?updateMask=email", body: `{}`, headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: "UPDATE_MASK_INVALID", field: "update_mask"},
			{name: "invalid UTF-8 in the path", method: "GET", path: "/api/v1/users/%ff", status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed},
			{name: "a read with a body", method: "GET", path: "/api/v1/me", body: "{}", headers: []string{"Content-Type", "application/json"}, status: 400, code: connect.CodeInvalidArgument, reason: fault.ReasonMalformed},
		} {
			headers := append([]string{"Authorization", "Bearer " + h.token(alice, "admin")}, test.headers...)
			response, body := h.fetch(t, test.method, test.path, test.body, headers...)
			if test.method == http.MethodHead {
				if response.StatusCode != test.status || body != "" {
					t.Errorf("%s: got %d %q, want %d and no body", test.name, response.StatusCode, body, test.status)
				}
			} else {
				wantRefusal(t, test.name, response, body, test.status, test.code, test.reason)
				wantField(t, test.name, body, test.field)
			}
			if kind := response.Header.Get("Content-Type"); kind != "application/json" || response.Header.Get("X-Request-Id") == "" {
				t.Errorf("%s: got the type %q and the id %q", test.name, kind, response.Header.Get("X-Request-Id"))
			}
			if allow := response.Header.Get("Allow"); allow != test.allow {
				t.Errorf("%s: got Allow %q, want %q", test.name, allow, test.allow)
			}
		}
	})
	response, body := h.fetch(t, http.MethodOptions, "/api/v1/users", "")
	if response.StatusCode != http.StatusNoContent || response.Header.Get("Allow") != "GET, HEAD, OPTIONS, POST" || body != "" {
		t.Errorf("OPTIONS: got %d, Allow %q and %q", response.StatusCode, response.Header.Get("Allow"), body)
	}
}

// wantField checks which field the readable details of an error name.
func wantField(t *testing.T, what, body, want string) {
	t.Helper()
	var failure struct {
		Details []struct {
			Debug struct {
				FieldViolations []struct{ Field, Description string }
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &failure); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	got := ""
	for _, detail := range failure.Details {
		for _, violation := range detail.Debug.FieldViolations {
			got = violation.Field
		}
	}
	if got != want {
		t.Errorf("%s: it is about the field %q, want %q: %s", what, got, want, body)
	}
}

// Without a mask what is given is changed, and nothing is cleared; with one, what
// it names, in either spelling.
func TestAPatchChangesOnlyTheNamedFields(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	var asked *usersv1.UpdateProfileRequest
	answer(h.backend, usersv1.ProfileServiceUpdateProfileProcedure, func(_ context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
		asked = proto.CloneOf(req)
		return &usersv1.UpdateProfileResponse{Profile: profileOf(req.GetProfile().GetId())}, nil
	})
	for _, test := range []struct {
		query, body string
		want        []string
		first       string
	}{
		{"", `{"firstName":"Bob"}`, []string{"first_name"}, "Bob"},
		{"", `{"first_name":"Bob"}`, []string{"first_name"}, "Bob"},
		{"", `{"firstName":"Bob","lastName":"","locale":null,"email":"not@example.com","id":"` + alice + `"}`, []string{"first_name"}, "Bob"},
		{"?updateMask=firstName,lastName", `{"firstName":"Bob"}`, []string{"first_name", "last_name"}, "Bob"},
		{"?update_mask=first_name,last_name", `{"firstName":"Bob"}`, []string{"first_name", "last_name"}, "Bob"},
		{"?updateMask=first_name%2Clocale", `{}`, []string{"first_name", "locale"}, ""},
		{"?updateMask=locale", ``, []string{"locale"}, ""},
	} {
		for path, id := range map[string]string{"/api/v1/me": alice, "/api/v1/users/" + bob: bob} {
			asked = nil
			response, body := h.fetch(t, http.MethodPatch, path+test.query, test.body, "Authorization", "Bearer "+h.token(alice, "admin"), "Content-Type", "application/json")
			if response.StatusCode != http.StatusOK {
				t.Errorf("%s%s %s: got %d %s", path, test.query, test.body, response.StatusCode, body)
				continue
			}
			got := slices.Sorted(slices.Values(asked.GetUpdateMask().GetPaths()))
			if asked.GetProfile().GetId() != id || asked.GetProfile().GetFirstName() != test.first || !slices.Equal(got, test.want) {
				t.Errorf("%s%s %s: users was asked for %v, want %v of %s", path, test.query, test.body, asked, test.want, id)
			}
		}
	}
}

func TestARESTReadIsRevalidatedByItsETag(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	overBoth(t, h, func(t *testing.T) {
		bearer := []string{"Authorization", "Bearer " + h.token(alice), "Accept-Encoding", "identity"}
		first, body := h.get(t, "/api/v1/me", bearer...)
		tag := first.Header.Get("Etag")
		if first.StatusCode != http.StatusOK || tag == "" || first.Header.Get("Cache-Control") != "private, no-cache" {
			t.Fatalf("got %d, ETag %q, Cache-Control %q", first.StatusCode, tag, first.Header.Get("Cache-Control"))
		}
		for condition, want := range map[string]int{tag: 304, "W/" + tag: 304, "*": 304, `"other"`: 200} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				again, text := h.fetch(t, method, "/api/v1/me", "", append(bearer, "If-None-Match", condition)...)
				if again.StatusCode != want || again.Header.Get("Etag") != tag || (text != "") != (want == 200 && method == http.MethodGet) {
					t.Errorf("%s if not %s: got %d, ETag %q and %q, want %d", method, condition, again.StatusCode, again.Header.Get("Etag"), text, want)
				}
			}
		}
		head, text := h.fetch(t, http.MethodHead, "/api/v1/me", "", bearer...)
		if head.StatusCode != http.StatusOK || text != "" || head.Header.Get("Content-Type") != "application/json" || head.Header.Get("Content-Length") != fmt.Sprint(len(body)) {
			t.Errorf("HEAD: got %d %q and %v", head.StatusCode, text, head.Header)
		}
	})
}

// A created resource has 201 with its path in Location; a deleted one has 204.
func TestRESTMapsCodesToItsOwnStatuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	json := []string{"Content-Type", "application/json", "Authorization", "Bearer " + h.token(alice, "admin")}
	answer(h.backend, authv1.AccountServiceDeleteAccountProcedure, func(context.Context, *authv1.DeleteAccountRequest) (*authv1.DeleteAccountResponse, error) {
		return &authv1.DeleteAccountResponse{}, nil
	})
	overBoth(t, h, func(t *testing.T) {
		for path, body := range map[string]string{
			"/api/v1/users":         `{"user":{"email":"new@example.com"},"password":"correct horse battery"}`,
			"/api/v1/auth/register": `{"email":"new@example.com","password":"correct horse battery"}`,
		} {
			answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
				return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
			})
			response, text := h.fetch(t, http.MethodPost, path, body, json...)
			location, ok := strings.CutPrefix(response.Header.Get("Location"), "/api/v1/users/")
			if response.StatusCode != http.StatusCreated || !ok || !strings.Contains(text, location) || len(location) != 36 {
				t.Errorf("%s: got %d, Location %q: %s", path, response.StatusCode, response.Header.Get("Location"), text)
			}
		}
		connected, _ := h.send(t, bffv1.AuthServiceRegisterProcedure, `{"email":"new@example.com","password":"correct horse battery"}`)
		if connected.StatusCode != http.StatusOK || connected.Header.Get("Location") != "" {
			t.Errorf("Register over Connect: got %d, Location %q, want 200 and none", connected.StatusCode, connected.Header.Get("Location"))
		}
		answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(context.Context, *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
			return &authv1.CreateAccountResponse{VerificationSent: true}, nil
		})
		response, text := h.fetch(t, http.MethodPost, "/api/v1/auth/register", `{"email":"new@example.com","password":"correct horse battery"}`, json...)
		if response.StatusCode != http.StatusAccepted || response.Header.Get("Location") != "" || !strings.Contains(text, "verificationSent") {
			t.Errorf("with the email to verify: got %d, Location %q: %s", response.StatusCode, response.Header.Get("Location"), text)
		}
		response, text = h.fetch(t, http.MethodDelete, "/api/v1/users/"+bob, "", json...)
		if response.StatusCode != http.StatusNoContent || text != "" || response.Header.Get("Content-Type") != "" || response.Header.Get("X-Request-Id") == "" {
			t.Errorf("DELETE: got %d %q and %v", response.StatusCode, text, response.Header)
		}
	})
}

// What bounds a Connect call bounds one of REST.
func TestARESTBodyIsBounded(t *testing.T) {
	h := newHarness(t, options{served: true})
	h.wantNoCalls(t, func() {
		patch := func(t *testing.T, what string, body io.Reader, headers ...string) {
			t.Helper()
			for method, path := range map[string]string{http.MethodPatch: "/api/v1/me", http.MethodPost: "/api/v1/auth/login"} {
				if seeker, ok := body.(io.Seeker); ok {
					_, err := seeker.Seek(0, io.SeekStart)
					wantNoError(t, what, err)
				}
				request, err := http.NewRequestWithContext(t.Context(), method, h.url+path, body)
				wantNoError(t, what, err)
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("Authorization", "Bearer "+h.token(alice))
				for i := 0; i < len(headers); i += 2 {
					request.Header.Set(headers[i], headers[i+1])
				}
				response, err := h.http.Do(request)
				wantNoError(t, what, err)
				text, err := io.ReadAll(response.Body)
				wantNoError(t, what, err)
				_ = response.Body.Close()
				wantRefusal(t, what+" to "+path, response, string(text), http.StatusRequestEntityTooLarge, connect.CodeResourceExhausted, fault.ReasonTooLarge)
			}
		}
		bomb := zipBomb(t)
		overBoth(t, h, func(t *testing.T) {
			large := `{"firstName":"` + strings.Repeat("x", rpc.MaxMessageBytes+1000) + `"}`
			patch(t, "with a length", strings.NewReader(large))
			endlessly := &endless{}
			patch(t, "without an end", endlessly)
			if read := endlessly.read.Load(); read > 16<<20 {
				t.Errorf("the server read %d bytes of an endless body", read)
			}
			wantAllocated(t, "a bomb", 32<<20, func() { patch(t, "a bomb", bytes.NewReader(bomb), "Content-Encoding", "gzip") })
		})
	})
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	_, err := io.WriteString(writer, `{"firstName":"Bob"}`)
	wantNoError(t, "zip", err)
	wantNoError(t, "zip", writer.Close())
	response, text := h.fetch(t, http.MethodPatch, "/api/v1/me", packed.String(), "Content-Encoding", "gzip", "Content-Type", "application/json; charset=UTF-8", "Authorization", "Bearer "+h.token(alice))
	if response.StatusCode != http.StatusOK || !strings.Contains(text, "Bob") {
		t.Errorf("packed: got %d %s", response.StatusCode, text)
	}
}

func TestASlowRESTBodyTimesOut(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true})
	h.wantNoCalls(t, func() {
		conn := dialRaw(t, h.url)
		fmt.Fprintf(conn, "POST /api/v1/me/password HTTP/1.1\r\nHost: gatehouse\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", h.token(alice))
		response, body := readResponse(t, conn)
		wantRefusal(t, "a slow body", response, body, http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, "REQUEST_TOO_SLOW")
	})
}

func TestCookiesWorkOverREST(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app}})
	answer(h.backend, authv1.AccountServiceDeleteAccountProcedure, func(context.Context, *authv1.DeleteAccountRequest) (*authv1.DeleteAccountResponse, error) {
		return &authv1.DeleteAccountResponse{}, nil
	})
	own, evil := []string{"Sec-Fetch-Site", "same-origin"}, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}
	json := []string{"Content-Type", "application/json"}
	for _, test := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
	}{
		{"a read of our own page", "GET", "/api/v1/me", "", own, 200},
		{"a read of a listed origin", "GET", "/api/v1/me", "", []string{"Sec-Fetch-Site", "cross-site", "Origin", app}, 200},
		{"a read of a strange page", "GET", "/api/v1/me", "", evil, 403},
		{"a read that says nothing", "GET", "/api/v1/me", "", nil, 403},
		{"a change of our own page", "PATCH", "/api/v1/me", `{"firstName":"A"}`, slices.Concat(own, json), 200},
		{"a change of a strange page", "PATCH", "/api/v1/me", `{"firstName":"A"}`, slices.Concat(evil, json), 403},
		{"a removal of our own page", "DELETE", "/api/v1/me", "", own, 204},
		{"a removal of a strange page", "DELETE", "/api/v1/me", "", evil, 403},
		{"a write by a form", "POST", "/api/v1/me/reauthenticate", "password=a", slices.Concat(own, []string{"Content-Type", "application/x-www-form-urlencoded"}), 415},
		{"a write of plain text", "POST", "/api/v1/me/reauthenticate", `{"password":"a"}`, slices.Concat(own, []string{"Content-Type", "text/plain"}), 415},
	} {
		response, body := h.fetch(t, test.method, test.path, test.body, append(test.headers, "Cookie", accessJar+"="+h.token(alice))...)
		if response.StatusCode != test.status || test.status == http.StatusForbidden && !strings.Contains(body, "CROSS_ORIGIN") {
			t.Errorf("%s: got %d %s, want %d", test.name, response.StatusCode, body, test.status)
		}
	}
	response, body := h.send(t, "/api/v1/auth/login", loginBody, slices.Concat(own, []string{"X-Gatehouse-Session", "cookie"})...)
	if set := cookiesOf(response.Header); set[accessJar] == nil || set[accessJar].Value != "access" || strings.Contains(body, `"accessToken"`) {
		t.Errorf("a session in cookies: got %v and %s", set, body)
	}
	response, body = h.send(t, "/api/v1/auth/refresh", "", jar("", "refresh")...)
	if set := cookiesOf(response.Header); response.StatusCode != http.StatusOK || set[refreshJar] == nil || strings.Contains(body, `"refreshToken"`) {
		t.Errorf("a refresh in cookies, with no body: got %d %v and %s", response.StatusCode, set, body)
	}
	for _, method := range []string{http.MethodPatch, http.MethodDelete} {
		response, _ = h.fetch(t, http.MethodOptions, "/api/v1/me", "", "Origin", app, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "authorization,content-type")
		if response.Header.Get("Access-Control-Allow-Origin") != app || !strings.Contains(response.Header.Get("Access-Control-Allow-Methods"), method) {
			t.Errorf("a preflight for %s: got %d %v", method, response.StatusCode, response.Header)
		}
	}
}

func TestRatesAndQueuesApplyToREST(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true, policy: "bff.v1.AccountService/GetMe rate=1/m burst=1"})
	bearer := []string{"Authorization", "Bearer " + h.token(alice)}
	response, _ := h.get(t, "/api/v1/me", bearer...)
	if response.StatusCode != http.StatusOK || response.Header.Get("Ratelimit") == "" || response.Header.Get("Ratelimit-Policy") == "" {
		t.Errorf("the first: got %d and %v", response.StatusCode, response.Header)
	}
	response, body := h.get(t, "/api/v1/me", bearer...)
	wantRefusal(t, "the second", response, body, http.StatusTooManyRequests, connect.CodeResourceExhausted, "RATE_LIMITED")
	if response.Header.Get("Retry-After") != "60" || !strings.Contains(response.Header.Get("Ratelimit"), "r=0") {
		t.Errorf("the second: got the headers %v, want when to come again", response.Header)
	}
	response, body = h.send(t, getMePath, "{}", bearer...)
	wantRefusal(t, "over Connect, of the same rate", response, body, http.StatusTooManyRequests, connect.CodeResourceExhausted, "RATE_LIMITED")
	h.fill(t, bffv1.UserServiceGetUserProcedure)
	response, body = h.get(t, "/api/v1/users/"+alice, bearer...)
	wantRefusal(t, "under overload", response, body, http.StatusServiceUnavailable, connect.CodeUnavailable, fault.ReasonOverloaded)
	if response.Header.Get("Retry-After") != "1" {
		t.Errorf("under overload: got Retry-After %q, want 1", response.Header.Get("Retry-After"))
	}
}

// What goes with a call goes with one of REST.
func TestRESTPassesTheHeadersOfACall(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{apart: true})
	var keys []string
	answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
		keys = append(keys, req.GetIdempotencyKey().GetKey(), req.GetIdempotencyKey().GetProcedure())
		return &authv1.CreateAccountResponse{Account: accountOf(req.GetAccountId()), Tokens: someTokens()}, nil
	})
	register := `{"email":"new@example.com","password":"correct horse battery"}`
	response, body := h.send(t, "/api/v1/auth/register", register, "Idempotency-Key", "k1", "X-Request-Id", "mine")
	if response.StatusCode != http.StatusCreated || !slices.Equal(keys, []string{"k1", bffv1.AuthServiceRegisterProcedure}) {
		t.Errorf("with a key: got %d %s and auth got %q", response.StatusCode, body, keys)
	}
	if response.Header.Get("X-Request-Id") != "mine" || !strings.Contains(response.Header.Get("Server-Timing"), "profile;dur=") {
		t.Errorf("got the headers %v, want the id and the times", response.Header)
	}
	response, body = h.send(t, "/api/v1/auth/register", register, "Idempotency-Key", strings.Repeat("k", 200))
	wantRefusal(t, "a long key", response, body, http.StatusBadRequest, connect.CodeInvalidArgument, "IDEMPOTENCY_KEY_INVALID")
	response, body = h.get(t, "/api/v1/me", "Authorization", "Bearer "+h.token(alice), "Connect-Protocol-Version", "1", "X-Server-Timeout", "soon")
	if response.StatusCode != http.StatusOK {
		t.Errorf("with headers of other protocols: got %d %s", response.StatusCode, body)
	}
	lines := h.log.lines(t, "call")
	if len(lines) != 3 || lines[0]["method"] != bffv1.AuthServiceRegisterProcedure || lines[0]["protocol"] != "rest" || lines[0]["request_id"] != "mine" {
		t.Errorf("got the log %v, want a line for each, the first of Register", lines)
	}
	h.hang(usersv1.ProfileServiceGetProfileProcedure)
	response, body = h.get(t, "/api/v1/users/"+alice, "Authorization", "Bearer "+h.token(alice), "Connect-Timeout-Ms", "200")
	wantRefusal(t, "the caller's own deadline", response, body, http.StatusGatewayTimeout, connect.CodeDeadlineExceeded, fault.ReasonDeadline)
	h.fail(authv1.AccountServiceGetAccountProcedure, fault.Unavailable())
	response, body = h.get(t, "/api/v1/users/"+alice, "Authorization", "Bearer "+h.token(alice))
	wantRefusal(t, "an unreachable service", response, body, http.StatusServiceUnavailable, connect.CodeUnavailable, fault.ReasonUnavailable)
	if response.Header.Get("Retry-After") != "1" {
		t.Errorf("an unreachable service: got Retry-After %q, want 1", response.Header.Get("Retry-After"))
	}
}
