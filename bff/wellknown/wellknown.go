// Package wellknown serves the small documents that browsers, crawlers and middleware
// look for at fixed paths.
package wellknown

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Config describes the installation.
type Config struct {
	// PublicURL is the issuer of access tokens.
	PublicURL string
	// Pages says that the page for changing a password is served.
	Pages bool
	// SecurityContact is where to report vulnerabilities: a mailto: or https: URL; empty
	// for no document.
	SecurityContact string
	Now             func() time.Time
}

// securityLife is how long a copy of security.txt is valid (RFC 9116 asks for less than
// a year).
const securityLife = 180 * 24 * time.Hour

// Handlers returns the documents by their patterns of [http.ServeMux].
func Handlers(config Config) map[string]http.Handler {
	url := strings.TrimSuffix(config.PublicURL, "/")
	metadata, err := json.Marshal(map[string]any{
		"issuer": url, "jwks_uri": url + "/.well-known/jwks.json", "response_types_supported": []string{},
	})
	if err != nil {
		panic(err) // strings are valid JSON
	}
	handlers := map[string]http.Handler{
		// RFC 9309. Pages with a link of a mail, and the API, are not for crawlers.
		"GET /robots.txt": text("text/plain; charset=utf-8", "User-agent: *\nDisallow: /api/\nDisallow: /link/\n"),
		// RFC 8414, for middleware that verifies tokens. Nobody gets a token by OAuth here.
		"GET /.well-known/oauth-authorization-server": text("application/json", string(metadata)),
	}
	if config.Pages {
		// A Well-Known URL for Changing Passwords (W3C).
		handlers["GET /.well-known/change-password"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, "/account/password", http.StatusFound)
		})
	}
	if config.SecurityContact != "" {
		handlers["GET /.well-known/security.txt"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			expires := config.Now().UTC().Truncate(24 * time.Hour).Add(securityLife).Format(time.RFC3339)
			text("text/plain; charset=utf-8", fmt.Sprintf("Contact: %s\nExpires: %s\nCanonical: %s/.well-known/security.txt\n",
				config.SecurityContact, expires, url)).ServeHTTP(w, r)
		})
	}
	return handlers
}

func text(kind, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write([]byte(body))
	})
}
