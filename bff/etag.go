package bff

import (
	"context"
	"fmt"
	"gatehouse/internal/policy"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// An answer to a GET has a strong ETag (RFC 9110, section 8.8.3): a hash of the
// message, its schema and how it is written. Whoever has that answer already gets
// a 304, not a second copy. Caches may keep an answer but must ask each time, or
// they would show what was written more than a second ago, and to the next who
// signs in; only what nobody can purge may they give by themselves, while it is
// fresh.

func readsOnly(plan *policy.Method) bool {
	options, ok := plan.Descriptor.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS &&
		!plan.Descriptor.IsStreamingClient() && !plan.Descriptor.IsStreamingServer()
}

func specOf(plan *policy.Method) connect.Spec {
	return connect.Spec{Procedure: plan.Procedure, Schema: plan.Descriptor, IdempotencyLevel: connect.IdempotencyNoSideEffects}
}

// isGet reports whether a call is a Connect GET.
func isGet(ctx context.Context) bool {
	info, ok := connecthttp.ServerInfoForContext(ctx)
	return ok && info.HTTPMethod() == http.MethodGet
}

func isNoStore(header *connect.Header) bool {
	return strings.Contains(header.Get("Cache-Control"), "no-store")
}

// named gives the answers of a method that aren't kept their ETags.
func named(plan *policy.Method) connect.ServerInterceptor {
	schema := schemaHash(plan.Descriptor.Output())
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if !isGet(ctx) {
				return next(ctx, spec, stream)
			}
			naming := &namingStream{ServerStream: stream, ctx: ctx, schema: schema}
			if err := next(ctx, spec, naming); err != nil || !naming.known {
				return err
			}
			return connecthttp.NewNotModifiedError()
		}
	}
}

type namingStream struct {
	connect.ServerStream
	ctx    context.Context //nolint:containedctx // a stream belongs to one call
	schema string
	known  bool // the caller has the answer
}

func (s *namingStream) Send(sent any) error {
	message, ok := sent.(proto.Message)
	info, _ := connect.CallInfoForServerContext(s.ctx)
	if !ok || isNoStore(info.ResponseHeader()) {
		return s.ServerStream.Send(sent)
	}
	digest, _, err := hashOf(s.schema, message)
	if err != nil {
		return err
	}
	if s.known = name(info, digest, privately); s.known {
		return nil
	}
	return s.ServerStream.Send(message)
}

// send sends an answer, or tells those who have it that they do.
func (a answered) send(ctx context.Context, plan *policy.Method, stream connect.ServerStream, now time.Time) error {
	info, _ := connect.CallInfoForServerContext(ctx)
	if a.header != nil {
		for key, values := range a.header.All() {
			for _, value := range values {
				info.ResponseHeader().Add(key, value)
			}
		}
	}
	if a.lacking {
		info.ResponseHeader().Set("Cache-Control", "no-store")
	}
	control := cacheControl(plan.Cache, a.until, now)
	if info.ResponseHeader().Get("Set-Cookie") != "" {
		control = privately // a cache that all share would give the cookie to all
	}
	if isGet(ctx) && !a.lacking && name(info, a.digest, control) {
		return connecthttp.NewNotModifiedError()
	}
	if info.Protocol == "" {
		return stream.Send(proto.Clone(a.message)) // within the process, the receiver has it for its own
	}
	if info.Codec == connect.CodecNameProto {
		return stream.Send(a.written)
	}
	return stream.Send(a.message)
}

// privately may the caller's own cache keep an answer.
const privately = "private, no-cache"

func cacheControl(kept *policy.Cache, until, now time.Time) string {
	switch {
	case !kept.Shared:
		return privately
	case len(kept.Tags) > 0:
		return "public, no-cache"
	default:
		return fmt.Sprintf("public, max-age=%d", max(0, until.Sub(now)/time.Second))
	}
}

// name sets an answer's ETag and what goes with it, and reports whether the
// caller has the answer already.
func name(info *connect.CallInfo, digest, control string) bool {
	tag := `"` + digest + "-" + info.Codec
	if strings.Contains(info.RequestHeader().Get("Accept-Encoding"), "gzip") {
		tag += "-gzip" // it may be written otherwise
	}
	tag += `"`
	header := info.ResponseHeader()
	header.Set("ETag", tag)
	header.Set("Cache-Control", control)
	if strings.HasPrefix(control, "private") {
		header.Add("Vary", "Authorization, Cookie") // connect adds Accept-Encoding
	}
	return matches(info.RequestHeader().Values("If-None-Match"), tag)
}

// matches compares weakly, as If-None-Match wants (RFC 9110, section 13.1.2).
func matches(conditions []string, tag string) bool {
	for _, condition := range conditions {
		for one := range strings.SplitSeq(condition, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == tag {
				return true
			}
		}
	}
	return false
}
