package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/continuation"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/serve"
)

// requestIDHeader carries the request ID to each service and back to the caller.
const RequestIDHeader = "X-Request-Id"

// Call describes the call that a server is handling.
type Call struct {
	// Plan is what holds for the method; nil for a method that isn't there.
	Method *policy.Method
	// Request is the normalized, valid and authorized message, for interceptors that
	// read it before the method. It is nil if there are none, and for client streams.
	// It shares memory with the message of the method and must not be changed.
	Request proto.Message
	// RequestID is the caller's X-Request-Id, or a generated ID.
	RequestID string
	// Principal is the caller's name in the log: "user:…" or "service:…".
	Principal string
	// CallersDeadline reports that the caller set the deadline of the call, and OurLimit
	// that this server did.
	CallersDeadline, OurLimit bool
	// OnCallee, unless nil, is called with the name of each service that this call calls.
	OnCallee func(service string)

	Deadline time.Time // the caller's; zero if the time limit of the method is sooner

	unavailable func(error) bool // ServerConfig.IsUnavailable
}

// isUnavailable reports whether err means that a dependency of the method is
// unreachable.
func (c *Call) isUnavailable(err error) bool {
	if c.unavailable != nil {
		return c.unavailable(err)
	}
	return isNetworkError(err)
}

// WantsRecentSignIn reports whether the method requires a recent sign-in. A method
// without a known policy does.
func (c *Call) WantsRecentSignIn() bool { return c.Method == nil || c.Method.RecentSignIn }

// WantsOwnLevel reports whether the method requires level 2 of an account that has a
// second factor. A method without a known policy does.
func (c *Call) WantsOwnLevel() bool {
	return c.Method == nil || c.Method.Assurance == policyv1.Assurance_ASSURANCE_OWN
}

var errStopping = fault.New(connect.CodeUnavailable, "SERVER_STOPPING", "This replica of the service is stopping. Open the stream again to reach another replica.")

// errReconnect is the error of a stream whose server stops, unless its method returns
// one of [Stopping].
var errReconnect = Stopping(0)

// Stopping returns the error of a stream whose server stops, for a client that should open
// another one after a delay.
func Stopping(retry time.Duration) *connect.Error { return fault.WithRetry(errStopping, retry) }

type callKey struct{}

// CallFrom returns the call that ctx belongs to, or an empty Call if there is none.
func CallFrom(ctx context.Context) *Call {
	if call, ok := ctx.Value(callKey{}).(*Call); ok {
		return call
	}
	return &Call{}
}

// Detached returns a context for work that may outlive the call that started it. It
// belongs to the call, has its own time limit, and is not cancelled with the call.
func Detached(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	call := *CallFrom(ctx)
	call.CallersDeadline, call.OurLimit = false, true
	return context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), callKey{}, &call), limit)
}

// recoverPanics is the outermost interceptor: the caller gets an answer even if the
// interceptor that traces the call panics.
func recoverPanics(logger *slog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			err := callRecovering(ctx, spec, stream, next)
			if panicked, ok := err.(errPanic); ok { //nolint:errorlint // one that this recovered, and no other
				logger.LogAttrs(ctx, slog.LevelError, "call panicked outside its method", slog.String("method", spec.Procedure), slog.String("cause", panicked.Error()))
				return fault.ErrInternal
			}
			return err
		}
	}
}

// logAndMapErrors gives the call a request id, turns its error or panic into a public
// error, and writes the call's line of the log. The policy is nil for unknown methods.
func logAndMapErrors(log callLog, p *policy.Method) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			start := time.Now()
			info, _ := connect.CallInfoForServerContext(ctx)
			call := &Call{Method: p, RequestID: requestIDOf(info), unavailable: log.unavailable}
			info.ResponseHeader().Set(RequestIDHeader, call.RequestID)
			ctx = context.WithValue(ctx, callKey{}, call)

			err := callRecovering(ctx, spec, decodeErrorStream{stream}, next)
			if connecthttp.IsNotModifiedError(err) {
				log.write(ctx, spec, info, call, time.Since(start), nil, true)
				return err
			}
			if err == nil && spec.StreamType != connect.StreamTypeUnary && continuation.Continues(ctx) {
				continuation.OnEnd(ctx, log.later(ctx, spec, info, call, start))
				return nil
			}
			if err != nil && errors.Is(context.Cause(ctx), serve.ErrStopping) && fault.Reason(err) != fault.Reason(errStopping) {
				err = errReconnect
			}
			var failure *connect.Error
			if err != nil {
				failure = publicError(ctx, err)
				if frontend := frontendFrom(ctx); frontend != nil {
					frontend.Failure = failure
				}
				if after, ok := fault.RetryDelay(failure); ok {
					info.ResponseHeader().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
				}
			}
			log.write(ctx, spec, info, call, time.Since(start), failure, false)
			if failure == nil {
				return nil
			}
			return failure
		}
	}
}

// errPanic is a recovered panic. Its value is logged, not sent.
type errPanic struct {
	value any
	stack []byte
}

func (e errPanic) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

func callRecovering(ctx context.Context, spec connect.Spec, stream connect.ServerStream, next connect.ServerFunc) (err error) {
	defer recoverInto(&err)
	return next(ctx, spec, stream)
}

// Recovering calls f. If f panics, it returns an error that is an internal one for the
// caller, and has the panic and the stack in the log.
func Recovering(f func() error) (err error) {
	defer recoverInto(&err)
	return f()
}

func recoverInto(err *error) {
	if value := recover(); value != nil {
		*err = errPanic{value: value, stack: debug.Stack()}
	}
}

// callLog writes one log line for each call.
type callLog struct {
	logger   *slog.Logger
	level    slog.Level // of a call that succeeds, or fails by the caller's mistake
	clientIP func(peer string, forwarded []string) string
	// unavailable is ServerConfig.IsUnavailable.
	unavailable func(error) bool
}

