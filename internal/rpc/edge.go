package rpc

import (
	"log/slog"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/unary"
)

// connect refuses some malformed requests before the interceptors run: with its own
// message and no reason, or only with a status, and without a log line. This file refuses
// them first, with public errors.

// Refusal is an error with its HTTP status in the Connect protocol.
type Refusal struct {
	err    *connect.Error
	status int
	allow  string // the allowed HTTP methods, if the request's is not allowed
}

var (
	errContentType = fault.New(connect.CodeInvalidArgument, "CONTENT_TYPE_UNSUPPORTED",
		"Say what you send: add the header Content-Type: application/json.")
	errCharset = fault.New(connect.CodeInvalidArgument, "CONTENT_TYPE_UNSUPPORTED",
		"Send UTF-8: leave the charset out of the Content-Type.")
	errHTTPMethod = fault.New(connect.CodeUnimplemented, "HTTP_METHOD_UNSUPPORTED",
		"Call this with POST.")
	errHTTPMethodRead = fault.New(connect.CodeUnimplemented, "HTTP_METHOD_UNSUPPORTED",
		"Call this with POST or GET.")
	errQuery = fault.New(connect.CodeInvalidArgument, "QUERY_INVALID",
		"Call this as ?connect=v1&encoding=json&message=…, where the message is JSON, or proto with base64=1.")
	errTimeout = fault.New(connect.CodeInvalidArgument, "TIMEOUT_INVALID",
		"The time-out can't be read. Give Connect-Timeout-Ms up to ten digits, or grpc-timeout up to eight and a unit.")
	errContentTypeForm = fault.New(connect.CodeInvalidArgument, "CONTENT_TYPE_UNSUPPORTED",
		"The Content-Type can't be read. Send the header Content-Type: application/json.")
	errGetBody = fault.New(connect.CodeInvalidArgument, "BODY_UNEXPECTED",
		"A GET has its message in the query and no body. Leave the body out, or call this with POST.")
	errCompression = fault.New(connect.CodeUnimplemented, "COMPRESSION_UNSUPPORTED",
		"Compress with gzip, or not at all.")
	errProtocolVersion = fault.New(connect.CodeInvalidArgument, "PROTOCOL_VERSION_UNSUPPORTED",
		"Speak version 1 of the protocol: Connect-Protocol-Version: 1.")
	errHeaders = fault.New(connect.CodeResourceExhausted, fault.ReasonTooLarge,
		"The request has too many headers: send at most 200.")
	errUnknownMethod = fault.New(connect.CodeUnimplemented, fault.ReasonUnknownMethod, "There is no such method.")
)

var errorWriter = connecthttp.NewErrorWriter()

var (
	connectTimeout = regexp.MustCompile(`^[0-9]{1,10}$`)
	procedureForm  = regexp.MustCompile(`^/[A-Za-z_]\w*(\.[A-Za-z_]\w*)+/[A-Za-z_]\w*$`)
	grpcTimeout    = regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)
)

// checkRequests refuses the requests that connect would refuse.
func (s *Server) checkRequests(p *policy.Method, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if no := checkRequest(p, r); no != nil {
			s.refuse(w, r, no)
			return
		}
		next.ServeHTTP(w, canonicalize(r))
	})
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no *Refusal) {
	id := requestID(r.Header.Get(RequestIDHeader))
	w.Header().Set(RequestIDHeader, id)
	if no.allow != "" {
		w.Header().Set("Allow", no.allow)
	}
	if no.err == errCompression {
		w.Header().Set("Accept-Encoding", CodingGzip)
	}
	if no.status == http.StatusUnsupportedMediaType {
		w.Header().Set("Accept-Post", "application/json, application/proto")
		r = inJSON(r) // it uses none of our protocols, whatever its Content-Type resembles
	}
	inGRPC := isRPC(r) && !isConnect(r)
	status := no.status
	if inGRPC {
		status = http.StatusOK
	}
	s.logger.LogAttrs(r.Context(), s.level, "call",
		slog.String("method", r.URL.Path[:min(len(r.URL.Path), 200)]), slog.String("code", no.err.Code().String()),
		slog.Int("status", status), slog.String("client_ip", s.clientIP(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))),
		slog.String("request_id", id), slog.String("reason", fault.Reason(no.err)))
	if inGRPC {
		_ = errorWriter.Write(w, r, no.err)
	} else {
		_ = errorWriter.Write(statusWriter{ResponseWriter: w, status: no.status}, r, no.err)
	}
}

// checkRequest returns an error if the HTTP request for a method is malformed, else nil.
func checkRequest(p *policy.Method, r *http.Request) *Refusal {
	switch {
	case tooManyHeaders(r.Header):
		return &Refusal{err: errHeaders, status: http.StatusRequestHeaderFieldsTooLarge}
	case r.Method == http.MethodPost:
		return checkPost(p, r)
	case !p.ReadsOnly():
		return &Refusal{err: errHTTPMethod, status: http.StatusMethodNotAllowed, allow: "POST"}
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return &Refusal{err: errHTTPMethodRead, status: http.StatusMethodNotAllowed, allow: "GET, HEAD, POST"}
	}
	return checkGet(r)
}

