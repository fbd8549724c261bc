package bff

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/rpc"
	"gatehouse/web"
)

// routes puts the pages beside the API, and CORS around both.
func (s *Service) routes(config Config) http.Handler {
	mux := s.rpc.Mux(s.Ready)
	mux.HandleFunc("GET /.well-known/jwks.json", s.jwks)
	mux.Handle("GET /{$}", page("index.html", map[string]any{"URL": config.PublicURL}, pagePolicy))
	mux.Handle("GET /docs", page("docs.html", map[string]any{"URL": config.PublicURL, "Methods": methodsOf(s.rpc.Policies())}, pagePolicy))
	routeLinkPages(mux)
	return cors.New(cors.Options{
		// By a function: an empty list would admit every origin.
		AllowOriginFunc: func(origin string) bool {
			return slices.ContainsFunc(config.Origins, func(listed string) bool { return strings.EqualFold(listed, origin) })
		},
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Authorization", "Idempotency-Key", "X-Request-Id"),
		ExposedHeaders: append(connectcors.ExposedHeaders(), "Retry-After", "X-Request-Id"),
		MaxAge:         7200,
	}).Handler(mux)
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
	w.Header().Set("Cache-Control", "public, max-age=60")
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

// Method is one public method: its path, who may call it, in words, and the
// names of its request's fields.
type Method struct{ Path, Who, Fields string }

// Methods returns the public methods, by path. It returns an error when one
// has no policy.
func Methods() ([]Method, error) {
	server := connect.NewServer()
	(&Service{}).register(server)
	policies, err := rpc.PoliciesOf(server)
	if err != nil {
		return nil, err
	}
	return methodsOf(policies), nil
}

func methodsOf(policies rpc.Policies) []Method {
	var methods []Method
	for procedure, policy := range policies {
		methods = append(methods, Method{Path: procedure, Who: whoMay(policy.GetAccess()), Fields: requestFields(procedure)})
	}
	slices.SortFunc(methods, func(a, b Method) int { return strings.Compare(a.Path, b.Path) })
	return methods
}

// whoMay says in words who may call.
func whoMay(access *policyv1.Access) string {
	switch who := access.GetWho().(type) {
	case *policyv1.Access_Anyone:
		return "anyone"
	case *policyv1.Access_SignedIn:
		return "whoever is signed in"
	case *policyv1.Access_Self:
		return strings.Join(append([]string{"oneself"}, who.Self.GetOrRoles()...), " or ")
	case *policyv1.Access_Roles:
		return strings.Join(who.Roles.GetAnyOf(), " or ")
	default:
		return "nobody"
	}
}

func requestFields(procedure string) string {
	method, err := methodOf(procedure)
	if err != nil {
		return ""
	}
	var names []string
	fields := method.Input().Fields()
	for i := range fields.Len() {
		names = append(names, fields.Get(i).JSONName())
	}
	return strings.Join(names, ", ")
}
