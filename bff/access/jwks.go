package access

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
)

// ServeJWKS publishes the signing keys as a JWK set (RFC 7517, RFC 8037).
func (v *Verifier) ServeJWKS(w http.ResponseWriter, _ *http.Request) {
	keys := v.keys.Load()
	if keys == nil {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "The signing keys have not arrived yet. Try again in a moment.", http.StatusServiceUnavailable)
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
