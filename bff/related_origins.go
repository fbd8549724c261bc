package bff

import "net/http"

// relatedOriginsPath is where browsers look for the related origins, on the host of
// the RP ID.
const relatedOriginsPath = "/.well-known/webauthn"

// relatedOrigins serves the document; nothing if there is none.
type relatedOrigins []byte

func (document relatedOrigins) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if document == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(document)
}
