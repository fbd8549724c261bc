// Package providers has the pages that a browser passes on its way to another provider
// and back. They decide nothing: the way there is begun by the public API, and the way
// back only stores the answer in the flow cookie, for a page whose script gives it to the
// API. The cookies of a session do not arrive on the way back.
package providers

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"gatehouse/bff/browser"
	"gatehouse/internal/flowtoken"
)

const (
	// returnPage is the page whose script completes the sign-in.
	returnPage = "/sign-in/return"
	beginPath  = "/bff.v1.AuthService/BeginFederatedLogin"
	// maxForm bounds a form that a provider posts.
	maxForm = 16 << 10
	// maxUser bounds what Apple posts about a person.
	maxUser = 1024
)

// Handler serves the pages.
type Handler struct {
	// API is the public API.
	API     http.Handler
	Cookies *browser.Cookies
}

// Start sends a browser to a provider.
func (h *Handler) Start(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("provider")
	begun, reason := h.begin(r, id)
	if reason != "" || !h.Cookies.SetFlow(w.Header(), browser.Flow{Provider: id, Token: begun.FlowToken}) {
		leave(w, id, false, reason)
		return
	}
	redirect(w, begun.AuthorizationURL)
}

// begun is the API's answer.
type begun struct {
	AuthorizationURL string `json:"authorizationUrl"`
	FlowToken        string `json:"flowToken"`
}

// begin calls the API as the browser's own script would, so that the same limits apply.
func (h *Handler) begin(r *http.Request, id string) (begun, string) {
	query := r.URL.Query()
	text, err := json.Marshal(map[string]any{"provider": id, "returnTo": query.Get("return_to"), "fresh": query.Get("fresh") == "true"})
	if err != nil {
		return begun{}, "INTERNAL"
	}
	call := r.Clone(r.Context())
	call.Method, call.URL, call.RequestURI = http.MethodPost, &url.URL{Path: beginPath}, beginPath
	call.Body, call.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	for _, name := range []string{"Cookie", "Authorization", "Origin", "Accept-Encoding", "X-Gatehouse-Session", "Content-Encoding"} {
		call.Header.Del(name)
	}
	call.Header.Set("Content-Type", "application/json")
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	h.API.ServeHTTP(answer, call)
	if answer.status != http.StatusOK {
		return begun{}, answer.reason()
	}
	var found begun
	if json.Unmarshal(answer.body.Bytes(), &found) != nil || found.AuthorizationURL == "" {
		return begun{}, "INTERNAL"
	}
	return found, ""
}

// Callback stores a provider's answer in the flow cookie, if this browser began the visit.
func (h *Handler) Callback(w http.ResponseWriter, r *http.Request) {
	id, query := r.PathValue("provider"), r.URL.Query()
	flow := h.Cookies.FlowOf(r)
	if flow.Provider != id || !flowtoken.Matches(flow.Token, query.Get("state")) {
		leave(w, id, false, "CHALLENGE_INVALID")
		return
	}
	flow.Code, flow.State, flow.Issuer, flow.User, flow.Error = query.Get("code"), query.Get("state"), query.Get("iss"), query.Get("user"), short(query.Get("error"))
	if !h.Cookies.SetFlow(w.Header(), flow) {
		if flow.User = ""; !h.Cookies.SetFlow(w.Header(), flow) {
			leave(w, id, flow.Link, "PROVIDER_ANSWER_INVALID")
			return
		}
	}
	leave(w, id, flow.Link, "")
}

// Posted leads a provider's form (Apple's) to Callback. The form comes from the provider's
// site, so that the flow cookie does not arrive with it.
func (h *Handler) Posted(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("provider")
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		leave(w, id, false, "PROVIDER_ANSWER_INVALID")
		return
	}
	query := url.Values{}
	for _, name := range []string{"code", "state", "iss", "error"} {
		if value := r.PostForm.Get(name); value != "" {
			query.Set(name, value)
		}
	}
	if user := nameOf(r.PostForm.Get("user")); user != "" {
		query.Set("user", user)
	}
	redirect(w, "/auth/"+url.PathEscape(id)+"/callback?"+query.Encode())
}

// nameOf returns the name in what Apple posts about a person, without the email, which is
// not signed and does not belong into an address.
func nameOf(text string) string {
	var user struct {
		Name struct {
			FirstName string `json:"firstName"`
			LastName  string `json:"lastName"`
		} `json:"name"`
	}
	if json.Unmarshal([]byte(text), &user) != nil || user.Name.FirstName+user.Name.LastName == "" {
		return ""
	}
	name, err := json.Marshal(user)
	if err != nil || len(name) > maxUser {
		return ""
	}
	return string(name)
}

// short returns an error name of OAuth, which is short.
func short(text string) string { return strings.ToValidUTF8(text[:min(len(text), 64)], "") }

// leave leads the browser to the page that goes on. reason is empty for a success.
func leave(w http.ResponseWriter, id string, link bool, reason string) {
	query := url.Values{"provider": {id}}
	if link {
		query.Set("flow", "link")
	}
	if reason != "" {
		query.Set("error", reason)
	}
	redirect(w, returnPage+"?"+query.Encode())
}

// redirect redirects without [http.Redirect], which cleans addresses.
func redirect(w http.ResponseWriter, address string) {
	w.Header().Set("Location", address)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
}

// recorder keeps an answer of the API.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *recorder) Header() http.Header            { return a.header }
func (a *recorder) WriteHeader(status int)         { a.status = status }
func (a *recorder) Write(text []byte) (int, error) { return a.body.Write(text) }

// Flush implements [http.Flusher], which the API needs.
func (a *recorder) Flush() {}

// reason returns the reason of an error of the API.
func (a *recorder) reason() string {
	var failure struct {
		Details []struct {
			Debug struct {
				Reason string `json:"reason"`
			} `json:"debug"`
		} `json:"details"`
	}
	if json.Unmarshal(a.body.Bytes(), &failure) == nil {
		for _, detail := range failure.Details {
			if detail.Debug.Reason != "" {
				return detail.Debug.Reason
			}
		}
	}
	return "SERVICE_UNAVAILABLE"
}
