package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/continuation"
	"gatehouse/internal/policy"
)

// endTimeout is how long the end of a stream may take to be written.
const endTimeout = 30 * time.Second

// limitStream replaces the HTTP server's time limits of a stream, which would cut it off.
// Only the limit of reading ends here, with the request: before that, net/http would read
// the rest of it for as long as the client likes, before it sends a refusal.
func limitStream(p *policy.Method, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		r = r.WithContext(context.WithValue(r.Context(), writesKey{}, &writes{control: control}))
		if p.ClientStreams() || r.Body == nil || r.ContentLength == 0 {
			_ = control.SetReadDeadline(time.Time{})
		} else {
			r.Body = &limitedBody{r.Body, control}
		}
		next.ServeHTTP(w, r)
	})
}

// limitedBody is a request's body that ends the limit of its reading with its end.
type limitedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// writes are those of a stream.
type writes struct {
	control     *http.ResponseController
	interrupted atomic.Bool
}

type writesKey struct{}

// limitWrites ends the limit of writing while a method streams. A call that is refused
// before that keeps it, and the end of the stream has another.
func limitWrites(method connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		w, ok := ctx.Value(writesKey{}).(*writes)
		if !ok {
			return method(ctx, spec, stream)
		}
		_ = w.control.SetWriteDeadline(time.Time{})
		defer func() {
			if !w.interrupted.Load() && !continuation.Continues(ctx) {
				_ = w.control.SetWriteDeadline(time.Now().Add(endTimeout))
			}
		}()
		return method(ctx, spec, stream)
	}
}

// InterruptWrites ends the writes of the stream that ctx belongs to with an error, now and
// from now on: also one that waits for a reader. Call it only before the method returns.
func InterruptWrites(ctx context.Context) {
	if w, ok := ctx.Value(writesKey{}).(*writes); ok {
		w.interrupted.Store(true)
		_ = w.control.SetWriteDeadline(time.Now())
	}
}
