package accountfeed

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/upstream"
)

// maxOpen is how many calls of one upstream a gateway serves at once. A call that waits
// makes auth look for changes four times a second, and each copy of an upstream needs one.
const maxOpen = 8

// openRetry is when a caller may try again: a call that waits ends within 15 s, any other
// at once.
const openRetry = time.Second

var errTooManyReaders = fault.WithRetry(fault.New(connect.CodeResourceExhausted, "TOO_MANY_READERS",
	"This service has too many open calls for account events. Let each of its copies make one call at a time."), openRetry)

// openCalls counts the open calls of each upstream.
type openCalls map[*upstream.Upstream]chan struct{}

func newOpenCalls(set *upstream.Set) openCalls {
	calls := openCalls{}
	for _, u := range set.Following() {
		calls[u] = make(chan struct{}, maxOpen)
	}
	return calls
}

// boundOpen refuses a call of an upstream that has maxOpen open ones. It is an
// [rpc.Interceptor].
func (f *Feed) boundOpen(*policy.Method) (connect.ServerInterceptor, error) {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			slots := f.open[reader(ctx)]
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				return next(ctx, spec, stream)
			default:
				return errTooManyReaders
			}
		}
	}, nil
}
