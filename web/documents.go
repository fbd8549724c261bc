package web

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
)

// placeholderURL stands in the embedded documents for the public URL.
const placeholderURL = "http://localhost:8001"

// document serves an embedded JSON document that tools read, on pages of any origin:
// it holds nothing that is not public. It is compressed on the first request, so that
// the start does not wait for it.
func document(embedded []byte, config Config) http.Handler {
	type encoded struct {
		plain, packed []byte
		etag          string
	}
	encode := sync.OnceValue(func() encoded {
		plain := withPublicURL(embedded, config.PublicURL)
		var packed bytes.Buffer
		writer, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level exists
		_, _ = writer.Write(plain)                                      // into memory
		_ = writer.Close()
		sum := sha256.Sum256(plain)
		return encoded{plain, packed.Bytes(), base64.RawURLEncoding.EncodeToString(sum[:15])}
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
		content, etag := encode().plain, encode().etag
		if config.AcceptsGzip(r.Header.Values("Accept-Encoding")) {
			content, etag = encode().packed, etag+"-gzip"
			header.Set("Content-Encoding", "gzip")
		}
		header.Set("ETag", `"`+etag+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}

// withPublicURL returns a document with the public URL in place of the placeholder,
// and without insignificant white space.
func withPublicURL(embedded []byte, publicURL string) []byte {
	quoted, _ := json.Marshal(strings.TrimSuffix(publicURL, "/")) // a string can be encoded
	var document bytes.Buffer
	if err := json.Compact(&document, bytes.ReplaceAll(embedded, []byte(`"`+placeholderURL+`"`), quoted)); err != nil {
		panic("web: an embedded document is no JSON: " + err.Error())
	}
	return document.Bytes()
}
