// Command protect is an API that people call with their access token.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"

	"gatehouse.example/client/identity"
)

func main() {
	verifier, err := identity.NewAccess(identity.Config{Issuer: os.Getenv("GATEHOUSE_URL")})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		caller, _ := identity.FromContext(r.Context())
		_ = json.NewEncoder(w).Encode(map[string]any{"owner": caller.Subject, "all": caller.HasRole("admin")})
	})
	log.Fatal(http.ListenAndServe(os.Getenv("LISTEN"), verifier.Middleware(mux)))
}
