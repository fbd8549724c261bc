package bff

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"

	"gatehouse/internal/rpc"
	"gatehouse/web"
)

// mux serves the API and the pages beside it.
func (s *Service) mux(config Config) *rpc.Mux {
	mux := s.rpc.Mux(s.Ready)
	mux.HandleREST("/api/")
	mux.Handle("GET /.well-known/jwks.json", rpc.Anyone(), http.HandlerFunc(s.jwks))
	mux.Handle("GET /{$}", rpc.Anyone(), page("index.html", map[string]any{"URL": config.PublicURL}, pagePolicy))
	mux.Handle("GET /docs", rpc.Anyone(), page("docs.html", map[string]any{"URL": config.PublicURL, "Methods": methodsOf(s.rpc.Plans())}, pagePolicy))
	routeLinkPages(mux)
	return mux
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

const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// page renders a page once: nothing on it changes while the gateway runs. policy
// is its Content-Security-Policy.
func page(name string, data any, policy string) http.Handler {
	var body bytes.Buffer
	template.Must(web.Pages.Lookup(name), web.Pages.ExecuteTemplate(&body, name, data))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(body.Bytes())
	})
}
