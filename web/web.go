// Package web holds what browsers are shown, embedded in the binary.
package web

import (
	"embed"
	"html/template"
)

// Files are what is served as it is: link.js and link.css.
//
//go:embed *.js *.css
var Files embed.FS

// OpenAPI is the OpenAPI document of the public API, made by tools/openapi.
//
//go:embed openapi.json
var OpenAPI []byte

//go:embed *.html
var files embed.FS

// Pages are the pages' templates: index.html, docs.html and link.html.
var Pages = template.Must(template.ParseFS(files, "*.html"))
