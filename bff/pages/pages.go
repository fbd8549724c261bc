// Package pages serves the pages that people use: signing in, their own account, and the
// console for administrators.
//
// A page is an empty document with a script, which uses the public API and nothing else.
// The gateway decides nothing while it serves one: it knows no session there, because the
// session's cookies are not sent with a navigation that comes from another site.
package pages

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Config describes the pages.
type Config struct {
	// Off serves the pages of mailed links alone, which mails need.
	Off bool
	// AppName is the product's name, which people see; "Gatehouse" if empty.
	AppName string
	// Brand is the product's look; nil for ours.
	Brand *Brand
	// Origins are the web origins that one may go on to after signing in.
	Origins []string
	// Registration is how people register, as in GATEHOUSE_REGISTRATION; empty if the
	// process does not know.
	Registration string
	// Passkeys offers passkeys.
	Passkeys bool
	// EmailSignIn offers to sign in with a mailed code.
	EmailSignIn bool
	// Scopes are what a person may allow an API key.
	Scopes []string
	// FirstRun holds facts for the person at this machine; nil for none.
	FirstRun *FirstRun
	// AcceptsGzip reports whether a client accepts gzip, by the values of its
	// Accept-Encoding header.
	AcceptsGzip func(acceptEncoding []string) bool
}

// FirstRun are facts for the person who started the program. Requests from other machines
// do not get them.
type FirstRun struct {
	URL           string `json:"url"`
	Administrator string `json:"administrator,omitempty"`
	Mailbox       string `json:"mailbox,omitempty"`
}

// Handler serves the pages. Mount it at each of its Patterns.
type Handler struct {
	mux      http.ServeMux
	patterns []string
	config   Config
	bundle   *bundle
	icons    *icons
}

// The paths of the pages. The script of a bundle has the same list, with what each shows.
var (
	linkPaths   = []string{"/link/verify", "/link/reset", "/link/email", "/link/sign-in"}
	signInPaths = []string{"/{$}", "/sign-in", "/sign-in/code", "/sign-in/factor", "/sign-in/return", "/sign-up", "/sign-up/check-mail", "/recover", "/signed-out", "/error"}
	ownPaths    = []string{
		"/account", "/account/profile", "/account/email", "/account/password", "/account/factors",
		"/account/sessions", "/account/connections", "/account/keys", "/account/activity", "/account/data",
	}
	consolePaths = []string{"/console", "/console/{page...}"}
)

// home is where one goes on to after signing in without another wish.
const home = "/account"

// ourName is the name of a product that has not set one.
const ourName = "Gatehouse"

// NewHandler returns the handler of the pages.
func NewHandler(config Config) *Handler {
	if config.AppName == "" {
		config.AppName = ourName
	}
	if config.Brand == nil {
		config.Brand = &Brand{}
	}
	h := &Handler{config: config, bundle: embedded()}
	var err error
	if h.icons, err = h.makeIcons(); err != nil {
		panic("pages: the embedded bundle is damaged: " + err.Error())
	}
	h.handle("GET "+iconPath, serveIcon("image/svg+xml", h.icons.version, h.icons.svg))
	h.handle("GET /favicon.ico", serveIcon("image/x-icon", h.icons.version, h.icons.ico))
	h.handle("GET "+assetsRoot, http.HandlerFunc(h.serveAsset))
	for name := range config.Brand.files {
		h.handle("GET "+config.Brand.path(name), http.HandlerFunc(h.serveBrand))
	}
	for _, path := range linkPaths {
		h.handle("GET "+path, h.page("sign-in", 0))
	}
	if config.Off {
		h.handle("GET /{$}", http.RedirectHandler("/developers", http.StatusFound))
		return h
	}
	for _, path := range signInPaths {
		h.handle("GET "+path, h.page("sign-in", 0))
	}
	for _, path := range ownPaths {
		h.handle("GET "+path, h.page("account", 0))
	}
	for _, path := range consolePaths {
		h.handle("GET "+path, h.page("console", 0))
	}
	return h
}

