// Package web holds what browsers are shown, embedded in the binary.
package web

import "embed"

// Files are the scripts, styles and pictures of our own.
//
//go:embed *.js *.css *.svg
var Files embed.FS

// Vendored is what others made, below "assets", with their licences; what ends
// in .gz is packed. vendor.sh brings it there.
//
//go:embed assets
var Vendored embed.FS

// OpenAPI is the OpenAPI document of the public API, made by tools/openapi.
//
//go:embed openapi.json
var OpenAPI []byte

// Postman is the same as a collection for Postman, made by tools/postman.
//
//go:embed postman.json
var Postman []byte

// Pages are the pages' templates: index.html, docs.html, redoc.html and link.html.
//
//go:embed *.html
var Pages embed.FS
