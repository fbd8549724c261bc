package rpc

import (
	"net/http"
	"strconv"
	"strings"
)

// connect compares content codings byte by byte and chooses the first that it knows,
// ignoring weights. These functions rewrite the headers to a form that connect
// interprets as RFC 9110 requires.

const (
	CodingGzip     = "gzip"
	codingIdentity = "identity"
)

// contentCoding returns the content coding in the values of the header, or "" for none.
// Codings are case-insensitive, "x-gzip" is gzip, and "identity" is none (RFC 9110,
// section 8.4.1). If there are several, it returns the list, which is not a known coding.
func ContentCoding(values []string) string {
	if len(values) == 0 {
		return ""
	}
	var codings []string
	for coding := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding = strings.ToLower(strings.TrimSpace(coding))
		switch coding {
		case "", codingIdentity:
			continue
		case "x-gzip":
			coding = CodingGzip
		}
		codings = append(codings, coding)
	}
	return strings.Join(codings, ", ")
}

// AcceptsGzip reports whether a client prefers a response that is compressed with gzip,
// from the values of Accept-Encoding (RFC 9110, section 12.5.3). Without the header it
// does not.
func AcceptsGzip(accepted []string) bool {
	const unsaid = -1
	gzip, identity, other := float64(unsaid), float64(unsaid), float64(unsaid)
	for element := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
		coding, parameters, _ := strings.Cut(element, ";")
		weight := weightOf(parameters)
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case CodingGzip, "x-gzip":
			gzip = max(gzip, weight)
		case codingIdentity:
			identity = weight
		case "*":
			other = weight
		}
	}
	if gzip == unsaid {
		gzip = other
	}
	if identity == unsaid {
		identity = other
	}
	return gzip > 0 && gzip >= identity
}

// weightOf parses the weight in the parameters of an element, such as "q=0.5" (RFC 9110,
// section 12.4.2). The weight is 0 if it is malformed.
func weightOf(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		weight, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(weight >= 0 && weight <= 1) { // NaN too
			return 0
		}
		return weight
	}
	return 1
}

// canonicalize rewrites the headers of a request for a method to the form that connect
// reads. HEAD is answered as GET: net/http drops the body.
func canonicalize(r *http.Request) *http.Request {
	if r.Method == http.MethodHead {
		get := *r
		get.Method = http.MethodGet
		r = &get
	}
	header := r.Header
	if r.Method == http.MethodPost {
		setHeader(header, "Content-Type", contentType(r)) // its parameters are checked
	}
	for _, name := range []string{"Content-Encoding", "Connect-Content-Encoding", "Grpc-Encoding"} {
		if header.Get(name) == "" {
			continue
		}
		if coding := ContentCoding(header.Values(name)); coding != "" {
			header.Set(name, coding)
		} else {
			header.Del(name)
		}
	}
	accepted := header.Values("Accept-Encoding")
	if len(accepted) == 0 {
		return r
	}
	if AcceptsGzip(accepted) {
		setHeader(header, "Accept-Encoding", CodingGzip)
		return r
	}
	setHeader(header, "Accept-Encoding", codingIdentity)
	if isConnect(r) && header.Get("Content-Encoding") == CodingGzip {
		// connect would use the coding of the request, which the client does not accept.
		header.Del("Content-Encoding")
		r.Body, r.ContentLength = &gzipBody{from: r.Body}, -1
	}
	return r
}

// setHeader is header.Set, which allocates, except if the header already has the value.
func setHeader(header http.Header, key, value string) {
	if values := header[key]; len(values) != 1 || values[0] != value {
		header.Set(key, value)
	}
}