// milliseconds formats a duration for the log, rounded to microseconds.
func milliseconds(took time.Duration) slog.Attr {
	return slog.Float64("duration_ms", float64(took.Microseconds())/1000)
}

func (l callLog) write(ctx context.Context, spec connect.Spec, info *connect.CallInfo, call *Call, took time.Duration, failure *connect.Error, notModified bool) {
	level, ours := l.levelOf(failure)
	if !l.logger.Enabled(ctx, level) {
		return
	}
	line := l.lineOf(ctx, spec, info, call)
	line.status = httpStatus(ctx, info, failure, notModified)
	l.writeLine(ctx, line, level, ours, took, failure)
}

// later returns a function that writes the line of a stream when it has ended, after its
// method has returned. It holds what the line says, and not the request.
func (l callLog) later(ctx context.Context, spec connect.Spec, info *connect.CallInfo, call *Call, start time.Time) func(error) {
	line := l.lineOf(ctx, spec, info, call)
	line.status = httpStatus(ctx, info, nil, false)
	return func(err error) {
		failure, _ := errors.AsType[*connect.Error](err)
		ctx := context.Background()
		if level, ours := l.levelOf(failure); l.logger.Enabled(ctx, level) {
			l.writeLine(ctx, line, level, ours, time.Since(start), failure)
		}
	}
}

// levelOf returns the level of a call's line, and whether its failure is ours.
func (l callLog) levelOf(failure *connect.Error) (level slog.Level, ours bool) {
	if failure == nil {
		return l.level, false
	}
	switch failure.Code() {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return slog.LevelError, true
	case connect.CodeUnavailable:
		if fault.Reason(failure) == fault.ReasonOverloaded { // logging each would add load
			return slog.LevelDebug, true
		}
		return slog.LevelWarn, true
	case connect.CodeUnauthenticated:
		if fault.Reason(failure) == fault.ReasonInternalToken { // one of our keys or clocks is wrong
			return slog.LevelWarn, true
		}
	}
	return l.level, false
}

// callLine is what a call's line says about the call, however it ends.
type callLine struct {
	method, requestID, principal, protocol, address, traceID string
	status                                                   int
}

func (l callLog) lineOf(ctx context.Context, spec connect.Spec, info *connect.CallInfo, call *Call) callLine {
	line := callLine{
		method: spec.Procedure, requestID: call.RequestID, principal: call.Principal, protocol: info.Protocol,
		address: l.clientIP(info.PeerAddr, info.RequestHeader().Values("X-Forwarded-For")),
	}
	if frontend := frontendFrom(ctx); frontend != nil {
		line.protocol = frontend.Protocol
	}
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		line.traceID = span.TraceID().String()
	}
	return line
}

func (l callLog) writeLine(ctx context.Context, line callLine, level slog.Level, ours bool, took time.Duration, failure *connect.Error) {
	code := "ok"
	if failure != nil {
		code = failure.Code().String()
	}
	attrs := make([]slog.Attr, 0, 11)
	attrs = append(attrs,
		slog.String("method", line.method),
		slog.String("code", code),
		milliseconds(took),
		slog.String("request_id", line.requestID),
		slog.String("principal", line.principal),
		slog.String("protocol", line.protocol),
	)
	if line.status != 0 {
		attrs = append(attrs, slog.Int("status", line.status))
	}
	if line.address != "" {
		attrs = append(attrs, slog.String("client_ip", line.address))
	}
	if line.traceID != "" {
		attrs = append(attrs, slog.String("trace_id", line.traceID))
	}
	if failure != nil {
		attrs = append(attrs, slog.String("reason", fault.Reason(failure)))
		// The cause of a caller's mistake may quote the request. Log only causes of
		// server errors.
		if cause := errors.Unwrap(failure); cause != nil && ours {
			attrs = append(attrs, slog.String("cause", cause.Error()))
		}
	}
	// LogAttrs would look up the place of the call, which no handler writes.
	record := slog.NewRecord(time.Now(), level, "call", 0)
	record.AddAttrs(attrs...)
	_ = l.logger.Handler().Handle(ctx, record)
}

// requestIDOf returns the request ID of a call, or a new one.
func requestIDOf(info *connect.CallInfo) string {
	if caller := inProcessCallerOf(info); caller != nil && caller.requestID != "" {
		return caller.requestID // the calling service has already checked it
	}
	return requestID(info.RequestHeader().Get(RequestIDHeader))
}

// requestID returns the caller's ID if it is safe to log, or else a new one.
func requestID(given string) string {
	if given == "" || len(given) > 64 {
		return newRequestID()
	}
	for _, c := range []byte(given) {
		letter := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && c != '-' && c != '_' && c != '.' {
			return newRequestID()
		}
	}
	return given
}

// newRequestID returns a random UUID (RFC 9562, version 4).
func newRequestID() string {
	var id uuid.UUID
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

// limitTime gives every call a deadline: the caller's own, or the method's time limit
// if that is sooner. A call whose deadline has passed does not begin.
func limitTime(p *policy.Method) (connect.ServerInterceptor, error) {
	limit := p.TimeLimit
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if limit == 0 {
				return next(ctx, spec, stream)
			}
			deadline, ok := ctx.Deadline()
			if ok && time.Until(deadline) <= limit {
				call := CallFrom(ctx)
				call.CallersDeadline, call.Deadline = true, deadline
				return next(ctx, spec, stream)
			}
			CallFrom(ctx).OurLimit = true
			limited := &limitedContext{Context: ctx, deadline: time.Now().Add(limit)}
			defer limited.end()
			return next(limited, spec, stream)
		}
	}, nil
}
