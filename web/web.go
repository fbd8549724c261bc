// Package web holds what browsers are shown, embedded in the binary.
package web

import (
	"embed"
	"html/template"
)

//go:embed *.html
var files embed.FS

// Pages are the pages' templates: index.html and docs.html.
var Pages = template.Must(template.ParseFS(files, "*.html"))
