package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	batchv1 "gatehouse/gen/batch/v1"
	"gatehouse/internal/batch"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/readposition"
	"gatehouse/internal/telemetry"
)

// batchService implements batchv1.BatchServiceHandler for the methods of an internal
// server. Each call passes the whole chain of its method. The first queries of the
// calls travel to Postgres together (internal/database).
type batchService struct{ server *Server }

// The deadline of each call is this much before the deadline of its batch, so that the
// answers of the other calls still reach the caller.
const (
	minBatchMargin   = 10 * time.Millisecond
	batchMarginShare = 10 // at most a tenth of the remaining time
)

// Call implements batchv1.BatchServiceHandler.
func (s *batchService) Call(ctx context.Context, req *batchv1.CallRequest) (*batchv1.CallResponse, error) {
	items := req.GetItems()
	calls := make([]batchedCall, len(items))
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-max(minBatchMargin, time.Until(deadline)/batchMarginShare)))
		defer cancel()
	}
	var round batch.Round
	for i := range calls {
		round.Add(&calls[i].member, ctx, 0)
	}
	last := len(items) - 1
	var running sync.WaitGroup
	for i, item := range items[:last] {
		running.Go(func() {
			batch.GrowStack()
			calls[i].run(s.server, item)
		})
	}
	calls[last].run(s.server, items[last])
	running.Wait()
	return answers(calls)
}

// levelOf returns the log level of a method's calls. A batch is logged only if it fails,
// because each of its calls is logged.
func (c *ServerConfig) levelOf(p *policy.Method) slog.Level {
	if p.Procedure == batchv1.BatchServiceCallProcedure {
		return min(c.Level, slog.LevelDebug)
	}
	return c.Level
}

// answers returns the response with the answer of each call. If all calls failed because
// a dependency of the service is unavailable or did not respond, the batch fails with
// the same error, so that the caller's load balancer treats it like a single call.
func answers(calls []batchedCall) (*batchv1.CallResponse, error) {
	response := &batchv1.CallResponse{Items: make([]*batchv1.CallResponse_Item, len(calls))}
	unanswered, size := 0, 0
	for i := range calls {
		call, item := &calls[i], &batchv1.CallResponse_Item{}
		switch {
		case call.err != nil:
			failure := errorOf(call.err)
			if failure.Code() == connect.CodeUnavailable || failure.Code() == connect.CodeDeadlineExceeded {
				unanswered++
			}
			item.Result = &batchv1.CallResponse_Item_Error{Error: encodeError(failure)}
		case size+len(call.answer) > MaxMessageBytes:
			item.Result = &batchv1.CallResponse_Item_TooLarge{TooLarge: true}
		default:
			size += len(call.answer)
			item.Result = &batchv1.CallResponse_Item_Message{Message: call.answer}
		}
		response.Items[i] = item
	}
	if unanswered == len(calls) {
		return nil, calls[0].err
	}
	return response, nil
}

// batchedCall is one call of a batch, and the stream that its method sees.
type batchedCall struct {
	member   batch.Member
	message  []byte
	received bool
	answer   []byte
	err      error
}

var errNotForBatches = fault.New(connect.CodeInvalidArgument, fault.ReasonInvalid, "This method can't be called in a batch. Call it on its own.")

func (c *batchedCall) run(server *Server, item *batchv1.CallRequest_Item) {
	defer c.member.Leave()
	if p := server.methods[item.GetProcedure()]; p != nil && (p.Streams() || !p.ReadsOnly() || p.Procedure == batchv1.BatchServiceCallProcedure) {
		c.err = errNotForBatches
		return
	}
	c.message = item.GetMessage()
	outer, _ := connect.CallInfoForServerContext(&c.member)
	info := &connect.CallInfo{PeerAddr: outer.PeerAddr, Protocol: outer.Protocol}
	for _, name := range []string{"Authorization", RequestIDHeader} {
		info.RequestHeader().SetValues(name, outer.RequestHeader().Values(name))
	}
	if position := item.GetPosition(); position != "" {
		info.RequestHeader().Set(readposition.Header, position)
	}
	if caller := inProcessCallerOf(outer); caller != nil {
		info.TransportInfo = caller
	}
	for _, name := range telemetry.Propagator.Fields() {
		if value, ok := item.GetTrace()[name]; ok {
			info.RequestHeader().Set(name, value)
		}
	}
	var ctx context.Context = &c.member
	if server.measured && len(item.GetTrace()) > 0 { // otelconnect prefers a span of the context to the header
		ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	}
	c.err = server.rpc.Call(ctx, item.GetProcedure(), info, c)
	if c.err == nil && c.answer == nil {
		c.err = fault.ErrInternal.WithCause(fmt.Errorf("%s sent no answer", item.GetProcedure()))
	}
}

// SendHeaders implements connect.ServerStream.
func (c *batchedCall) SendHeaders() error { return nil }

// Receive implements connect.ServerStream.
func (c *batchedCall) Receive(into any) error {
	if c.received {
		return io.EOF
	}
	c.received = true
	message, ok := into.(proto.Message)
	if !ok {
		return connectproto.ErrNotProtoMessage
	}
	if err := proto.Unmarshal(c.message, message); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, "unmarshal message: "+err.Error())
	}
	return nil
}

// Send implements connect.ServerStream.
func (c *batchedCall) Send(message any) (err error) {
	encoded, ok := message.(proto.Message)
	if !ok {
		return connectproto.ErrNotProtoMessage
	}
	c.answer, err = proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, 256), encoded)
	return err
}

// errorOf returns the error of a method's chain. It is already a public error.
func errorOf(err error) *connect.Error {
	if failure, ok := errors.AsType[*connect.Error](err); ok {
		return failure
	}
	return fault.ErrInternal.WithCause(err)
}

func encodeError(failure *connect.Error) *batchv1.Error {
	encoded := &batchv1.Error{Code: int32(failure.Code()), Message: failure.Message()}
	for _, detail := range failure.Details() {
		encoded.Details = append(encoded.Details, connectproto.ErrorDetailToAny(detail))
	}
	return encoded
}

// BatchError returns the error of a call in a batch as the HTTP transport would return it
// for a single call.
func BatchError(encoded *batchv1.Error) error {
	failure := connect.NewError(connect.Code(encoded.GetCode()), encoded.GetMessage()).WithRemote()
	for _, detail := range encoded.GetDetails() {
		failure = failure.WithDetail(errorDetail(detail))
	}
	return failure
}

func errorDetail(detail *anypb.Any) *connect.ErrorDetail {
	return &connect.ErrorDetail{Type: string(detail.MessageName()), Value: detail.GetValue()}
}
