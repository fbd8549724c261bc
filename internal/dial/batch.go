package dial

import (
	"context"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	batchv1 "gatehouse/gen/batch/v1"
	"gatehouse/internal/batch"
	"gatehouse/internal/readposition"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

const (
	// batchPause is how long no batches are sent to a service that did not support them. A
	// newer version that does may replace it meanwhile.
	batchPause = time.Minute
	// maxBatchBytes bounds the requests of a batch; larger ones are sent on their own.
	maxBatchBytes = rpc.MaxMessageBytes / 2
)

// batcher sends the calls that the parts of a composition start together (package
// batch) in one request. It runs before the load balancer, which treats the request as one
// call without side effects.
type batcher struct {
	balancer    *loadBalancer
	pausedUntil atomic.Int64 // in Unix nanoseconds
}

// batchCalls is a client interceptor.
func (b *batcher) batchCalls(next connect.ClientFunc) connect.ClientFunc {
	client := batchv1.NewBatchServiceClient(connect.NewClient(transportFunc(next)))
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		member := batch.From(ctx)
		if member == nil {
			return next(ctx, spec)
		}
		trace, ok := traceHeaders(ctx)
		if !ok || spec.StreamType != connect.StreamTypeUnary || spec.IdempotencyLevel != connect.IdempotencyNoSideEffects || time.Now().UnixNano() < b.pausedUntil.Load() {
			member.Leave()
			return next(ctx, spec)
		}
		return &unaryCall{make: func(request, response any) error {
			call := &batchableCall{batcher: b, spec: spec, next: next, trace: trace, position: readposition.For(ctx, b.balancer.service)}
			return call.make(ctx, client, member, request, response)
		}}, nil
	}
}

// transportFunc adapts the rest of a client's chain to a transport.
type transportFunc connect.ClientFunc

func (f transportFunc) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	return f(ctx, spec)
}

// leaveBatch is the interceptor of clients that send no batches. It keeps the other parts of
// the composition from waiting for a call that does not join their batch.
func leaveBatch(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		batch.From(ctx).Leave()
		return next(ctx, spec)
	}
}

// traceHeaders returns the headers of a call's trace. It reports false if the call has
// other headers, which a batch does not carry.
func traceHeaders(ctx context.Context) (map[string]string, bool) {
	info, ok := connect.CallInfoForClientContext(ctx)
	if !ok || info.RequestHeader().Len() == 0 {
		return nil, true
	}
	headers := map[string]string{}
	for _, name := range telemetry.Propagator.Fields() {
		if value := info.RequestHeader().Get(name); value != "" {
			headers[name] = value
		}
	}
	return headers, len(headers) == info.RequestHeader().Len()
}

// batchableCall is a call that may travel in a batch.
type batchableCall struct {
	batcher *batcher
	spec    connect.Spec
	next    connect.ClientFunc
	trace   map[string]string
	// position is that of package readposition.
	position string
	message  []byte // the encoded request
	// One of these is set after the call was made in a batch.
	answer *batchv1.CallResponse_Item
	err    error
}

func (c *batchableCall) make(ctx context.Context, client batchv1.BatchServiceClient, member *batch.Member, request, response any) error {
	into, ok := response.(proto.Message)
	if from, isMessage := request.(proto.Message); ok && isMessage {
		var err error
		if c.message, err = proto.Marshal(from); err != nil {
			return connect.NewError(connect.CodeInternal, "marshal message: "+err.Error())
		}
		if _, err := member.Do(ctx, c.batcher, c, func(calls []any) { c.batcher.send(ctx, client, calls) }); err != nil {
			return rpc.ContextError(err)
		}
	} else {
		member.Leave()
	}
	switch {
	case c.err != nil:
		return c.err
	case c.answer == nil || c.answer.GetTooLarge():
		return attempt(ctx, c.spec, c.next, request, response)
	case c.answer.GetError() != nil:
		err := rpc.BatchError(c.answer.GetError())
		if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
			// The service ended this call before its deadline so that it could return the
			// batch in time.
			<-ctx.Done()
			return rpc.ContextError(ctx.Err())
		}
		if c.mayRetryAlone(ctx, err) {
			retries.Add(ctx, 1, c.batcher.balancer.label)
			return attempt(ctx, c.spec, c.next, request, response)
		}
		return err
	}
	if err := proto.Unmarshal(c.answer.GetMessage(), into); err != nil {
		return connect.NewError(connect.CodeInternal, "unmarshal message: "+err.Error())
	}
	return nil
}

// mayRetryAlone reports whether to retry a call that failed although its batch succeeded.
// The load balancer only sees the success of the batch.
func (c *batchableCall) mayRetryAlone(ctx context.Context, err error) bool {
	return isRefusal(err) && attemptsOf(ctx) > 1 && ctx.Err() == nil && c.batcher.balancer.budget.spend(0)
}

// send sends calls in one request. A call that must be sent alone gets neither an answer
// nor an error.
func (b *batcher) send(ctx context.Context, client batchv1.BatchServiceClient, calls []any) {
	request := &batchv1.CallRequest{Items: make([]*batchv1.CallRequest_Item, len(calls))}
	size := 0
	for i, one := range calls {
		call := one.(*batchableCall)
		size += len(call.message)
		request.Items[i] = &batchv1.CallRequest_Item{Procedure: call.spec.Procedure, Message: call.message, Trace: call.trace, Position: call.position}
	}
	if size > maxBatchBytes {
		return
	}
	ctx, info := connect.NewClientContext(ctx)
	for name, value := range request.GetItems()[0].GetTrace() {
		info.RequestHeader().Set(name, value)
	}
	response, err := client.Call(ctx, request)
	switch code := connect.CodeOf(err); {
	case err != nil && code == connect.CodeUnimplemented:
		b.pausedUntil.Store(time.Now().Add(batchPause).UnixNano())
		return
	case err == nil && len(response.GetItems()) != len(calls):
		err = connect.NewError(connect.CodeInternal, "the response of the batch has the wrong number of items")
	}
	for i, one := range calls {
		if call := one.(*batchableCall); err != nil {
			call.err = err
		} else {
			call.answer = response.GetItems()[i]
		}
	}
}
