package bff

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"time"

	"gatehouse/internal/policy"
	"gatehouse/internal/rest"
	"gatehouse/internal/rpc"
	"gatehouse/web"
)

// mux serves the API and the pages beside it.
func (s *Service) mux(config Config) *rpc.Mux {
	mux := s.rpc.Mux(s.Ready)
	rest.Handle(mux, "/api/")
	mux.Handle("GET /.well-known/jwks.json", policy.Anyone(), http.HandlerFunc(s.jwks))
	url := map[string]any{"URL": strings.TrimSuffix(config.PublicURL, "/")}
	mux.Handle("GET /{$}", policy.Anyone(), page("index.html", url, pagePolicy))
	mux.Handle("GET /docs", policy.Anyone(), page("docs.html", nil, docsPolicy))
	mux.Handle("GET /redoc", policy.Anyone(), page("redoc.html", nil, redocPolicy))
	mux.Handle("GET "+assetsRoot, policy.Anyone(), webAssets())
	mux.Handle("GET /openapi.json", policy.Anyone(), openAPI(config.PublicURL))
	mux.Handle("GET /postman.json", policy.Anyone(), published(func() []byte { return postmanCollection(config.PublicURL) }))
	mux.Handle("GET /status.json", policy.Anyone(), s.parts(config.Parts))
	routeLinkPages(mux)
	return mux
}

// parts are this gateway and what it stands on.
func (s *Service) parts(list []Part) http.Handler {
	own := Part{Name: "gateway", Check: func(context.Context) error { return s.Ready() }}
	return &parts{list: append([]Part{own}, list...), now: time.Now}
}

// jwks publishes the signing keys as a JWK set (RFC 7517, RFC 8037).
func (s *Service) jwks(w http.ResponseWriter, _ *http.Request) {
	keys := s.verifier.keys.Load()
	if keys == nil {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "The keys have not come yet. Try again in a moment.", http.StatusServiceUnavailable)
		return
	}
	type jwk struct {
		KeyType   string `json:"kty"`
		Curve     string `json:"crv"`
		Algorithm string `json:"alg"`
		Use       string `json:"use"`
		KeyID     string `json:"kid"`
		X         string `json:"x"`
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, key := range keys.published {
		set.Keys = append(set.Keys, jwk{
			KeyType: "OKP", Curve: "Ed25519", Algorithm: "EdDSA", Use: "sig",
			KeyID: key.GetKid(), X: base64.RawURLEncoding.EncodeToString(key.GetPublicKey()),
		})
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=10")
	_ = json.NewEncoder(w).Encode(set)
}

// The pages' Content-Security-Policies. Each page has its scripts and styles
// from this gateway, and asks nobody else for anything.
const (
	ownParts   = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
	pagePolicy = ownParts + "style-src 'self'; img-src 'self'"
	// Swagger UI has its pictures within its style sheet.
	docsPolicy = ownParts + "style-src 'self'; img-src 'self' data:"
	// Redoc's script makes style elements: empty ones, which it puts rules in, and
	// one for scroll bars. These are their hashes; a new Redoc may have others. Its
	// search works in a script that it makes.
	redocPolicy = ownParts + "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; img-src 'self' data:; worker-src blob:"
)

var pageTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"asset": func(name string) (string, error) { return webAssets().path(name) },
}).ParseFS(web.Pages, "*.html"))

// page renders a page once: nothing on it changes while the gateway runs. policy
// is its Content-Security-Policy.
func page(name string, data any, policy string) http.Handler {
	var body bytes.Buffer
	if err := pageTemplates.ExecuteTemplate(&body, name, data); err != nil {
		panic(err) // whatever the data
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
