package web

import (
	"bytes"
	"html/template"
	"net/http"
	"strings"
)

// Config describes the site.
type Config struct {
	// PublicURL is where browsers reach the site.
	PublicURL string
	// AcceptsGzip reports whether a client accepts gzip, by the values of its
	// Accept-Encoding header.
	AcceptsGzip func(acceptEncoding []string) bool
	// Pages says that the pages for people are served too.
	Pages bool
	// OpenAPI and Postman are served instead of [OpenAPI] and [Postman]; nil for those.
	OpenAPI, Postman []byte
}

// Handler serves the site. Mount it at each of its Patterns.
type Handler struct {
	mux      http.ServeMux
	patterns []string
}

// NewHandler returns the handler of the site.
func NewHandler(config Config) *Handler {
	h := &Handler{}
	data := map[string]any{"URL": strings.TrimSuffix(config.PublicURL, "/"), "Pages": config.Pages}
	h.handle("GET /developers", page("index.html", data, pagePolicy))
	h.handle("GET /docs", page("docs.html", nil, docsPolicy))
	h.handle("GET /redoc", page("redoc.html", nil, redocPolicy))
	h.handle("GET "+assetsRoot, embeddedAssets().handler(config.AcceptsGzip))
	if config.OpenAPI == nil {
		config.OpenAPI, config.Postman = openAPI, postman
	}
	h.handle("GET /openapi.json", document(config.OpenAPI, config))
	h.handle("GET /postman.json", document(config.Postman, config))
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

// The pages' Content-Security-Policies. Each page loads its scripts and styles from
// this site, and connects to no other.
const (
	basePolicy = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
	pagePolicy = basePolicy + "style-src 'self'; img-src 'self'"
	// Swagger UI has its pictures within its style sheet.
	docsPolicy = basePolicy + "style-src 'self'; img-src 'self' data:"
	// Redoc's script makes style elements: empty ones, which it fills with rules, and
	// one for scroll bars. These are their hashes; a new Redoc may have others. Its
	// search runs in a worker that it creates from a blob.
	redocPolicy = basePolicy + "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; img-src 'self' data:; worker-src blob:"
)

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"asset": func(name string) (string, error) { return embeddedAssets().path(name) },
}).ParseFS(pages, "*.html"))

// page renders a page once: it does not change while the process runs. policy is its
// Content-Security-Policy.
func page(name string, data any, policy string) http.Handler {
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, name, data); err != nil {
		panic(err) // the embedded templates render with any data
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		_, _ = w.Write(body.Bytes())
	})
}
