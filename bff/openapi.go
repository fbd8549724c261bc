package bff

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"gatehouse/internal/rpc"
	"gatehouse/web"
)

// builtForURL stands in the OpenAPI document for the gateway's public URL.
const builtForURL = "http://localhost:8001"

// openAPI serves the OpenAPI document, which says that the gateway is at its
// public URL.
func openAPI(publicURL string) http.Handler {
	return published(func() []byte { return openAPIDocument(publicURL) })
}

// publication is what published serves.
type publication struct {
	plain, packed []byte
	tag           string
}

// published serves what tools read, on any page: it holds nothing that isn't
// public. It is made when somebody first asks for it, so that a start doesn't
// wait for the packing.
func published(build func() []byte) http.Handler {
	made := sync.OnceValue(func() publication {
		plain := build()
		var packed bytes.Buffer
		writer, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // a level that there is
		_, _ = writer.Write(plain)                                      // into memory
		_ = writer.Close()
		sum := sha256.Sum256(plain)
		return publication{plain, packed.Bytes(), base64.RawURLEncoding.EncodeToString(sum[:15])}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "public, no-cache")
		header.Add("Vary", "Accept-Encoding")
		if header.Get("Access-Control-Allow-Origin") == "" {
			header.Set("Access-Control-Allow-Origin", "*")
		}
		content, name := made().plain, made().tag
		if rpc.AcceptsGzip(r.Header.Values("Accept-Encoding")) {
			content, name = made().packed, made().tag+"-gzip"
			header.Set("Content-Encoding", "gzip")
		}
		header.Set("ETag", `"`+name+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}

// openAPIDocument is the document without the white space that it has for
// people.
func openAPIDocument(publicURL string) []byte { return at(publicURL, web.OpenAPI) }

// postmanCollection is the collection for Postman, likewise.
func postmanCollection(publicURL string) []byte { return at(publicURL, web.Postman) }

// at is a document in which the gateway is at its public URL.
func at(publicURL string, built []byte) []byte {
	quoted, _ := json.Marshal(strings.TrimSuffix(publicURL, "/")) // a string can be written
	var document bytes.Buffer
	if err := json.Compact(&document, bytes.ReplaceAll(built, []byte(`"`+builtForURL+`"`), quoted)); err != nil {
		panic("bff: a document that is built in: " + err.Error())
	}
	return document.Bytes()
}
