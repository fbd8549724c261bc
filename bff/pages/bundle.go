package pages

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"gatehouse/web"
)

// assetsRoot is the path below which the scripts and styles are served. Their names hold
// a hash of their content, so a browser may keep them for ever.
const assetsRoot = "/assets/pages/"

// bundle is what web/pages/build.mjs built.
type bundle struct {
	pages map[string]pageFiles
	texts map[string]string // their files, by language
	// keys are those of the texts; a brand may replace their texts.
	keys  map[string]bool
	files map[string][]byte // compressed with gzip, by name
	icon  string
	// current has the name of a file by what stands before its hash.
	current map[string]string
}

type pageFiles struct {
	Script  string   `json:"script"`
	Style   string   `json:"style"`
	Imports []string `json:"imports"`
}

// embedded reads the bundle once.
var embedded = sync.OnceValue(func() *bundle {
	found, err := readBundle()
	if err != nil {
		panic("pages: the embedded bundle is damaged: " + err.Error())
	}
	return found
})

func readBundle() (*bundle, error) {
	files := web.Pages()
	text, err := files.ReadFile("pages/dist/manifest.json")
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Pages map[string]pageFiles `json:"pages"`
		Texts map[string]string    `json:"texts"`
		Parts []string             `json:"parts"`
		Icon  string               `json:"icon"`
		Keys  []string             `json:"keys"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return nil, err
	}
	b := &bundle{pages: manifest.Pages, texts: manifest.Texts, icon: manifest.Icon, keys: map[string]bool{}, files: map[string][]byte{}, current: map[string]string{}}
	for _, key := range manifest.Keys {
		b.keys[key] = true
	}
	entries, err := files.ReadDir("pages/dist")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name, packed := strings.CutSuffix(entry.Name(), ".gz")
		if !packed {
			continue
		}
		if b.files[name], err = files.ReadFile("pages/dist/" + entry.Name()); err != nil {
			return nil, err
		}
		if stem(name) != "chunk.js" && !slices.Contains(manifest.Parts, name) { // what pages share is of one version
			b.current[stem(name)] = name
		}
	}
	return b, nil
}

// stem returns a file's name without its hash: "account.js" for "account-466C27JW.js".
func stem(name string) string {
	if at := strings.LastIndexByte(name, '-'); at > 0 {
		return name[:at] + path.Ext(name)
	}
	return name
}

// serveAsset serves a file of the bundle. A page of another copy of the gateway, of the
// version before or after this one, gets this version's file, which must not be cached.
func (h *Handler) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, assetsRoot)
	caching := "public, max-age=31536000, immutable"
	packed, ok := h.bundle.files[name]
	if !ok {
		packed, ok = h.bundle.files[h.bundle.current[stem(name)]]
		caching = "no-store"
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	header := w.Header()
	header.Set("Cache-Control", caching)
	header.Set("Content-Type", mediaType(name))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Vary", "Accept-Encoding")
	if !h.config.AcceptsGzip(r.Header.Values("Accept-Encoding")) {
		if plain, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
			_, _ = io.Copy(w, plain)
		}
		return
	}
	header.Set("Content-Encoding", "gzip")
	header.Set("Content-Length", strconv.Itoa(len(packed)))
	_, _ = w.Write(packed)
}

// mediaType does not ask the operating system, whose answers differ.
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json":
		return "application/json"
	default:
		return "application/octet-stream"
	}
}
