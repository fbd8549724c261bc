package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// assets are what pages load: scripts, styles, pictures and licences. A browser may
// cache them for ever, since their path changes whenever any of them does.
type assets struct {
	version string
	byName  map[string]asset
}

type asset struct {
	kind   string // its media type
	text   []byte
	packed bool // text is compressed with gzip
}

const assetsRoot = "/assets/"

// embeddedAssets reads the assets once, when the first page is rendered.
var embeddedAssets = sync.OnceValue(func() *assets {
	a := &assets{byName: map[string]asset{}}
	sum := sha256.New()
	for _, from := range []struct {
		files embed.FS
		root  string
	}{{files, "."}, {vendored, "assets"}} {
		err := fs.WalkDir(from.files, from.root, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := from.files.ReadFile(file)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%s %d\n%s", file, len(text), text)
			name, packed := strings.CutSuffix(strings.TrimPrefix(file, "assets/"), ".gz")
			a.byName[name] = asset{kind: mediaType(name), text: text, packed: packed}
			return nil
		})
		if err != nil {
			panic(err) // what is embedded can be read
		}
	}
	a.version = hex.EncodeToString(sum.Sum(nil)[:8])
	return a
})

// mediaType does not ask the operating system, whose answers differ.
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "text/plain; charset=utf-8"
	}
}

// path returns where an asset is served.
func (a *assets) path(name string) (string, error) {
	if _, ok := a.byName[name]; !ok {
		return "", fmt.Errorf("no asset is called %q", name)
	}
	return assetsRoot + a.version + "/" + name, nil
}

// handler serves the assets. An asset that is requested by another version's path, by
// a page of another copy of the gateway, is served but must not be cached.
func (a *assets) handler(acceptsGzip func([]string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, acceptsGzip) })
}

func (a *assets) serve(w http.ResponseWriter, r *http.Request, acceptsGzip func([]string) bool) {
	version, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, assetsRoot), "/")
	found, ok := a.byName[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if version == a.version {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	header.Set("Content-Type", found.kind)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if found.packed {
		header.Set("Vary", "Accept-Encoding")
		if !acceptsGzip(r.Header.Values("Accept-Encoding")) {
			if unpacked, err := gzip.NewReader(bytes.NewReader(found.text)); err == nil {
				_, _ = io.Copy(w, unpacked)
			}
			return
		}
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("Content-Length", strconv.Itoa(len(found.text)))
	_, _ = w.Write(found.text)
}
