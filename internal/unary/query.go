package unary

import (
	"net/url"
	"strings"
)

// Query is the query of a Connect GET.
type Query struct {
	Connect, Encoding, Base64, Compression string
	Message                                string // still escaped
	HasMessage                             bool
}

// QueryOf parses a query like [url.ParseQuery], without a map and without unescaping
// the message. It uses the first value of a repeated name.
func QueryOf(raw string) Query {
	var query Query
	var seen [4]bool
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if strings.Contains(pair, ";") {
			continue
		}
		name, err := url.QueryUnescape(name)
		if err != nil {
			continue
		}
		if name == "message" {
			if !query.HasMessage && isEscapedWell(value) {
				query.Message, query.HasMessage = value, true
			}
			continue
		}
		for i, field := range [...]struct {
			name string
			into *string
		}{{"connect", &query.Connect}, {"encoding", &query.Encoding}, {"base64", &query.Base64}, {"compression", &query.Compression}} {
			if field.name != name || seen[i] {
				continue
			}
			if value, err := url.QueryUnescape(value); err == nil {
				*field.into, seen[i] = value, true
			}
		}
	}
	return query
}

// isEscapedWell reports whether [url.QueryUnescape] accepts a text.
func isEscapedWell(text string) bool {
	if !strings.Contains(text, "%") {
		return true
	}
	_, err := url.QueryUnescape(text)
	return err == nil
}