func (h *Handler) handle(pattern string, handler http.Handler) {
	h.mux.Handle(pattern, handler)
	h.patterns = append(h.patterns, pattern)
}

// Patterns returns the patterns of [http.ServeMux] that the handler serves.
func (h *Handler) Patterns() []string { return h.patterns }

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// NotFound serves the page for an address without a page, to browsers alone: it reports
// whether it did.
func (h *Handler) NotFound(w http.ResponseWriter, r *http.Request) bool {
	if h.config.Off || r.Method != http.MethodGet && r.Method != http.MethodHead || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return false
	}
	h.page("sign-in", http.StatusNotFound).ServeHTTP(w, r)
	return true
}

// policy lets a page load what this site serves, and nothing else. No script can write
// HTML into the page: 'none' refuses every Trusted Types policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// page serves the document of a bundle; status is that of an error, or 0.
func (h *Handler) page(name string, status int) http.Handler {
	files := h.bundle.pages[name]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		settings, _ := json.Marshal(h.settings(r, status)) // strings and booleans can be encoded
		var body bytes.Buffer
		err := pageTemplate.Execute(&body, map[string]any{
			"App": h.config.AppName, "Settings": string(settings), "Locale": h.config.Brand.locale(), "Root": assetsRoot,
			"Script": files.Script, "Style": files.Style, "Imports": files.Imports, "Texts": h.bundle.texts[h.config.Brand.localeOf(r)], "BrandStyle": h.config.Brand.path("brand.css"), "Icon": h.icon(),
		})
		if err != nil {
			http.Error(w, "The page could not be rendered.", http.StatusInternalServerError)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Security-Policy", policy)
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")
		if status != 0 {
			w.WriteHeader(status)
		}
		_, _ = w.Write(body.Bytes())
	})
}

// settings is what a page's script receives; web/pages/src/app/config.ts has its type.
type settings struct {
	App          string            `json:"app"`
	Locales      []string          `json:"locales"`
	Locale       string            `json:"locale"`
	Origins      []string          `json:"origins"`
	Home         string            `json:"home"`
	Logo         string            `json:"logo,omitempty"`
	Texts        map[string]string `json:"texts,omitempty"`
	Links        []Link            `json:"links,omitempty"`
	Registration string            `json:"registration,omitempty"`
	Passkeys     bool              `json:"passkeys"`
	EmailSignIn  bool              `json:"emailSignIn,omitempty"`
	Scopes       []string          `json:"scopes"`
	FirstRun     *FirstRun         `json:"firstRun,omitempty"`
	LinksOnly    bool              `json:"linksOnly,omitempty"`
	Status       int               `json:"status,omitempty"`
}

func (h *Handler) settings(r *http.Request, status int) settings {
	brand := h.config.Brand
	s := settings{
		App: h.config.AppName, Locales: brand.locales(), Locale: brand.locale(), Origins: h.config.Origins, Home: home, Logo: brand.path("logo.svg"),
		Texts: brand.textPaths(), Links: brand.Links, Registration: h.config.Registration, Passkeys: h.config.Passkeys, EmailSignIn: h.config.EmailSignIn, Scopes: h.config.Scopes, LinksOnly: h.config.Off, Status: status,
	}
	if h.config.Off {
		s.Home = "/" // the account's page is off
	}
	if s.Origins == nil {
		s.Origins = []string{}
	}
	if s.Scopes == nil {
		s.Scopes = []string{}
	}
	if isLocal(r) {
		s.FirstRun = h.config.FirstRun
	}
	return s
}

func (h *Handler) icon() string { return iconPath + "?v=" + h.icons.version }

// isLocal reports whether a request comes from this machine: not through a proxy, and not
// by a name that another site may point here (DNS rebinding).
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !address.Addr().Unmap().IsLoopback() {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	parsed, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && parsed.IsLoopback()
}
