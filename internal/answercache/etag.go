package answercache

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The answer to a GET request has a strong ETag (RFC 9110, section 8.8.3): a hash of
// the message, its schema and its encoding. A caller that has the answer already
// receives a 304 instead of a second copy. HTTP caches may store an answer but must
// revalidate it each time; otherwise they would show what was written more than a
// second ago, and show it to the next person who signs in. Only an answer that
// nothing can invalidate may be reused without asking, while it is fresh.

// isGet reports whether a call is a Connect GET.
func isGet(ctx context.Context) bool {
	info, _ := connect.CallInfoForServerContext(ctx)
	if info == nil {
		return false
	}
	server, ok := info.TransportInfo.(interface{ HTTPMethod() string })
	return ok && server.HTTPMethod() == http.MethodGet
}

func isNoStore(header *connect.Header) bool {
	return strings.Contains(header.Get("Cache-Control"), "no-store")
}

// ETags gives a method's answers to GET requests their ETags without caching them.
func ETags(method protoreflect.MethodDescriptor) connect.ServerInterceptor {
	schema := schemaHash(method.Output())
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if !isGet(ctx) {
				return next(ctx, spec, stream)
			}
			tagged := &etagStream{ServerStream: stream, ctx: ctx, schema: schema}
			if err := next(ctx, spec, tagged); err != nil || !tagged.notModified {
				return err
			}
			return errNotModified
		}
	}
}

type etagStream struct {
	connect.ServerStream
	ctx         context.Context //nolint:containedctx // a stream belongs to one call
	schema      string
	notModified bool // the caller has the answer
}

func (s *etagStream) Send(sent any) error {
	message, ok := sent.(proto.Message)
	info, _ := connect.CallInfoForServerContext(s.ctx)
	if !ok || isNoStore(info.ResponseHeader()) {
		return s.ServerStream.Send(sent)
	}
	hash, _, err := digest(s.schema, message)
	if err != nil {
		return err
	}
	if s.notModified = setETag(info, etagOf(hash, info.Codec, acceptsGzip(info)), privateControl); s.notModified {
		return nil
	}
	return s.ServerStream.Send(message)
}

// send sends an answer, or a 304 to a caller that has it.
func (a answer) send(ctx context.Context, m *cachedMethod, stream connect.ServerStream, now time.Time) error {
	info, _ := connect.CallInfoForServerContext(ctx)
	if a.header != nil {
		for name, values := range a.header.All() {
			for _, value := range values {
				info.ResponseHeader().Add(name, value)
			}
		}
	}
	if a.noStore {
		info.ResponseHeader().Set("Cache-Control", "no-store")
	}
	control := m.cacheControl(a.freshUntil, now)
	if info.ResponseHeader().Get("Set-Cookie") != "" {
		control = privateControl // a shared cache would give the cookie to everybody
	}
	if isGet(ctx) && !a.noStore && setETag(info, a.etags.of(info), control) {
		return errNotModified
	}
	if info.Protocol == "" {
		return stream.Send(proto.Clone(a.message)) // in process, the receiver owns the message
	}
	switch info.Codec {
	case connect.CodecNameProto:
		return stream.Send(a.encoded)
	case connect.CodecNameJSON:
		return stream.Send(a.json)
	}
	return stream.Send(a.message)
}

var (
	// privateControl allows only the caller's own HTTP cache to store an answer.
	privateControl = []string{"private, no-cache"}
	publicControl  = []string{"public, no-cache"}
	errNotModified = connecthttp.NewNotModifiedError()
)

func (m *cachedMethod) cacheControl(freshUntil, now time.Time) []string {
	switch {
	case !m.Shared:
		return privateControl
	case len(m.Tags) > 0:
		return publicControl
	default:
		return []string{fmt.Sprintf("public, max-age=%d", max(0, freshUntil.Sub(now)/time.Second))}
	}
}

// etagOf returns an answer's ETag as the values of a header. The bytes of an answer may
// differ if the client accepts gzip.
func etagOf(digest, codec string, gzip bool) []string {
	end := `"`
	if gzip {
		end = `-gzip"`
	}
	return []string{`"` + digest + "-" + codec + end}
}

func acceptsGzip(info *connect.CallInfo) bool {
	return strings.Contains(info.RequestHeader().Get("Accept-Encoding"), "gzip")
}

// etags are the ETags of an answer, which every response shares.
type etags struct{ proto, protoGzip, json, jsonGzip []string }

func newETags(digest string) *etags {
	return &etags{
		proto: etagOf(digest, connect.CodecNameProto, false), protoGzip: etagOf(digest, connect.CodecNameProto, true),
		json: etagOf(digest, connect.CodecNameJSON, false), jsonGzip: etagOf(digest, connect.CodecNameJSON, true),
	}
}

// of returns the ETag for the encoding of a call's response.
func (e *etags) of(info *connect.CallInfo) []string {
	json, gzip := info.Codec == connect.CodecNameJSON, acceptsGzip(info)
	switch {
	case json && gzip:
		return e.jsonGzip
	case json:
		return e.json
	case gzip:
		return e.protoGzip
	}
	return e.proto
}

// setETag sets an answer's ETag and the headers that belong to it, and reports
// whether the caller has the answer already.
func setETag(info *connect.CallInfo, tag, control []string) (notModified bool) {
	header := info.ResponseHeader()
	header.SetValues("Etag", tag)
	header.SetValues("Cache-Control", control)
	if strings.HasPrefix(control[0], "private") {
		header.Add("Vary", "Authorization, Cookie") // connect adds Accept-Encoding
	}
	return matches(info.RequestHeader().Values("If-None-Match"), tag[0])
}

// matches compares weakly, as If-None-Match requires (RFC 9110, section 13.1.2).
func matches(conditions []string, tag string) bool {
	for _, condition := range conditions {
		for candidate := range strings.SplitSeq(condition, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
				return true
			}
		}
	}
	return false
}