// maxHeaders is more than a browser and its proxies send together. The HTTP server limits
// the size of headers, but ten thousand short ones are within that limit.
const maxHeaders = 200

func tooManyHeaders(header http.Header) bool {
	if len(header) > maxHeaders {
		return true
	}
	lines := 0
	for _, values := range header {
		lines += len(values)
	}
	return lines > maxHeaders
}

func checkPost(p *policy.Method, r *http.Request) *Refusal {
	if !speaks(p, contentType(r)) {
		return &Refusal{err: errContentType, status: http.StatusUnsupportedMediaType}
	}
	if no := checkCharset(r); no != nil {
		return no
	}
	timeout, timeoutForm, encoding := r.Header.Get("Grpc-Timeout"), grpcTimeout, r.Header.Values("Grpc-Encoding")
	if isConnect(r) {
		if version := r.Header.Get("Connect-Protocol-Version"); version != "" && version != "1" {
			return &Refusal{err: errProtocolVersion, status: http.StatusBadRequest}
		}
		timeout, timeoutForm, encoding = r.Header.Get("Connect-Timeout-Ms"), connectTimeout, r.Header.Values("Content-Encoding")
		if strings.HasPrefix(contentType(r), "application/connect+") {
			encoding = r.Header.Values("Connect-Content-Encoding")
		}
	}
	if timeout != "" && !timeoutForm.MatchString(timeout) {
		return &Refusal{err: errTimeout, status: http.StatusBadRequest}
	}
	if !isCompression(ContentCoding(encoding)) {
		return &Refusal{err: errCompression, status: http.StatusNotImplemented}
	}
	return nil
}

// checkCharset checks the parameters of a Content-Type whose media type is known.
func checkCharset(r *http.Request) *Refusal {
	if !strings.Contains(r.Header.Get("Content-Type"), ";") {
		return nil
	}
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return &Refusal{err: errContentTypeForm, status: http.StatusUnsupportedMediaType}
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8": // both are labels of UTF-8 (Encoding Standard)
		return nil
	}
	return &Refusal{err: errCharset, status: http.StatusUnsupportedMediaType}
}

func checkGet(r *http.Request) *Refusal {
	query := unary.QueryOf(r.URL.RawQuery)
	encoding, base64, version := query.Encoding, query.Base64, query.Connect
	switch {
	case !query.HasMessage, encoding != "json" && encoding != "proto", base64 != "" && base64 != "0" && base64 != "1", version != "" && version != "v1":
		return &Refusal{err: errQuery, status: http.StatusBadRequest}
	case !isCompression(query.Compression):
		return &Refusal{err: errCompression, status: http.StatusNotImplemented}
	}
	if timeout := r.Header.Get("Connect-Timeout-Ms"); timeout != "" && !connectTimeout.MatchString(timeout) {
		return &Refusal{err: errTimeout, status: http.StatusBadRequest}
	}
	if hasBody(r) {
		return &Refusal{err: errGetBody, status: http.StatusBadRequest}
	}
	return nil
}

// hasBody reports whether a request has a body. If the length is unknown, it reads a byte.
func hasBody(r *http.Request) bool {
	if r.ContentLength >= 0 || r.Body == nil {
		return r.ContentLength > 0
	}
	n, _ := r.Body.Read(make([]byte, 1))
	return n > 0
}

func isCompression(name string) bool {
	return name == "" || name == codingIdentity || name == CodingGzip
}

func contentType(r *http.Request) string {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// speaks reports whether the Content-Type is one that a method accepts.
func speaks(p *policy.Method, kind string) bool {
	for _, protocol := range []string{"application/grpc", "application/grpc-web"} {
		if codec, ok := strings.CutPrefix(kind, protocol); ok && (codec == "" || codec == "+proto" || codec == "+json") {
			return true
		}
	}
	if p.Streams() {
		return kind == "application/connect+proto" || kind == "application/connect+json"
	}
	return kind == "application/proto" || kind == "application/json"
}

// isConnect reports whether the request uses the Connect protocol.
func isConnect(r *http.Request) bool {
	kind := contentType(r)
	return kind == "application/json" || kind == "application/proto" || strings.HasPrefix(kind, "application/connect+")
}

// isRPC reports whether the request's body uses one of our protocols.
func isRPC(r *http.Request) bool {
	return isConnect(r) || strings.HasPrefix(contentType(r), "application/grpc")
}

// statusWriter overrides the status of a response.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w statusWriter) WriteHeader(int) { w.ResponseWriter.WriteHeader(w.status) }

// CheckJSONBody returns an error if the headers of a request do not describe a JSON body,
// else nil.
func CheckJSONBody(r *http.Request) *Refusal {
	if r.ContentLength != 0 {
		if contentType(r) != "application/json" {
			return &Refusal{err: errContentType, status: http.StatusUnsupportedMediaType}
		}
		if no := checkCharset(r); no != nil {
			return no
		}
	}
	if !isCompression(ContentCoding(r.Header.Values("Content-Encoding"))) {
		return &Refusal{err: errCompression, status: http.StatusNotImplemented}
	}
	return nil
}

// inJSON returns the request with a Content-Type for which errors are sent as JSON.
func inJSON(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Set("Content-Type", "application/json")
	return r
}
